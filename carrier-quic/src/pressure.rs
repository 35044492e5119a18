//! What keeps room in the connection's window when it is smaller than what all streams could hold.
//!
//! A stream whose reader waits for bytes holds none (but what waits for a lost packet); one whose reader has gone
//! holds up to a whole window, and how much of it is not known here: quinn does not tell. But a peer that runs out of
//! the connection's credit says so with DATA_BLOCKED (RFC 9000 §19.12). So nothing is reclaimed on suspicion: only
//! while the peer is blocked, and only from streams whose reader has been away for a while.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{shared::Shared, stream::RecvSlot};

/// How often a connection with many readers is looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// For how many intervals a reader must have been away before its stream may be reclaimed.
const PATIENCE: u64 = 4;

/// The receiving halves of a connection.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    slots: Mutex<HashMap<u64, Weak<RecvSlot>>>,
    /// A clock of [`INTERVAL`]s that costs nothing to read.
    tick: AtomicU64,
    crowded: tokio::sync::Notify,
}

impl Readers {
    /// The time, in ticks.
    pub(crate) fn tick(&self) -> u64 {
        self.tick.load(Ordering::Relaxed)
    }

    pub(crate) fn enter(&self, slot: &Arc<RecvSlot>) {
        self.lock().insert(slot.id(), Arc::downgrade(slot));
        self.crowded.notify_one();
    }

    pub(crate) fn leave(&self, slot: &RecvSlot) {
        self.lock().remove(&slot.id());
    }

    /// Waits until there are at least `count` of them.
    async fn at_least(&self, count: u64) {
        while (self.lock().len() as u64) < count {
            self.crowded.notified().await;
        }
    }

    /// Reclaims `count` streams, those first whose readers have been away longest. Gives the number reclaimed.
    fn reclaim(&self, count: usize) -> usize {
        let now = self.tick();
        let mut stalled: Vec<_> = self
            .lock()
            .values()
            .filter_map(Weak::upgrade)
            .filter_map(|slot| Some((slot.stalled_since()?, slot)))
            .filter(|(since, _)| since + PATIENCE <= now)
            .collect();
        stalled.sort_unstable_by_key(|(since, slot)| (*since, slot.id()));
        let reclaimed = stalled.iter().filter(|(since, slot)| slot.reclaim(*since));
        reclaimed.take(count).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Weak<RecvSlot>>> {
        // Nothing panics while it is held.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps room in the connection's window until the connection ends.
pub(crate) async fn keep_room(shared: Arc<Shared>) {
    let Some(readers) = &shared.readers else {
        return;
    };
    let (budget, _) = shared.config.receive_window();
    let window = u64::from(shared.config.stream_window);
    // Fewer readers than this cannot leave the peer less than the eighth that may go unannounced.
    let crowd = (budget - budget / 8) / window;
    // What has to be free for the peer to hear of it.
    let portion = usize::try_from((budget / 8).div_ceil(window)).unwrap_or(usize::MAX);
    let mut relief = Relief::default();
    loop {
        tokio::select! {
            _ = shared.quic.closed() => return,
            () = readers.at_least(crowd) => {}
        }
        tokio::time::sleep(INTERVAL).await;
        readers.tick.fetch_add(1, Ordering::Relaxed);
        match relief.observe(shared.quic.stats().frame_rx.data_blocked) {
            Step::Rest => {}
            Step::Announce => shared.announce_credit(),
            Step::Reclaim => {
                let reclaimed = readers.reclaim(portion);
                shared.announce_credit();
                if reclaimed > 0 {
                    tracing::warn!(
                        remote = %shared.quic.remote_address(),
                        reclaimed,
                        "stalled streams held all of the connection's receive budget; the longest stalled were stopped"
                    );
                }
            }
        }
    }
}

/// Decides what to do from what the peer says.
#[derive(Debug, Default)]
struct Relief {
    /// How often the peer had said that it was blocked when it was last looked at.
    seen: u64,
    blocked_before: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Rest,
    /// The peer is blocked: perhaps only because credit that has gathered was not announced.
    Announce,
    /// It is blocked although it was announced.
    Reclaim,
}

impl Relief {
    fn observe(&mut self, said: u64) -> Step {
        let blocked = said > self.seen;
        self.seen = said;
        let step = match (blocked, self.blocked_before) {
            (false, _) => Step::Rest,
            (true, false) => Step::Announce,
            (true, true) => Step::Reclaim,
        };
        self.blocked_before = blocked;
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_reclaimed_unless_announcing_credit_was_not_enough() {
        let mut relief = Relief::default();
        let steps: Vec<_> = [0, 1, 1, 2, 3, 4, 4].map(|said| relief.observe(said)).into();
        use Step::{Announce, Reclaim, Rest};
        assert_eq!(steps, [Rest, Announce, Rest, Announce, Reclaim, Reclaim, Rest]);
    }
}
