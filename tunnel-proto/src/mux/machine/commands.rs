//! What the application does.

use std::{mem, time::Instant};

use bytes::{Bytes, BytesMut};

use super::Mux;
use crate::{
    Answer, CloseCode, StreamCode, StreamHead, Text,
    mux::{
        CloseReason, Event, Frame, OpenBlocked, ReadError, StreamId, WriteError,
        budget::Pressure,
        half::{RecvEvent, RecvState, SendEvent, SendState},
        schedule::QUANTUM,
        stream::{Opening, Stream},
    },
};

impl Mux {
    /// Opens a stream. [`Event::Answered`] or [`Event::Unanswered`] follows; what is written before is sent before.
    pub fn open(&mut self, now: Instant, head: &StreamHead) -> Result<StreamId, OpenBlocked> {
        if self.closed.is_some() {
            return Err(OpenBlocked::Closed);
        }
        if self.drain.has_begun() {
            return Err(OpenBlocked::Draining);
        }
        let Some(peer) = self.peer.as_ref().filter(|_| self.opens.count < self.opens.limit) else {
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
        stream.preface = Some(out.freeze());
        self.enter(id, stream);
        self.assert_invariants();
        Ok(id)
    }

    /// Answers a stream that the peer has opened. A refusal ends it, and lets go of it. Does nothing about a stream
    /// that was answered, or that the peer has given up.
    pub fn answer(&mut self, _now: Instant, id: StreamId, answer: &Answer) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let Opening::Waiting { charged } = stream.opening else {
            if matches!(answer, Answer::Refused(_)) {
                self.release_both(id);
            }
            return;
        };
        self.account.release(charged);
        self.accepts.waiting -= 1;
        let mut out = BytesMut::new();
        let frame = Frame::Answer {
            id,
            answer: answer.clone(),
        };
        frame.encode(&mut out);
        stream.preface = Some(out.freeze());
        match answer {
            Answer::Accepted => {
                stream.opening = Opening::Accepted;
                self.stats.streams_accepted += 1;
                if mem::take(&mut stream.send.blocked) {
                    self.events.push_back(Event::Writable { id });
                }
            }
            Answer::Refused(_) => {
                stream.opening = Opening::Over;
                stream.send.state = stream.send.state.after(SendEvent::Reset(StreamCode::REFUSED));
                stream.recv.state = stream.recv.state.after(RecvEvent::Stop(StreamCode::REFUSED));
                self.account.release(stream.recv.queue.clear() as u64);
                stream.owed.max_data = false;
                stream.send.released = true;
                stream.recv.released = true;
            }
        }
        self.owe(id);
        self.settle(id);
        self.assert_invariants();
    }

    /// Takes bytes off the front of `data` and queues them; gives their number, which is above zero unless `data` is
    /// empty. Never more than the peer has granted.
    pub fn write(&mut self, _now: Instant, id: StreamId, data: &mut Bytes) -> Result<usize, WriteError> {
        if self.closed.is_some() {
            return Err(WriteError::Closed);
        }
        let stream = self.streams.get_mut(&id).ok_or(WriteError::Closed)?;
        let send = &mut stream.send;
        match send.state {
            SendState::Open => {}
            SendState::Finishing | SendState::Finished => return Err(WriteError::Finished),
            SendState::Reset(code) => return Err(WriteError::Reset(code)),
            SendState::Stopped(code) => return Err(WriteError::Stopped(code)),
        }
        if data.is_empty() {
            return Ok(0);
        }
        let most = match self.account.pressure() {
            Pressure::Ample => self.config.send_queue,
            Pressure::Tight => self.config.send_queue.min(QUANTUM),
        };
        let taken = match stream.opening {
            Opening::Waiting { .. } => 0,
            _ => send.room(most).min(data.len()),
        };
        if taken == 0 {
            send.blocked = true;
            return Err(WriteError::Blocked);
        }
        if self.account.charge(taken as u64).is_err() {
            send.blocked = true;
            self.starved.push(id);
            self.account.wait();
            return Err(WriteError::Blocked);
        }
        send.blocked = false;
        send.queue.push(data.split_to(taken));
        self.stats.bytes_sent += taken as u64;
        self.schedule.enter(id, &mut stream.turn);
        self.assert_invariants();
        Ok(taken)
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
        self.make_ready(id);
        self.assert_invariants();
        Ok(())
    }

    /// Gives up the sending half and drops what is queued. Does nothing when the half is over.
    pub fn reset(&mut self, _now: Instant, id: StreamId, code: StreamCode) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.send.state.is_over() {
            return;
        }
        stream.send.state = stream.send.state.after(SendEvent::Reset(code));
        self.account.release(stream.send.queue.clear() as u64);
        stream.owed.reset = self.closed.is_none();
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
        recv.taken_at = now;
        recv.credit.give_back(len);
        self.account.release(len);
        self.stats.bytes_received += len;
        if recv.state == RecvState::Ended && recv.queue.is_empty() {
            recv.state = recv.state.after(RecvEvent::Emptied);
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
        stream.owed.max_data = false;
        stream.recv.state = stream.recv.state.after(RecvEvent::Stop(code));
        self.account.release(stream.recv.queue.clear() as u64);
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

    /// Lets go of the sending half; one that is neither finished nor over is reset with [`StreamCode::CANCELLED`].
    pub fn release_send(&mut self, now: Instant, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.send.released = true;
        if stream.send.state == SendState::Open {
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

    /// Announces credit that the reader has made room for, when there is enough to be worth a frame.
    fn grant(&mut self, now: Instant, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let recv = &mut stream.recv;
        let worth = |window: u64| (window / 2).max(1);
        if !recv.state.listens()
            || stream.owed.max_data
            || recv.credit.due(recv.window.size()) < worth(recv.window.size())
        {
            return;
        }
        self.watch.sample(now);
        recv.window.fit(
            now,
            recv.credit.returned(),
            self.watch.round_trip(),
            self.account.pressure(),
            &self.config.windows,
        );
        // Of a window that has shrunk, less is due.
        if recv.credit.due(recv.window.size()) >= worth(recv.window.size()) {
            stream.owed.max_data = true;
            self.owe(id);
        }
    }

    /// A stream with the window that memory allows; the peer knows of the smallest.
    pub(super) fn new_stream(&self, opening: Opening, allowed: u64, now: Instant) -> Box<Stream> {
        let windows = &self.config.windows;
        let window = match self.account.pressure() {
            Pressure::Ample => windows.start,
            Pressure::Tight => windows.floor,
        };
        let mut stream = Stream::new(opening, windows.floor, window, allowed, now);
        stream.owed.max_data = window > windows.floor;
        Box::new(stream)
    }

    /// Puts in a new stream, which owes its first frames.
    pub(super) fn enter(&mut self, id: StreamId, stream: Box<Stream>) {
        self.streams.insert(id, stream);
        self.live += 1;
        self.owe(id);
    }

    /// Lets go of both halves of a stream that is over.
    pub(super) fn release_both(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send.released = true;
            stream.recv.released = true;
            self.settle(id);
        }
    }
}
