//! How many connections the open streams call for.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// As many streams are no reason for another connection: a few watches and logs that mostly wait do with one, and a server
/// has the connections of many agents.
const STREAMS_EACH: usize = 8;

/// How long a connection is kept that the open streams no longer call for. Load comes in waves, and a connection costs a
/// handshake.
const LINGER: Duration = Duration::from_secs(60);

/// The streams that are open with one remote, and how many connections they call for: one for each
/// [`STREAMS_EACH`] of them, within limits.
#[derive(Debug)]
pub(crate) struct Demand {
    least: usize,
    most: usize,
    /// Told when the streams call for more connections than before. That they call for fewer wakes nobody: streams come
    /// and go often.
    load: watch::Sender<Load>,
}

#[derive(Debug)]
struct Load {
    streams: usize,
    /// When it was last that the streams began to call for no more than `least` connections, for one more, and so on.
    fell: Box<[Instant]>,
}

/// A stream that counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Demanding(Arc<Demand>);

impl Demand {
    /// At least and at most as many connections.
    pub(super) fn new(least: NonZeroU32, most: NonZeroU32) -> Arc<Self> {
        let size = |number: NonZeroU32| usize::try_from(number.get()).unwrap_or(usize::MAX);
        let (least, most) = (size(least), size(most));
        let load = Load {
            streams: 0,
            fell: vec![Instant::now(); most.saturating_sub(least)].into(),
        };
        Arc::new(Self {
            least,
            most,
            load: watch::Sender::new(load),
        })
    }

    /// How many connections there are always to be.
    pub(super) fn least(&self) -> usize {
        self.least
    }

    /// How many connections there may be.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Counts a stream, unless the number of connections never changes.
    pub(crate) fn count(self: &Arc<Self>) -> Option<Demanding> {
        (self.most > self.least).then(|| {
            self.load.send_if_modified(|load| {
                let before = self.called_for(load.streams);
                load.streams += 1;
                self.called_for(load.streams) > before
            });
            Demanding(Arc::clone(self))
        })
    }

    /// Waits until the streams call for more than this number of connections; cancel safe.
    pub(crate) async fn exceeds(&self, connections: usize) {
        let mut load = self.load.subscribe();
        let exceeds = |load: &Load| self.called_for(load.streams) > connections;
        // The sender is here, so it cannot be gone.
        let _ = load.wait_for(exceeds).await;
    }

    /// Waits until the streams have called for no more than this number of connections, at least `least`, for a minute,
    /// and notices it within another one; cancel safe.
    pub(crate) async fn has_fallen_to(&self, connections: usize) {
        while let Some(wait) = self.wait_for_fall_to(connections) {
            sleep(wait).await;
        }
    }

    /// How long to wait before it is worth a look whether the streams call for no more than this number any more.
    fn wait_for_fall_to(&self, connections: usize) -> Option<Duration> {
        let load = self.load.borrow();
        if self.called_for(load.streams) > connections {
            return Some(LINGER);
        }
        let since = load.fell.get(connections.saturating_sub(self.least))?;
        LINGER.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
    }

    fn called_for(&self, streams: usize) -> usize {
        streams.div_ceil(STREAMS_EACH).max(self.least).min(self.most)
    }
}

impl Drop for Demanding {
    fn drop(&mut self) {
        let demand = &self.0;
        demand.load.send_if_modified(|load| {
            let before = demand.called_for(load.streams);
            load.streams = load.streams.saturating_sub(1);
            let now = demand.called_for(load.streams);
            if now < before
                && let Some(fell) = load.fell.get_mut(now.saturating_sub(demand.least))
            {
                *fell = Instant::now();
            }
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use tokio::time::advance;

    use super::*;

    fn is_over(wait: impl Future<Output = ()>) -> bool {
        pin!(wait).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn demand(least: u32, most: u32) -> Arc<Demand> {
        let number = |number| NonZeroU32::new(number).unwrap();
        Demand::new(number(least), number(most))
    }

    fn streams(demand: &Arc<Demand>, number: usize) -> Vec<Demanding> {
        (0..number).map(|_| demand.count().unwrap()).collect()
    }

    #[test]
    fn streams_call_for_connections_within_limits() {
        let called_for = |least, most, streams| demand(least, most).called_for(streams);
        for (streams, connections) in [(0, 1), (1, 1), (8, 1), (9, 2), (16, 2), (17, 3), (32, 4), (1000, 4)] {
            assert_eq!(called_for(1, 4, streams), connections, "{streams}");
        }
        assert_eq!((called_for(2, 4, 0), called_for(2, 4, 17)), (2, 3));
    }

    #[test]
    fn streams_are_counted_while_they_are_open() {
        let demand = demand(1, 2);
        let mut streams = streams(&demand, 9);
        assert!(is_over(demand.exceeds(1)));
        streams.pop();
        assert!(!is_over(demand.exceeds(1)));
    }

    #[test]
    fn nothing_is_counted_without_need() {
        assert!(demand(2, 2).count().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fall_has_to_last() {
        let demand = demand(2, 4);
        let mut open = streams(&demand, 30);
        advance(2 * LINGER).await;
        assert!(!is_over(demand.has_fallen_to(2)) && !is_over(demand.has_fallen_to(3)));
        open.truncate(20);
        advance(LINGER / 2).await;
        open.truncate(3);
        advance(LINGER / 2).await;
        assert!(is_over(demand.has_fallen_to(3)) && !is_over(demand.has_fallen_to(2)));
        // A short rise counts, however low the load is at any later moment.
        drop(streams(&demand, 14));
        advance(LINGER / 2).await;
        assert!(is_over(demand.has_fallen_to(3)) && !is_over(demand.has_fallen_to(2)));
        advance(LINGER / 2).await;
        assert!(is_over(demand.has_fallen_to(2)));
    }

    #[test]
    fn only_a_rise_wakes() {
        let demand = demand(1, 4);
        let waiting = demand.load.subscribe();
        let mut open = streams(&demand, 8);
        for _ in 0..10 {
            open.pop();
            open.extend(demand.count());
        }
        assert!(!waiting.has_changed().unwrap());
        open.extend(demand.count());
        assert!(waiting.has_changed().unwrap());
    }
}
