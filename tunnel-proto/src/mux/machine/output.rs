//! What goes out.

use std::time::Instant;

use bytes::BytesMut;

use super::{Mux, commands::OPEN_COST};
use crate::{
    CloseCode, Drain, Text, VarInt,
    mux::{
        CloseReason, Event, Frame, Hello, Message, StreamId,
        frame::{MAX_PAYLOAD, data_header},
        half::{RecvState, SendEvent, SendState},
        schedule::Next,
        stream::Stream,
    },
};

/// How much goes into one message, or half as much more or less: what a stream sends in its turn is not split, because its
/// reader would be woken twice, and write twice.
const FULL: usize = MAX_PAYLOAD;
/// How many bytes of other frames go into one message.
const MAX_CONTROL: usize = 16 * 1024;
/// How many DATA frames go into one message: with their headers it stays below what a message may have.
const MAX_FRAMES: usize = 512;

impl Mux {
    /// The next message for the link: what cannot wait first, then the bytes of the streams in turn. To be called only
    /// when the link has room, because what it gives can no longer be overtaken.
    pub fn poll_message(&mut self, now: Instant) -> Option<Message> {
        if self.closed.is_some() {
            return self.farewell.take().map(Message::from);
        }
        self.link_ready = now;
        let mut message = Message::default();
        let mut out = std::mem::take(&mut self.scratch);
        self.put_control(now, &mut out);
        while out.len() < MAX_CONTROL
            && let Some(id) = self.owing.pop_front()
        {
            self.put_owed(id, &mut out);
        }
        // Data must not overtake the frame that opens its stream, and DRAIN none that was opened before it.
        if self.owing.is_empty() {
            self.put_drain(&mut out);
            self.put_data(&mut message, &mut out);
        }
        message.push(out.split().freeze());
        self.scratch = out;
        self.call();
        if message.is_empty() {
            self.call_all();
        }
        if message.is_empty() && self.is_drained() {
            self.end(CloseReason::Local {
                code: CloseCode::DRAINED,
                text: Text::default(),
            });
            return self.farewell.take().map(Message::from);
        }
        self.assert_invariants();
        (!message.is_empty()).then_some(message)
    }

    /// Whether [`poll_message`](Self::poll_message) may give a message. When that has just given none, it is false.
    #[must_use]
    pub fn wants_send(&self) -> bool {
        if self.closed.is_some() {
            return self.farewell.is_some();
        }
        self.hello_owed
            || !self.owing.is_empty()
            || !self.pings.is_empty()
            || self.peer.is_some() && self.watch.wants_ping()
            || self.drain.owed.is_some()
            || self.max_data_due()
            || self.max_streams_due()
            || self.schedule.head().is_some_and(|id| self.may_send(id))
            || self.line.is_stuck()
            || self.is_drained()
    }

    /// Whether the credit of the connection lets a stream have its turn. A clean end takes none.
    fn may_send(&self, id: StreamId) -> bool {
        let has_bytes = |stream: &Stream| !stream.send.queue.is_empty();
        self.send_credit.available() > 0 || !self.streams.get(&id).is_some_and(|stream| has_bytes(stream))
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.closed {
            Some(_) => None,
            None => self.watch.next_look().into_iter().chain(self.relief).min(),
        }
    }

    /// Whether nothing is left to be done after a drain.
    fn is_drained(&self) -> bool {
        self.drain.sent && self.drain.received && self.live == 0 && self.owing.is_empty()
    }

    /// Frames of the connection.
    fn put_control(&mut self, now: Instant, out: &mut BytesMut) {
        if std::mem::take(&mut self.hello_owed) {
            let hello = Hello::new(
                self.config.max_streams.into(),
                self.config.windows.floor,
                self.config.connection_windows().start,
            );
            Frame::Hello(hello).encode(out);
        }
        for ping in self.pings.drain(..) {
            Frame::Pong(ping).encode(out);
        }
        if self.max_data_due() || !self.owing.is_empty() && self.max_data_fits() {
            let offset = VarInt::saturating_from_u64(self.grant_connection(now));
            Frame::MaxData { offset }.encode(out);
            self.take_riders(now);
        }
        // Not before the peer's HELLO: until then it is not known to listen.
        if self.peer.is_some()
            && let Some(ping) = self.watch.take_ping(now)
        {
            Frame::Ping(ping).encode(out);
        }
        if self.max_streams_due() {
            self.accepts.granted = u64::from(self.config.max_streams) + self.accepts.gone;
            let count = VarInt::saturating_from_u64(self.accepts.granted);
            Frame::MaxStreams { count }.encode(out);
        }
    }

    fn put_drain(&mut self, out: &mut BytesMut) {
        if let Some(text) = self.drain.owed.take() {
            self.drain.sent = true;
            Frame::Drain(Drain { text }).encode(out);
        }
    }

    /// Frames about one stream.
    fn put_owed(&mut self, id: StreamId, out: &mut BytesMut) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if let Some(preface) = stream.preface.take() {
            out.extend_from_slice(&preface);
            if id.opener() == self.side {
                self.opens.unsent -= preface.len() as u64 + OPEN_COST;
                if std::mem::take(&mut self.opens.blocked) {
                    self.events.push_back(Event::Available);
                }
            }
        }
        let owed = std::mem::take(&mut stream.owed);
        if owed.max_data {
            self.granted += stream.recv.credit.due(stream.recv.window.size());
            let offset = stream.recv.credit.announce(stream.recv.window.size());
            let offset = VarInt::saturating_from_u64(offset);
            Frame::MaxStreamData { id, offset }.encode(out);
        }
        if owed.reset
            && let SendState::Reset(code) = stream.send.state
        {
            Frame::Reset { id, code }.encode(out);
        }
        if owed.stop
            && let RecvState::Stopped(code) = stream.recv.state
        {
            Frame::Stop { id, code }.encode(out);
        }
        self.settle(id);
    }

    /// Bytes of the streams in turn, until the message is full.
    fn put_data(&mut self, message: &mut Message, out: &mut BytesMut) {
        let (mut room, mut frames) = (FULL.saturating_sub(out.len()), 0);
        while room > 0
            && frames < MAX_FRAMES
            && let Some(id) = self.schedule.head()
        {
            let Some(stream) = self.streams.get_mut(&id) else {
                self.schedule.drop_head();
                continue;
            };
            let ready = stream.is_ready();
            let most = match self.schedule.decide(id, &mut stream.turn, ready, FULL) {
                Next::Send(most) => most,
                Next::Later => continue,
            };
            let send = &mut stream.send;
            let credit = send.credit.available().min(self.send_credit.available());
            let credit = usize::try_from(credit).unwrap_or(usize::MAX);
            let len = send.queue.len().min(most).min(credit);
            if len > room && room < FULL / 2 {
                return;
            }
            if len == 0 && !send.queue.is_empty() {
                // The peer's window of the whole connection is used up.
                return;
            }
            let fin = send.state == SendState::Finishing && len == send.queue.len();
            data_header(id, len, fin, out);
            message.push(out.split().freeze());
            let mut left = len;
            while left > 0
                && let Some(chunk) = send.queue.pop(left)
            {
                left -= chunk.len();
                message.push(chunk);
            }
            send.credit.consume(len as u64);
            self.send_credit.consume(len as u64);
            self.line.queued -= len;
            self.account.release(len as u64);
            self.schedule.sent(&mut stream.turn, len);
            room = room.saturating_sub(len);
            frames += 1;
            if fin {
                self.apply_send(id, SendEvent::FinSent);
                self.settle(id);
            } else {
                self.line_up(id);
            }
        }
    }
}
