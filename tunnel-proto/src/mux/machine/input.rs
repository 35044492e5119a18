//! What comes from outside: messages, time, and the end of the link.

use std::{mem, time::Instant};

use bytes::Bytes;

use super::{Fault, Mux};
use crate::mux::{CloseReason, Event, Frame, Frames, Hello, credit::SendCredit, keepalive::Verdict};

/// PINGs that may wait for their answer; nobody needs more than one.
const MAX_PINGS: usize = 16;
/// Credit of fewer bytes than this at a time wears out patience.
const TINY_CREDIT: u64 = 512;

impl Mux {
    /// Takes a message off the link. Whatever it holds, this does not fail: a peer that breaks the protocol makes the
    /// mux close the connection.
    pub fn handle_message(&mut self, now: Instant, message: Bytes) {
        if self.closed.is_some() {
            return;
        }
        self.watch.hear(now);
        let whole = message.len();
        let mut frames = Frames::new(message);
        for frame in frames.by_ref() {
            let handled = match frame {
                Ok(frame) => self.handle_frame(now, frame, whole),
                Err(error) => Err(Fault {
                    code: error.close_code(),
                    text: error.to_string().as_str().into(),
                }),
            };
            if let Err(fault) = handled {
                return self.fail(fault);
            }
            if self.closed.is_some() {
                return;
            }
        }
        if let Err(fault) = self.bear(now, frames.skipped().into(), "frames of unknown kinds") {
            return self.fail(fault);
        }
        self.assert_invariants();
    }

    /// Looks at the clock, when [`poll_timeout`](Self::poll_timeout) says so; earlier or later does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.closed.is_some() {
            return;
        }
        if self.watch.look(now) == Verdict::Dead {
            let after = self.watch.bound();
            return self.end(CloseReason::Silent { after });
        }
        if self.relief.is_some_and(|at| at <= now) {
            self.relieve(now);
        }
        self.assert_invariants();
    }

    /// Takes note that the link has ended. After a close it changes nothing.
    pub fn handle_link_closed(&mut self, _now: Instant) {
        self.end(CloseReason::Link);
        self.farewell = None;
    }

    fn handle_frame(&mut self, now: Instant, frame: Frame, whole: usize) -> Result<(), Fault> {
        if self.peer.is_none() && !matches!(frame, Frame::Hello(_) | Frame::Close { .. }) {
            return Err(Fault::protocol("the first frame was not HELLO"));
        }
        match frame {
            Frame::Hello(hello) => self.handle_hello(hello),
            Frame::Open { id, head } => self.handle_open(now, id, head),
            Frame::Answer { id, answer } => self.handle_answer(now, id, answer),
            Frame::Data { id, payload, fin } => self.handle_data(now, id, payload, fin, whole),
            Frame::Reset { id, code } => self.handle_reset(now, id, code),
            Frame::Stop { id, code } => self.handle_stop(now, id, code),
            Frame::MaxStreamData { id, offset } => self.handle_max_stream_data(now, id, offset.into_inner()),
            Frame::MaxData { offset } => {
                let gain = self.send_credit.raise(offset.into_inner());
                self.bear_credit(now, gain)
            }
            Frame::MaxStreams { count } => self.handle_max_streams(now, count.into_inner()),
            Frame::Ping(bytes) => self.handle_ping(now, bytes),
            Frame::Pong(bytes) => {
                if self.watch.pong(now, bytes) {
                    Ok(())
                } else {
                    self.bear(now, 1, "PONG frames that answer no PING")
                }
            }
            Frame::Drain(_) => self.handle_drain(now),
            Frame::Close { code, text } => {
                self.end(CloseReason::Remote { code, text });
                Ok(())
            }
        }
    }

    fn handle_hello(&mut self, hello: Hello) -> Result<(), Fault> {
        if self.peer.is_some() {
            return Err(Fault::protocol("a second HELLO came"));
        }
        self.opens.limit = hello.max_streams;
        self.send_credit = SendCredit::new(hello.connection_window);
        self.peer = Some(hello);
        self.opens.blocked = false;
        self.events.push_back(Event::Established);
        Ok(())
    }

    fn handle_max_streams(&mut self, now: Instant, count: u64) -> Result<(), Fault> {
        if count <= self.opens.limit {
            return self.bear(now, 1, "MAX_STREAMS frames that grant nothing");
        }
        self.opens.limit = count;
        if mem::take(&mut self.opens.blocked) {
            self.events.push_back(Event::Available);
        }
        Ok(())
    }

    fn handle_ping(&mut self, now: Instant, bytes: [u8; 8]) -> Result<(), Fault> {
        self.bear(now, 8, "PING frames")?;
        if self.pings.len() == MAX_PINGS {
            return Err(Fault::flood("PING frames at once"));
        }
        self.pings.push_back(bytes);
        Ok(())
    }

    fn handle_drain(&mut self, now: Instant) -> Result<(), Fault> {
        if self.drain.received {
            return self.bear(now, 1, "DRAIN frames");
        }
        if !self.drain.has_begun() {
            self.events.push_back(Event::Draining);
        }
        self.drain.received = true;
        if !self.drain.sent {
            self.drain.owed.get_or_insert_default();
        }
        Ok(())
    }

    pub(super) fn bear(&mut self, now: Instant, cost: u64, what: &str) -> Result<(), Fault> {
        self.patience.spend(now, cost).map_err(|_| Fault::flood(what))
    }

    pub(super) fn bear_credit(&mut self, now: Instant, gain: u64) -> Result<(), Fault> {
        if gain >= TINY_CREDIT {
            return Ok(());
        }
        self.bear(now, 1, "frames that grant hardly any credit")
    }
}
