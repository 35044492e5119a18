//! What the application does.

use std::{mem, time::Instant};

use bytes::{Bytes, BytesMut};

use super::Mux;
use crate::{
    Answer, CloseCode, StreamCode, StreamHead, Text,
    mux::{
        Account, CloseReason, Config, Event, Frame, OpenBlocked, ReadError, StreamId, WriteError,
        budget::Pressure,
        half::{RecvEvent, RecvState, SendEvent, SendState},
        stream::{Opening, Stream},
    },
};

/// What the OPENs may count for that the link has not taken yet.
const MAX_UNSENT: u64 = 4 * 1024 * 1024;
/// What an OPEN counts for beside its bytes.
pub(super) const OPEN_COST: u64 = 512;
/// How many bytes of one stream may be queued while memory is short.
const SHORT_QUEUE: usize = 16 * 1024;

impl Mux {
    /// Opens a stream. [`Event::Answered`] or [`Event::Unanswered`] follows, unless this end ends both halves before;
    /// what is written before is sent before.
    pub fn open(&mut self, now: Instant, head: &StreamHead) -> Result<StreamId, OpenBlocked> {
        if self.closed.is_some() {
            return Err(OpenBlocked::Closed);
        }
        if self.drain.has_begun() {
            return Err(OpenBlocked::Draining);
        }
        let has_place = self.opens.count < self.opens.limit && self.opens.unsent < MAX_UNSENT;
        let Some(peer) = self.peer.as_ref().filter(|_| has_place) else {
            self.opens.blocked = true;
            return Err(OpenBlocked::Limit);
        };
        let allowed = peer.stream_window;
        let id = StreamId::new(self.side, self.opens.count);
        self.opens.count += 1;
        let mut out = BytesMut::new();
        let head = head.clone();
        Frame::Open { id, head }.encode(&mut out);
        let mut stream = self.new_stream(Opening::Asked, allowed, now);
        self.opens.unsent += out.len() as u64 + OPEN_COST;
        stream.preface = Some(out.freeze());
        self.enter(id, stream);
        self.assert_invariants();
        Ok(id)
    }

    /// Answers a stream that the peer has opened. A refusal ends it, and lets go of it. Does nothing about a stream
    /// that was answered, or that either end has given up.
    pub fn answer(&mut self, _now: Instant, id: StreamId, answer: &Answer) {
        let is_refused = matches!(answer, Answer::Refused(_));
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !stream.is_waiting() {
            if is_refused {
                self.release_both(id);
            }
            return;
        }
        let mut out = BytesMut::new();
        let answer = answer.clone();
        Frame::Answer { id, answer }.encode(&mut out);
        stream.preface = Some(out.freeze());
        self.end_waiting(id);
        if is_refused {
            self.apply_send(id, SendEvent::Reset(StreamCode::REFUSED));
            self.apply_recv(id, RecvEvent::Stop(StreamCode::REFUSED));
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            if is_refused {
                // It says it all.
                stream.owed.reset = false;
                stream.owed.stop = false;
                stream.send.released = true;
                stream.recv.released = true;
            } else {
                stream.opening = Opening::Accepted;
                self.stats.streams_accepted += 1;
                if mem::take(&mut stream.send.blocked) {
                    self.events.push_back(Event::Writable { id });
                }
            }
        }
        self.owe(id);
        self.make_ready(id);
        self.settle(id);
        self.assert_invariants();
    }

    /// How many bytes the next [`write`](Self::write) takes if it comes at once and memory is not used up, at least one: for a
    /// writer that can leave them where they are until then. Not to write after all takes no room from others.
    pub fn room(&mut self, id: StreamId) -> Result<usize, WriteError> {
        let limit = queue_limit(&self.config, &self.account);
        let stream = self.writing(id)?;
        stream.send.promised = None;
        // Less than half of the queue is not worth a read.
        let is_worth = stream.send.queue.len() <= limit / 2;
        let Some(room) = is_worth.then(|| self.find_room(id)).flatten() else {
            self.block(id);
            return Err(WriteError::Blocked);
        };
        let stream = self.writing(id)?;
        stream.send.blocked = false;
        stream.send.promised = Some(room);
        Ok(room)
    }

    /// Takes bytes off the front of `data` and queues them; gives their number, which is above zero unless `data` is
    /// empty. Never more than the peer has granted.
    pub fn write(&mut self, now: Instant, id: StreamId, data: &mut Bytes) -> Result<usize, WriteError> {
        let limit = queue_limit(&self.config, &self.account);
        let stream = self.writing(id)?;
        if data.is_empty() {
            return Ok(0);
        }
        let room = match stream.send.promised.take() {
            Some(promised) => Some(promised.min(stream.send.room(limit))).filter(|room| *room > 0),
            None => self.find_room(id),
        };
        let Some(room) = room else {
            self.block(id);
            return Err(WriteError::Blocked);
        };
        let taken = room.min(data.len());
        let stream = self.streams.get_mut(&id).ok_or(WriteError::Closed)?;
        if self.account.charge_writer(taken as u64).is_err() {
            stream.send.blocked = true;
            if !mem::replace(&mut stream.send.starved, true) {
                self.starved.push(id);
            }
            self.account.wait();
            return Err(WriteError::Blocked);
        }
        stream.send.blocked = false;
        stream.send.queue.push(data.split_to(taken));
        self.line.queued += taken;
        self.stats.bytes_sent += taken as u64;
        if stream.send.left > 0 {
            stream.send.left = stream.send.left.saturating_sub(taken);
            self.schedule.enter_busy(id, &mut stream.turn);
        } else {
            self.schedule.enter(id, &mut stream.turn);
        }
        self.watch_memory(now);
        self.assert_invariants();
        Ok(taken)
    }

    /// The stream, if its sending half takes bytes or will take some.
    fn writing(&mut self, id: StreamId) -> Result<&mut Stream, WriteError> {
        if self.closed.is_some() {
            return Err(WriteError::Closed);
        }
        let stream = self.streams.get_mut(&id).ok_or(WriteError::Closed)?;
        match stream.send.state {
            SendState::Open => Ok(stream),
            SendState::Finishing | SendState::Finished => Err(WriteError::Finished),
            SendState::Reset(code) => Err(WriteError::Reset(code)),
            SendState::Stopped(code) => Err(WriteError::Stopped(code)),
        }
    }

    /// Ends the sending half cleanly behind everything queued. Again after that, it does nothing.
    pub fn finish(&mut self, _now: Instant, id: StreamId) -> Result<(), WriteError> {
        if self.closed.is_some() {
            return Err(WriteError::Closed);
        }
        let stream = self.streams.get_mut(&id).ok_or(WriteError::Closed)?;
        match stream.send.state {
            SendState::Reset(code) => return Err(WriteError::Reset(code)),
            SendState::Stopped(code) => return Err(WriteError::Stopped(code)),
            state => stream.send.state = state.after(SendEvent::Finish),
        }
        stream.send.blocked = false;
        self.line.take_call(id);
        self.make_ready(id);
        self.assert_invariants();
        Ok(())
    }

    /// Gives up the sending half and drops what is queued. Does nothing when the half is over. A stream that was not
    /// answered ends with it as a whole.
    pub fn reset(&mut self, _now: Instant, id: StreamId, code: StreamCode) {
        if !self.apply_send(id, SendEvent::Reset(code)) {
            return;
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let is_open = self.closed.is_none();
        stream.owed.reset = is_open;
        if stream.opening == Opening::Asked || stream.is_waiting() {
            // The acceptor's RESET says it all.
            stream.owed.stop |= is_open && !stream.is_waiting() && stream.recv.state.listens();
            if stream.recv.blocked && is_open {
                self.events.push_back(Event::RecvEnded { id });
            }
            self.end_waiting(id);
            self.apply_recv(id, RecvEvent::Stop(code));
        }
        self.owe(id);
        self.settle(id);
        self.assert_invariants();
    }

    /// Gives the next bytes, at most `max` (which must not be zero), or `None` at the clean end. What came before the
    /// end of the connection can still be read.
    pub fn read(&mut self, now: Instant, id: StreamId, max: usize) -> Result<Option<Bytes>, ReadError> {
        let stream = self.streams.get_mut(&id).ok_or(ReadError::Closed)?;
        let recv = &mut stream.recv;
        match recv.state {
            RecvState::Open | RecvState::Ended => {}
            RecvState::Done => return Ok(None),
            RecvState::Reset(code) => return Err(ReadError::Reset(code)),
            RecvState::Stopped(code) => return Err(ReadError::Stopped(code)),
        }
        let Some(bytes) = recv.queue.pop(max) else {
            if self.closed.is_some() {
                return Err(ReadError::Closed);
            }
            recv.blocked = true;
            return Err(ReadError::Blocked);
        };
        let len = bytes.len() as u64;
        recv.credit.give_back(len);
        let is_last = recv.state == RecvState::Ended && recv.queue.is_empty();
        self.account.release(len);
        self.stats.bytes_received += len;
        self.touch(now, id);
        if is_last {
            self.apply_recv(id, RecvEvent::Emptied);
            self.settle(id);
        } else {
            self.grant(now, id);
        }
        self.assert_invariants();
        Ok(Some(bytes))
    }

    /// Wants no more of the receiving half and drops what has come. Does nothing when the half is over.
    pub fn stop(&mut self, _now: Instant, id: StreamId, code: StreamCode) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.recv.state.is_over() {
            return;
        }
        // Behind the clean end the peer has nothing left to be stopped.
        stream.owed.stop = stream.recv.state.listens() && self.closed.is_none();
        self.apply_recv(id, RecvEvent::Stop(code));
        self.owe(id);
        self.settle(id);
        self.assert_invariants();
    }

    /// How the receiving half has ended badly, if it has.
    #[must_use]
    pub fn recv_ended(&self, id: StreamId) -> Option<ReadError> {
        match self.streams.get(&id)?.recv.state {
            RecvState::Reset(code) => Some(ReadError::Reset(code)),
            RecvState::Stopped(code) => Some(ReadError::Stopped(code)),
            _ => None,
        }
    }

    /// The code with which the peer has stopped the sending half, if it has.
    #[must_use]
    pub fn send_stopped(&self, id: StreamId) -> Option<StreamCode> {
        match self.streams.get(&id)?.send.state {
            SendState::Stopped(code) => Some(code),
            _ => None,
        }
    }

    /// Lets go of the sending half; one that is neither finished nor over is reset with [`StreamCode::CANCELLED`], and
    /// so is one that cannot be finished because the stream was not answered.
    pub fn release_send(&mut self, now: Instant, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.send.released = true;
        if stream.send.state == SendState::Open || stream.is_waiting() {
            self.reset(now, id, StreamCode::CANCELLED);
        }
        self.settle(id);
    }

    /// Lets go of the receiving half; one that is not over is stopped with [`StreamCode::CANCELLED`].
    pub fn release_recv(&mut self, now: Instant, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.recv.released = true;
        self.stop(now, id, StreamCode::CANCELLED);
        self.settle(id);
    }

    /// Lets no new streams start, in either direction. When both ends have said so and the last stream is over, the
    /// connection is closed with [`CloseCode::DRAINED`].
    pub fn drain(&mut self, _now: Instant, text: Text) {
        if self.closed.is_some() || self.drain.owed.is_some() || self.drain.sent {
            return;
        }
        if !self.drain.has_begun() {
            self.events.push_back(Event::Draining);
        }
        self.drain.owed = Some(text);
    }

    /// Ends the connection and every stream in it. Only the first call counts.
    pub fn close(&mut self, _now: Instant, code: CloseCode, text: Text) {
        self.end(CloseReason::Local { code, text });
    }
}

/// How many bytes of one stream may be queued: never more than there is room for when a writer is woken that had to wait
/// for memory.
pub(super) fn queue_limit(config: &Config, account: &Account) -> usize {
    let most = config.send_queue.min(account.writers_piece());
    match account.pressure() {
        Pressure::Ample => most,
        Pressure::Tight => most.min(SHORT_QUEUE),
    }
}
