//! What comes from outside: messages, time, and the end of the link.

use std::{mem, time::Instant};

use bytes::Bytes;

use super::{Fault, Mux};
use crate::{
    Answer, Refusal, RefusalKind, StreamCode, StreamHead,
    mux::{
        CloseReason, Event, Frame, Frames, Hello, StreamId,
        credit::SendCredit,
        half::{RecvEvent, RecvState, SendEvent},
        keepalive::Verdict,
        queue::SMALL,
        stream::Opening,
    },
};

/// PINGs that may wait for their answer; nobody needs more than one.
const MAX_PINGS: usize = 16;
/// A reader that is so far behind gains nothing by a slice that was not copied.
const LAGGING: usize = 64 * 1024;
/// Credit of fewer bytes than this at a time wears out patience.
const TINY_CREDIT: u64 = 512;
/// What a head counts for beside its bytes.
const HEAD_COST: u64 = 512;

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
        let mut count = 0;
        for frame in frames.by_ref() {
            count += 1;
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
        let idle = u64::from(frames.skipped()) + u64::from(count == 0);
        if self.patience.spend(now, idle).is_err() {
            self.fail(Fault::flood("frames of unknown kinds, or empty messages"));
        }
        self.assert_invariants();
    }

    /// Looks at the clock, when [`poll_timeout`](Self::poll_timeout) says so; earlier or later does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.closed.is_none() && self.watch.look(now) == Verdict::Dead {
            self.end(CloseReason::Silent {
                after: self.watch.bound(),
            });
        }
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
        self.events.push_back(Event::Established);
        Ok(())
    }

    fn handle_open(&mut self, now: Instant, id: StreamId, head: StreamHead) -> Result<(), Fault> {
        if id.opener() == self.side {
            return Err(Fault::protocol(format_args!(
                "OPEN frame: stream {id} is not the peer's to open"
            )));
        }
        if id.index() != self.accepts.count {
            let expected = StreamId::new(self.side.peer(), self.accepts.count);
            return Err(Fault::protocol(format_args!(
                "OPEN frame: stream {id} instead of {expected}"
            )));
        }
        if self.accepts.count >= self.accepts.granted {
            return Err(Fault::protocol(format_args!(
                "OPEN frame: stream {id} is beyond MAX_STREAMS"
            )));
        }
        if self.drain.received {
            return Err(Fault::protocol(format_args!(
                "OPEN frame: stream {id} comes after DRAIN"
            )));
        }
        self.accepts.count += 1;
        let allowed = self.peer.as_ref().map_or(0, |peer| peer.stream_window);
        let charged = head_cost(&head);
        let room = self.accepts.waiting < self.config.max_pending && self.account.charge(charged).is_ok();
        let charged = if room { charged } else { 0 };
        let stream = self.new_stream(Opening::Waiting { charged }, allowed, now);
        self.accepts.waiting += 1;
        self.enter(id, stream);
        if room {
            let head = Box::new(head);
            self.events.push_back(Event::Opened { id, head });
        } else {
            let refusal = Refusal::new(
                RefusalKind::ConnectionLimitReached,
                "too many streams wait for an answer",
            );
            self.answer(now, id, &Answer::Refused(refusal));
        }
        Ok(())
    }

    fn handle_answer(&mut self, now: Instant, id: StreamId, answer: Answer) -> Result<(), Fault> {
        if id.opener() != self.side {
            return Err(Fault::protocol(format_args!(
                "OPEN_ANSWER frame: stream {id} is the peer's own"
            )));
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return self.handle_late(now, id, "OPEN_ANSWER");
        };
        match stream.opening {
            Opening::Asked => {}
            Opening::Over => return self.bear(now, 1, "frames about streams that are over"),
            _ => {
                return Err(Fault::protocol(format_args!(
                    "OPEN_ANSWER frame: stream {id} was answered before"
                )));
            }
        }
        match &answer {
            // This end has given it up meanwhile.
            Answer::Accepted if stream.is_over() => stream.opening = Opening::Over,
            Answer::Accepted => {
                stream.opening = Opening::Accepted;
                self.stats.streams_opened += 1;
                self.events.push_back(Event::Answered { id, answer });
            }
            Answer::Refused(_) => {
                let given_up = stream.is_over();
                self.end_unaccepted(id);
                if !given_up {
                    self.events.push_back(Event::Answered { id, answer });
                }
                self.release_both(id);
            }
        }
        Ok(())
    }

    fn handle_data(
        &mut self,
        now: Instant,
        id: StreamId,
        payload: Bytes,
        fin: bool,
        whole: usize,
    ) -> Result<(), Fault> {
        let len = payload.len() as u64;
        if self.recv_credit.receive(len).is_err() {
            return Err(Fault::protocol(format_args!(
                "DATA frame: stream {id} goes beyond MAX_DATA"
            )));
        }
        // On receipt, whoever reads it and when: unread streams must not use up what all share.
        self.recv_credit.give_back(len);
        if payload.is_empty() && !fin {
            self.bear(now, 4, "empty DATA frames")?;
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return self.check_known(id, "DATA");
        };
        let recv = &mut stream.recv;
        if !recv.state.listens() {
            return match recv.state {
                RecvState::Stopped(_) => Ok(()),
                _ => Err(Fault::protocol(format_args!("DATA frame: stream {id} has ended"))),
            };
        }
        if stream.opening == Opening::Asked {
            return Err(Fault::protocol(format_args!(
                "DATA frame: stream {id} was not answered"
            )));
        }
        if recv.credit.receive(len).is_err() {
            return Err(Fault::protocol(format_args!(
                "DATA frame: stream {id} goes beyond MAX_STREAM_DATA"
            )));
        }
        if len > 0 {
            if recv.queue.is_empty() {
                recv.taken_at = now;
            }
            if !self.make_room(now, id, len) {
                return Ok(());
            }
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        let recv = &mut stream.recv;
        if recv.queue.len() >= LAGGING || payload.len() < SMALL || payload.len() * 4 < whole {
            recv.queue.push_copy(&payload);
        } else {
            recv.queue.push(payload);
        }
        if fin {
            recv.state = recv.state.after(RecvEvent::Fin);
            if recv.queue.is_empty() {
                recv.state = recv.state.after(RecvEvent::Emptied);
            }
            stream.owed.max_data = false;
        }
        if mem::take(&mut recv.blocked) {
            self.events.push_back(Event::Readable { id });
        }
        self.settle(id);
        Ok(())
    }

    fn handle_reset(&mut self, now: Instant, id: StreamId, code: StreamCode) -> Result<(), Fault> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return self.handle_late(now, id, "RESET");
        };
        let recv = &mut stream.recv;
        let before = recv.state;
        recv.state = before.after(RecvEvent::Reset(code));
        if recv.state == before {
            return self.bear(now, 1, "frames about streams that are over");
        }
        recv.blocked = false;
        stream.owed.max_data = false;
        self.account.release(recv.queue.clear() as u64);
        match stream.opening {
            Opening::Asked => {
                self.end_unaccepted(id);
                self.events.push_back(Event::Unanswered { id, code });
                self.release_both(id);
            }
            Opening::Waiting { charged } => {
                stream.opening = Opening::Over;
                self.account.release(charged);
                self.accepts.waiting -= 1;
                // The opener has gone, and nobody would hear an answer.
                stream.send.state = stream.send.state.after(SendEvent::Stop(code));
                self.account.release(stream.send.queue.clear() as u64);
                self.events.push_back(Event::Cancelled { id });
                self.settle(id);
            }
            _ => {
                self.events.push_back(Event::RecvEnded { id });
                self.settle(id);
            }
        }
        Ok(())
    }

    fn handle_stop(&mut self, now: Instant, id: StreamId, code: StreamCode) -> Result<(), Fault> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return self.handle_late(now, id, "STOP");
        };
        let before = stream.send.state;
        stream.send.state = before.after(SendEvent::Stop(code));
        if stream.send.state == before {
            return self.bear(now, 1, "frames about streams that are over");
        }
        stream.send.blocked = false;
        self.account.release(stream.send.queue.clear() as u64);
        self.events.push_back(Event::Stopped { id });
        self.settle(id);
        Ok(())
    }

    fn handle_max_stream_data(&mut self, now: Instant, id: StreamId, offset: u64) -> Result<(), Fault> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return self.handle_late(now, id, "MAX_STREAM_DATA");
        };
        let gain = stream.send.credit.raise(offset);
        if stream.send.blocked && !matches!(stream.opening, Opening::Waiting { .. }) && stream.send.room(usize::MAX) > 0
        {
            stream.send.blocked = false;
            self.events.push_back(Event::Writable { id });
        }
        self.make_ready(id);
        self.bear_credit(now, gain)
    }

    fn handle_max_streams(&mut self, now: Instant, count: u64) -> Result<(), Fault> {
        if count > StreamId::MAX_COUNT {
            return Err(Fault::protocol(format_args!(
                "MAX_STREAMS frame: {count} is out of range"
            )));
        }
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

    /// A frame about a stream that is not there: it is over, or it never was.
    fn handle_late(&mut self, now: Instant, id: StreamId, frame: &str) -> Result<(), Fault> {
        self.check_known(id, frame)?;
        self.bear(now, 1, "frames about streams that are over")
    }

    fn check_known(&self, id: StreamId, frame: &str) -> Result<(), Fault> {
        let opened = if id.opener() == self.side {
            self.opens.count
        } else {
            self.accepts.count
        };
        if id.index() < opened {
            return Ok(());
        }
        Err(Fault::protocol(format_args!(
            "{frame} frame: stream {id} was never opened"
        )))
    }

    fn bear(&mut self, now: Instant, cost: u64, what: &str) -> Result<(), Fault> {
        self.patience.spend(now, cost).map_err(|_| Fault::flood(what))
    }

    fn bear_credit(&mut self, now: Instant, gain: u64) -> Result<(), Fault> {
        if gain >= TINY_CREDIT {
            return Ok(());
        }
        self.bear(now, 1, "frames that grant hardly any credit")
    }

    /// Ends both halves of a stream that this end has opened and that was not accepted.
    fn end_unaccepted(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.opening = Opening::Over;
            stream.send.state = stream.send.state.after(SendEvent::Stop(StreamCode::REFUSED));
            stream.recv.state = stream.recv.state.after(RecvEvent::Reset(StreamCode::REFUSED));
            stream.owed.max_data = false;
            self.account.release(stream.send.queue.clear() as u64);
            self.account.release(stream.recv.queue.clear() as u64);
        }
    }
}

/// What a head that waits for its answer counts for.
fn head_cost(head: &StreamHead) -> u64 {
    HEAD_COST + head.encode().len() as u64
}
