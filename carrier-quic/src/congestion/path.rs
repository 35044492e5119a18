//! What a path carries, by what it has delivered.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::delivery::Sample;

/// For how many round trips the largest rate counts.
const ROUNDS: u64 = 10;
/// How long the shortest round trip counts for, unless it is seen again.
const ROUND_TRIP_COUNTS: Duration = Duration::from_secs(10);
/// A round trip is seen again if one is longer by no more than this part.
const AGAIN: u32 = 16;
/// While a path is got to know, its rate is not known yet if it has grown by so much in three round trips.
const GROWTH: f64 = 1.25;
const PATIENCE: u8 = 3;
/// The path has a queue if a round trip is longer by this part.
const QUEUED: u32 = 3;

/// The rate and the round trip of a path.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// Round trips so far.
    round: u64,
    /// Rates by round, falling; the first is the largest that counts.
    rates: VecDeque<(u64, f64)>,
    round_trip: Duration,
    seen_at: Instant,
    /// The best rate when it had last grown, and how many rounds ago that was.
    growth: (f64, u8),
}

impl Path {
    /// Of nothing but a first sample.
    pub(super) fn new(now: Instant, sample: Sample) -> Self {
        Self {
            round: 0,
            rates: VecDeque::from([(0, sample.rate)]),
            round_trip: sample.rtt,
            seen_at: now,
            growth: (0.0, 0),
        }
    }

    /// Takes in what was measured. `is_limited` is whether the rate may be less than the path's.
    pub(super) fn learn(&mut self, now: Instant, sample: Sample, is_limited: bool) {
        if sample.begins_round {
            self.round += 1;
        }
        if !is_limited || sample.rate >= self.rate() {
            self.take_rate(sample.rate);
        }
        // A queue shows that there is enough to send, whoever says so.
        let is_full = sample.rtt > self.round_trip + self.round_trip / QUEUED;
        if sample.begins_round && (is_full || !is_limited) && !self.is_known() {
            let (best, since) = self.growth;
            let rate = self.rate();
            self.growth = if rate >= best * GROWTH {
                (rate, 0)
            } else {
                (best, since + 1)
            };
        }
        if sample.rtt <= self.round_trip + self.round_trip / AGAIN {
            self.round_trip = self.round_trip.min(sample.rtt);
            self.seen_at = now;
        }
    }

    fn take_rate(&mut self, rate: f64) {
        while self.rates.back().is_some_and(|(_, other)| *other <= rate) {
            self.rates.pop_back();
        }
        // Of one round only the largest counts.
        if self.rates.back().is_none_or(|(round, _)| *round < self.round) {
            self.rates.push_back((self.round, rate));
        }
        while self.rates.len() > 1 && self.rates.front().is_some_and(|(round, _)| round + ROUNDS < self.round) {
            self.rates.pop_front();
        }
    }

    /// Round trips so far.
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// What it delivers, in bytes a second.
    pub(super) fn rate(&self) -> f64 {
        self.rates.front().map_or(0.0, |(_, rate)| *rate)
    }

    /// How long it takes there and back when nothing waits.
    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// Whether all that it delivers has been seen.
    pub(super) fn is_known(&self) -> bool {
        self.growth.1 >= PATIENCE
    }

    /// Takes its rate as it is.
    pub(super) fn settle(&mut self) {
        self.growth.1 = PATIENCE;
    }

    /// Whether the round trip has not been seen for long.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen_at) > ROUND_TRIP_COUNTS
    }

    /// It was measured anew.
    pub(super) fn renew(&mut self, now: Instant, round_trip: Duration) {
        self.round_trip = round_trip;
        self.seen_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(20);

    fn sample(rate: f64) -> Sample {
        Sample {
            rate,
            rtt: RTT,
            is_limited: false,
            begins_round: true,
        }
    }

    #[test]
    fn the_largest_rate_counts_for_ten_rounds() {
        let now = Instant::now();
        let mut path = Path::new(now, sample(1e6));
        path.learn(now, sample(5e6), false);
        for _ in 0..ROUNDS {
            path.learn(now, sample(2e6), false);
            assert_eq!(path.rate(), 5e6);
        }
        path.learn(now, sample(1e6), false);
        assert_eq!(path.rate(), 2e6);
        assert!(path.rates.len() <= 11);
    }

    #[test]
    fn having_little_to_send_is_no_reason_to_take_a_path_for_slow() {
        let now = Instant::now();
        let mut path = Path::new(now, sample(5e6));
        for _ in 0..100 {
            path.learn(now, sample(1e3), true);
        }
        assert_eq!(path.rate(), 5e6);
        assert!(!path.is_known());
        path.learn(now, sample(6e6), true);
        assert_eq!(path.rate(), 6e6);
    }

    #[test]
    fn a_path_is_known_when_it_gets_no_faster() {
        let now = Instant::now();
        let mut path = Path::new(now, sample(1e6));
        for rate in [2e6, 4e6, 8e6, 8e6, 8e6] {
            path.learn(now, sample(rate), false);
            assert!(!path.is_known());
        }
        path.learn(now, sample(8e6), false);
        assert!(path.is_known());
    }

    #[test]
    fn a_round_trip_is_seen_again_unless_it_has_become_longer() {
        let now = Instant::now();
        let mut path = Path::new(now, sample(1e6));
        let later = now + Duration::from_secs(11);
        let mut longer = sample(1e6);
        longer.rtt = RTT * 3 / 2;
        path.learn(later, longer, false);
        assert!(path.is_stale(later));
        path.learn(later, sample(1e6), false);
        assert!(!path.is_stale(later));
        assert_eq!(path.round_trip(), RTT);
    }
}
