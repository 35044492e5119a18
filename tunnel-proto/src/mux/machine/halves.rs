//! What happens to the halves of a stream, whoever ends them.

use std::time::Instant;

use super::Mux;
use crate::mux::{
    StreamId,
    half::{RecvEvent, SendEvent},
    stream::{Opening, Stream},
};

impl Mux {
    /// Puts in a new stream, which owes its first frames.
    pub(super) fn enter(&mut self, id: StreamId, stream: Box<Stream>) {
        self.granted += stream.recv.credit.outstanding();
        self.streams.insert(id, stream);
        self.live += 1;
        self.owe(id);
    }

    /// Lets an event happen to the sending half; gives whether it changed anything. A half that is over holds nothing.
    pub(super) fn apply_send(&mut self, id: StreamId, event: SendEvent) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        let send = &mut stream.send;
        let before = send.state;
        send.state = before.after(event);
        if send.state.is_over() && !before.is_over() {
            let dropped = send.queue.clear();
            send.blocked = false;
            self.line.queued -= dropped;
            self.line.take_call(id);
            self.account.release(dropped as u64);
            self.patience.end_half();
        }
        send.state != before
    }

    /// Lets an event happen to the receiving half; gives whether it changed anything. A half that is over holds
    /// nothing.
    pub(super) fn apply_recv(&mut self, id: StreamId, event: RecvEvent) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        let recv = &mut stream.recv;
        let before = recv.state;
        let after = before.after(event);
        recv.state = after;
        if before.listens() && !after.listens() {
            stream.owed.max_data = false;
            if self.closed.is_none() {
                let outstanding = recv.credit.outstanding();
                self.granted -= outstanding;
                if matches!(event, RecvEvent::Stop(_)) {
                    self.late = self.late.saturating_add(outstanding);
                }
            }
        }
        if after.is_over() && !before.is_over() {
            recv.blocked = false;
            self.patience.end_half();
            self.discard_unread(id);
        }
        after != before
    }

    /// Ends the wait for an answer of this end, which will not come, or goes out now.
    pub(super) fn end_waiting(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && let Opening::Waiting { charged } = stream.opening
        {
            stream.opening = Opening::Over;
            self.account.release(charged);
            self.accepts.waiting -= 1;
        }
    }

    /// Drops what nobody will read.
    pub(super) fn discard_unread(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.recv.queue.is_empty()
        {
            self.account.release(stream.recv.queue.clear() as u64);
            self.unread.remove(&(stream.recv.taken_at, id));
        }
    }

    /// Notes that the reader has just taken something, or that the first bytes have come that it has not taken.
    pub(super) fn touch(&mut self, now: Instant, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            self.unread.remove(&(stream.recv.taken_at, id));
            stream.recv.taken_at = now;
            if !stream.recv.queue.is_empty() {
                self.unread.insert((now, id));
            }
        }
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
