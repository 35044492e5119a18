//! Memory that is taken back.

use std::time::{Duration, Instant};

use super::Mux;
use crate::{
    StreamCode,
    mux::{Event, StreamId},
};

/// For how long a reader must have been away before its stream is reset while there is still some room.
const PATIENCE: Duration = Duration::from_secs(1);

impl Mux {
    /// Gives back memory, or tells writers that there is some again, when the budget asks for it: after the waker that
    /// was registered with [`account`](Self::account) was woken. Without need it does nothing.
    pub fn reclaim(&mut self, now: Instant) {
        if !self.account.take_call() {
            return;
        }
        if self.account.is_high() {
            for id in self.stalled(now, PATIENCE) {
                if !self.account.is_high() {
                    break;
                }
                self.take_back(now, id);
            }
        }
        for id in std::mem::take(&mut self.starved) {
            if let Some(stream) = self.streams.get_mut(&id)
                && std::mem::take(&mut stream.send.blocked)
            {
                self.events.push_back(Event::Writable { id });
            }
        }
        self.assert_invariants();
    }

    /// Makes room for bytes of a stream, at the cost of the streams whose readers have been away longest; of this one
    /// if there is no other. Gives whether it was charged for them.
    pub(super) fn make_room(&mut self, now: Instant, id: StreamId, bytes: u64) -> bool {
        if self.account.charge(bytes).is_ok() {
            return true;
        }
        for stalled in self.stalled(now, Duration::ZERO) {
            if stalled == id {
                break;
            }
            self.take_back(now, stalled);
            if self.account.charge(bytes).is_ok() {
                return true;
            }
        }
        self.take_back(now, id);
        false
    }

    /// Streams with unread bytes whose readers have been away for so long, the longest first.
    fn stalled(&self, now: Instant, patience: Duration) -> Vec<StreamId> {
        let mut stalled: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, stream)| !stream.recv.queue.is_empty())
            .map(|(id, stream)| (stream.recv.taken_at, *id))
            .filter(|(taken_at, _)| now.saturating_duration_since(*taken_at) >= patience)
            .collect();
        stalled.sort_unstable();
        stalled.into_iter().map(|(_, id)| id).collect()
    }

    /// Stops a stream for want of memory.
    fn take_back(&mut self, now: Instant, id: StreamId) {
        self.stats.streams_reclaimed += 1;
        self.stop(now, id, StreamCode::MEMORY);
        self.events.push_back(Event::RecvEnded { id });
    }
}
