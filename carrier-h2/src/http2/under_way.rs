//! How many bytes may be on their way to this end, over all streams.
//!
//! HTTP/2 returns a connection's credit only with that of a stream, so bytes that nobody reads take up the connection's
//! window. Therefore it is always larger by those: what is left of it to the peer does not depend on readers. What is
//! left is fitted to the path, because bytes beyond what the path carries in a round trip stand in the buffers of this
//! end's system, and whatever is sent next, however urgent, waits behind them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tunnel_core::proto::mux::{Pressure, Watch, Window, Windows};

use super::pulse::Pulse;

/// Bytes of all streams of a connection. One task counts them.
#[derive(Debug, Default)]
pub(crate) struct Count {
    received: AtomicU64,
    returned: AtomicU64,
}

/// Bytes of one stream that have come and whose credit was not returned.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: u64,
    all: Arc<Count>,
}

impl Held {
    pub(crate) fn new(all: &Arc<Count>) -> Self {
        Self {
            bytes: 0,
            all: Arc::clone(all),
        }
    }

    /// Bytes have come.
    pub(crate) fn receive(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.all.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Credit for bytes was returned.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        let bytes = (bytes as u64).min(self.bytes);
        self.bytes -= bytes;
        self.all.returned.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> usize {
        // It has come in pieces that are in memory.
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }
}

/// HTTP/2 forgets the stream together with it, which returns the credit of what is left.
impl Drop for Held {
    fn drop(&mut self) {
        self.all.returned.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// The window of a connection.
#[derive(Debug)]
pub(crate) struct UnderWay {
    count: Arc<Count>,
    windows: Windows,
    most: u32,
    window: Window,
    /// How much had come when it was last fitted.
    fitted: u64,
    told: u32,
}

impl UnderWay {
    /// One that begins with `told`, and never exceeds `most`.
    pub(crate) fn new(windows: Windows, told: u32, most: u32, now: Instant) -> Self {
        Self {
            count: Arc::default(),
            windows,
            most,
            window: Window::new(windows.start, now),
            fitted: 0,
            told,
        }
    }

    pub(crate) fn count(&self) -> &Arc<Count> {
        &self.count
    }

    /// Fits the window; gives what the connection's is to be, unless it is that already.
    pub(crate) fn fit(&mut self, now: Instant, pulse: &mut Pulse) -> Option<u32> {
        let received = self.count.received.load(Ordering::Relaxed);
        let come = received - self.fitted;
        let size = self.window.size();
        if pulse.is_quieting() {
            if come >= size - size / Watch::LITTLE {
                pulse.grant(now);
                self.fitted = received;
                self.window.restart(now, received);
            }
        } else if come >= size / 4 {
            pulse.grant(now);
            self.fitted = received;
            let shortest = pulse.shortest_round_trip();
            // It takes no memory.
            self.window.fit(now, received, shortest, Pressure::Ample, &self.windows);
        }
        // The peer is told of nothing new until little is on its way.
        let part = if pulse.is_quieting() { Watch::LITTLE } else { 1 };
        let left = self.window.size() / part;
        let held = received - self.count.returned.load(Ordering::Relaxed);
        let wanted = u32::try_from(held + left).unwrap_or(u32::MAX).min(self.most);
        (wanted != self.told).then(|| {
            self.told = wanted;
            wanted
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tunnel_core::Keepalive;

    use super::*;

    const START: usize = 512 * 1024;
    const TOLD: u32 = 512 * 1024;

    struct World {
        now: Instant,
        pulse: Pulse,
        under_way: UnderWay,
    }

    impl World {
        fn new(most: u32) -> Self {
            let now = Instant::now();
            let windows = Windows {
                floor: START as u64,
                start: START as u64,
                ceiling: 64 << 20,
            };
            Self {
                now,
                pulse: Pulse::new(Keepalive::default(), None, now),
                under_way: UnderWay::new(windows, TOLD, most, now),
            }
        }

        fn held(&self) -> Held {
            Held::new(self.under_way.count())
        }

        fn fit(&mut self) -> Option<usize> {
            let bytes = self.under_way.fit(self.now, &mut self.pulse)?;
            usize::try_from(bytes).ok()
        }
    }

    #[test]
    fn what_nobody_reads_takes_nothing_from_the_others() {
        let mut world = World::new(u32::MAX);
        assert_eq!(world.fit(), None);
        let mut stalled = world.held();
        let mut other = world.held();
        stalled.receive(300_000);
        other.receive(20_000);
        assert_eq!(world.fit(), Some(START + 320_000));
        other.give_back(20_000);
        assert_eq!(world.fit(), Some(START + 300_000));
        assert_eq!(world.fit(), None, "the same");
        stalled.give_back(100_000);
        drop(stalled);
        assert_eq!(world.fit(), Some(START));
        other.receive(7);
        drop(other);
        assert_eq!(world.fit(), None, "a stream that is gone holds nothing");
    }

    #[test]
    fn it_never_exceeds_what_is_set() {
        let mut world = World::new(600_000);
        let mut stalled = world.held();
        stalled.receive(300_000);
        assert_eq!(world.fit(), Some(600_000));
    }

    #[test]
    fn now_and_then_it_lets_the_path_run_empty() {
        let mut world = World::new(u32::MAX);
        let mut bulk = world.held();
        let mut come = |world: &mut World, bytes| {
            bulk.receive(bytes);
            bulk.give_back(bytes);
            world.fit()
        };
        assert_eq!(come(&mut world, START / 4), None);
        world.now += Duration::from_secs(30);
        assert_eq!(come(&mut world, START / 4), Some(START / 8), "nothing new for the peer");
        assert_eq!(come(&mut world, START / 2), None);
        assert_eq!(come(&mut world, START / 2), Some(START));
        assert_eq!(come(&mut world, START / 4), None, "not so soon again");
    }
}
