//! Memory that is taken back.

use std::{
    mem,
    time::{Duration, Instant},
};

use super::Mux;
use crate::{
    StreamCode,
    mux::{Event, StreamId},
};

/// For how long a reader must have been away before its stream is reset while there is still some room.
const PATIENCE: Duration = Duration::from_secs(1);
/// For how long the link must have taken nothing before what is queued for it is dropped.
const LINK_PATIENCE: Duration = Duration::from_secs(5);

impl Mux {
    /// Gives back memory, or tells writers that there is some again, when the budget asks for it: after the waker that
    /// was registered with [`account`](Self::account) was woken. Without need it does nothing.
    pub fn reclaim(&mut self, now: Instant) {
        let call = self.account.take_call();
        if !call.is_any() || self.closed.is_some() {
            return;
        }
        self.relieve(now);
        if call.is_alone() && self.account.is_high() {
            self.account.pass_on();
        }
        for id in mem::take(&mut self.starved) {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            stream.send.starved = false;
            if mem::take(&mut stream.send.blocked) {
                self.events.push_back(Event::Writable { id });
            }
        }
        self.assert_invariants();
    }

    /// Gives back what can be given back while memory is short, and notes when there may be more.
    pub(super) fn relieve(&mut self, now: Instant) {
        self.relief = None;
        while self.account.is_high()
            && let Some(&(taken_at, id)) = self.unread.first()
            && now.saturating_duration_since(taken_at) >= PATIENCE
        {
            self.take_back(now, id);
        }
        if self.account.is_high() && now.saturating_duration_since(self.link_ready) >= LINK_PATIENCE {
            self.drop_queued(now);
        }
        self.watch_memory(now);
    }

    /// Notes when there may be something to give back, if memory is short.
    pub(super) fn watch_memory(&mut self, now: Instant) {
        if self.relief.is_some() || self.closed.is_some() || !self.account.is_high() || self.account.held() == 0 {
            return;
        }
        let reader = self.unread.first().map(|(taken_at, _)| *taken_at + PATIENCE);
        let at = reader.map_or(self.link_ready + LINK_PATIENCE, |at| {
            at.min(self.link_ready + LINK_PATIENCE)
        });
        // What could be done now has been done.
        self.relief = Some(at.max(now + PATIENCE / 4));
    }

    /// Makes room for bytes of a stream, at the cost of the streams whose readers have been away longest; of this one
    /// if there is no other. Gives whether it was charged for them.
    pub(super) fn make_room(&mut self, now: Instant, id: StreamId, bytes: u64) -> bool {
        while self.account.charge(bytes).is_err() {
            let victim = self.unread.first().map_or(id, |(_, victim)| *victim);
            self.take_back(now, victim);
            if victim == id {
                return false;
            }
        }
        true
    }

    /// Stops a stream for want of memory.
    fn take_back(&mut self, now: Instant, id: StreamId) {
        self.stats.streams_reclaimed += 1;
        self.stop(now, id, StreamCode::MEMORY);
        self.events.push_back(Event::RecvEnded { id });
    }

    /// Resets the streams that have bytes for a link that takes none.
    fn drop_queued(&mut self, now: Instant) {
        let queued = self.streams.iter().filter(|(_, stream)| !stream.send.queue.is_empty());
        let mut queued: Vec<_> = queued.map(|(id, _)| *id).collect();
        queued.sort_unstable();
        for id in queued {
            if !self.account.is_high() {
                break;
            }
            self.stats.streams_reclaimed += 1;
            let was_blocked = self.streams.get(&id).is_some_and(|stream| stream.send.blocked);
            self.reset(now, id, StreamCode::MEMORY);
            if was_blocked {
                self.events.push_back(Event::Writable { id });
            }
        }
    }
}
