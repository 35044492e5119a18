//! When a packet arrives, or that it does not. No clock and no packets in here.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::Link;

/// One direction of a link.
#[derive(Debug)]
pub(super) struct Shaper {
    link: Link,
    random: Rng,
    /// When the last packet that was taken has left.
    free: Option<Instant>,
}

impl Shaper {
    /// Which packets are lost is decided by the seed.
    pub(super) fn new(link: Link, seed: u64) -> Self {
        Self {
            link,
            random: Rng::with_seed(seed),
            free: None,
        }
    }

    /// When a packet of so many bytes that comes now arrives at the other end; `None` if it does not.
    pub(super) fn admit(&mut self, now: Instant, len: usize) -> Option<Instant> {
        let from = self.free.map_or(now, |free| free.max(now));
        if from - now > self.link.queue {
            return None;
        }
        let sending = self
            .link
            .rate
            .map_or(Duration::ZERO, |rate| Duration::from_secs_f64(len as f64 / rate));
        let left = from + sending;
        self.free = Some(left);
        // What is lost has been sent, too.
        (self.random.f64() >= self.link.loss).then(|| left + self.link.rtt / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn shaper(link: &str) -> Shaper {
        Shaper::new(link.parse().unwrap(), 1)
    }

    #[test]
    fn a_packet_arrives_half_a_round_trip_later() {
        let now = Instant::now();
        assert_eq!(shaper("rtt=20ms").admit(now, 1500), Some(now + 10 * MS));
    }

    #[test]
    fn packets_leave_one_after_another_at_the_rate() {
        let now = Instant::now();
        // 1,000 bytes take a millisecond.
        let mut shaper = shaper("rtt=20ms,rate=8mbit");
        assert_eq!(shaper.admit(now, 1000), Some(now + 11 * MS));
        assert_eq!(shaper.admit(now, 2000), Some(now + 13 * MS));
        assert_eq!(shaper.admit(now + 10 * MS, 1000), Some(now + 21 * MS));
    }

    #[test]
    fn a_full_queue_drops_at_its_end() {
        let now = Instant::now();
        let mut shaper = shaper("rate=8mbit,queue=5ms");
        let taken = (0..20).filter(|_| shaper.admit(now, 1000).is_some()).count();
        assert_eq!(taken, 6);
        assert!(shaper.admit(now + MS, 1000).is_some());
        assert!(shaper.admit(now + MS, 1000).is_none());
    }

    #[test]
    fn as_many_are_lost_as_are_to_be_and_the_same_with_the_same_seed() {
        let now = Instant::now();
        let lost = |seed| {
            let mut shaper = Shaper::new("loss=1%".parse().unwrap(), seed);
            (0..100_000)
                .filter(|_| shaper.admit(now, 1500).is_none())
                .collect::<Vec<u32>>()
        };
        assert!((800..1200).contains(&lost(1).len()), "{}", lost(1).len());
        assert_eq!(lost(1), lost(1));
        assert_ne!(lost(1), lost(2));
    }
}
