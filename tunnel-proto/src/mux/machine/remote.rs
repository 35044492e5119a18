//! What the peer does with streams.

use std::time::Instant;

use bytes::Bytes;

use super::{Fault, Mux};
use crate::{
    Answer, Refusal, RefusalKind, StreamCode, StreamHead,
    mux::{
        Event, StreamId,
        half::{RecvEvent, RecvState, SendEvent, SendState},
        queue::SMALL,
        stream::Opening,
    },
};

/// What waits for a reader beyond this is to keep little more memory than it counts for.
const LAGGING: usize = 64 * 1024;
/// Payload that has a buffer of a link nearly for itself. To copy it would cost most where readers are behind already.
const LARGE: usize = 32 * 1024;
/// What a head counts for beside its bytes.
const HEAD_COST: u64 = 512;

/// Whether to copy payload that comes in a message of `whole` bytes, of which a slice keeps all in memory, to a stream of
/// which `waiting` bytes wait.
fn is_wasteful(waiting: usize, payload: usize, whole: usize) -> bool {
    let rest = whole.saturating_sub(payload);
    if waiting < LAGGING {
        payload < SMALL || rest > payload
    } else {
        payload < LARGE || rest > payload / 8
    }
}

impl Mux {
    pub(super) fn handle_open(&mut self, now: Instant, id: StreamId, head: StreamHead) -> Result<(), Fault> {
        let wrong = |what: &str| Err(Fault::protocol(format_args!("OPEN frame: stream {id} {what}")));
        if id.opener() == self.side {
            return wrong("is not the peer's to open");
        }
        if id.index() != self.accepts.count {
            let expected = StreamId::new(self.side.peer(), self.accepts.count);
            return wrong(&format!("instead of {expected}"));
        }
        if self.accepts.count >= self.accepts.granted {
            return wrong("is beyond MAX_STREAMS");
        }
        if self.drain.received {
            return wrong("comes after DRAIN");
        }
        self.accepts.count += 1;
        let allowed = self.peer.as_ref().map_or(0, |peer| peer.stream_window);
        let charged = HEAD_COST + head.encode().len() as u64;
        let has_room = self.accepts.waiting < self.config.max_pending && self.account.charge(charged).is_ok();
        let charged = if has_room { charged } else { 0 };
        let stream = self.new_stream(Opening::Waiting { charged }, allowed, now);
        self.accepts.waiting += 1;
        self.enter(id, stream);
        if has_room {
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

    pub(super) fn handle_answer(&mut self, now: Instant, id: StreamId, answer: Answer) -> Result<(), Fault> {
        let wrong = |what| Err(Fault::protocol(format_args!("OPEN_ANSWER frame: stream {id} {what}")));
        if id.opener() != self.side {
            return wrong("is the peer's own");
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return self.handle_late(now, id, "OPEN_ANSWER");
        };
        match stream.opening {
            Opening::Asked => {}
            Opening::Over => return self.bear_late(now),
            _ => return wrong("was answered before"),
        }
        // This end may have given it up meanwhile.
        let is_over = stream.is_over();
        match answer {
            Answer::Accepted if is_over => stream.opening = Opening::Over,
            Answer::Accepted => {
                stream.opening = Opening::Accepted;
                self.stats.streams_opened += 1;
                self.events.push_back(Event::Answered { id, answer });
            }
            Answer::Refused(_) => {
                self.end_unaccepted(id);
                if !is_over {
                    self.events.push_back(Event::Answered { id, answer });
                }
                self.release_both(id);
            }
        }
        if is_over {
            return self.bear_late(now);
        }
        Ok(())
    }

    pub(super) fn handle_data(
        &mut self,
        now: Instant,
        id: StreamId,
        payload: Bytes,
        fin: bool,
        whole: usize,
    ) -> Result<(), Fault> {
        let wrong = |what| Err(Fault::protocol(format_args!("DATA frame: stream {id} {what}")));
        let len = payload.len() as u64;
        if self.recv_credit.receive(len).is_err() {
            return wrong("goes beyond MAX_DATA");
        }
        // On receipt, whoever reads it and when: unread streams must not use up what all share.
        self.recv_credit.give_back(len);
        if payload.is_empty() && !fin {
            self.bear(now, 4, "empty DATA frames")?;
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            self.check_known(id, "DATA")?;
            return self.handle_late_data(now, id, len);
        };
        match stream.recv.state {
            RecvState::Open => {}
            RecvState::Stopped(_) => return self.handle_late_data(now, id, len),
            _ => return wrong("has ended"),
        }
        if stream.opening == Opening::Asked {
            return wrong("was not answered");
        }
        if len > stream.recv.credit.outstanding() {
            return wrong("goes beyond MAX_STREAM_DATA");
        }
        if len > 0 && !self.make_room(now, id, len) {
            // It was stopped, and these bytes are the first that are late.
            return self.handle_late_data(now, id, len);
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        let recv = &mut stream.recv;
        if recv.credit.receive(len).is_err() {
            return wrong("goes beyond MAX_STREAM_DATA");
        }
        self.granted -= len;
        let is_first = len > 0 && recv.queue.is_empty();
        if is_wasteful(recv.queue.len(), payload.len(), whole) {
            recv.queue.push_copy(&payload);
        } else {
            recv.queue.push(payload);
        }
        if std::mem::take(&mut recv.blocked) {
            self.events.push_back(Event::Readable { id });
        }
        if is_first {
            self.touch(now, id);
        }
        if fin {
            self.handle_fin(id);
        }
        self.watch_memory(now);
        Ok(())
    }

    fn handle_fin(&mut self, id: StreamId) {
        self.apply_recv(id, RecvEvent::Fin);
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        if stream.is_waiting()
            && let SendState::Stopped(code) = stream.send.state
        {
            self.cancel(id, code);
        } else if stream.recv.queue.is_empty() {
            self.apply_recv(id, RecvEvent::Emptied);
            self.settle(id);
        }
    }

    pub(super) fn handle_reset(&mut self, now: Instant, id: StreamId, code: StreamCode) -> Result<(), Fault> {
        let Some(stream) = self.streams.get(&id) else {
            return self.handle_late(now, id, "RESET");
        };
        match stream.opening {
            Opening::Asked => {
                let is_over = stream.is_over();
                self.end_unaccepted(id);
                self.release_both(id);
                if is_over {
                    return self.bear_late(now);
                }
                self.events.push_back(Event::Unanswered { id, code });
            }
            Opening::Waiting { .. } => {
                self.apply_recv(id, RecvEvent::Reset(code));
                self.cancel(id, code);
            }
            Opening::Accepted | Opening::Over => {
                if !self.apply_recv(id, RecvEvent::Reset(code)) {
                    return self.bear_late(now);
                }
                self.events.push_back(Event::RecvEnded { id });
                self.settle(id);
            }
        }
        Ok(())
    }

    pub(super) fn handle_stop(&mut self, now: Instant, id: StreamId, code: StreamCode) -> Result<(), Fault> {
        let Some(stream) = self.streams.get(&id) else {
            return self.handle_late(now, id, "STOP");
        };
        if stream.is_waiting() && !stream.recv.state.listens() {
            // Of an opener that has finished, this is all that says that it gives up.
            self.cancel(id, code);
            return Ok(());
        }
        if !self.apply_send(id, SendEvent::Stop(code)) {
            return self.bear_late(now);
        }
        let stream = self.streams.get_mut(&id);
        if let Some(stream) = stream.filter(|stream| stream.opening == Opening::Asked && stream.is_over()) {
            // The other half was stopped by this end, and nothing is left that an answer could be about.
            stream.opening = Opening::Over;
            self.events.push_back(Event::Unanswered { id, code });
            self.release_both(id);
        } else {
            self.events.push_back(Event::Stopped { id });
            self.settle(id);
        }
        Ok(())
    }

    pub(super) fn handle_max_stream_data(&mut self, now: Instant, id: StreamId, offset: u64) -> Result<(), Fault> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return self.handle_late(now, id, "MAX_STREAM_DATA");
        };
        if stream.send.state.is_over() {
            return self.bear_late(now);
        }
        let gain = stream.send.credit.raise(offset);
        if stream.send.blocked && !stream.send.in_line && !stream.is_waiting() && stream.send.room(usize::MAX) > 0 {
            stream.send.blocked = false;
            self.events.push_back(Event::Writable { id });
        }
        self.make_ready(id);
        self.bear_credit(now, gain)
    }

    /// The opener has given up a stream before it was answered, and nobody would hear an answer.
    fn cancel(&mut self, id: StreamId, code: StreamCode) {
        self.end_waiting(id);
        self.apply_send(id, SendEvent::Stop(code));
        self.apply_recv(id, RecvEvent::Stop(code));
        self.events.push_back(Event::Cancelled { id });
        self.settle(id);
    }

    /// Ends both halves of a stream that this end has opened and that was not accepted.
    fn end_unaccepted(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.opening = Opening::Over;
        }
        self.apply_send(id, SendEvent::Stop(StreamCode::REFUSED));
        self.apply_recv(id, RecvEvent::Reset(StreamCode::REFUSED));
    }

    /// Payload for a half that this end has stopped. There cannot be more of it than there was credit.
    fn handle_late_data(&mut self, now: Instant, id: StreamId, len: u64) -> Result<(), Fault> {
        match self.late.checked_sub(len) {
            _ if len == 0 => self.bear_late(now),
            Some(late) => {
                self.late = late;
                Ok(())
            }
            None => Err(Fault::protocol(format_args!(
                "DATA frame: stream {id} goes on without credit after its end"
            ))),
        }
    }

    /// A frame about a stream that is not there: it is over, or it never was.
    fn handle_late(&mut self, now: Instant, id: StreamId, frame: &str) -> Result<(), Fault> {
        self.check_known(id, frame)?;
        self.bear_late(now)
    }

    fn bear_late(&mut self, now: Instant) -> Result<(), Fault> {
        let late = self.patience.spend_late(now);
        late.map_err(|_| Fault::flood("frames about streams that are over"))
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
}
