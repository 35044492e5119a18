//! How long to wait before a server is dialled again.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{ConnectionError, DialError};

/// How long to wait before a server is dialled again.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BackoffConfig {
    /// The longest wait before the first retry; it doubles with every failure. Default 200 ms: most outages are a
    /// restart or a lost packet.
    pub base: Duration,
    /// The longest wait between retries in the first [`eager_for`](Self::eager_for) of an outage. Default 1 s, so that
    /// a server that returns soon has its agents back within a second.
    pub eager_cap: Duration,
    /// How long an outage counts as a short one. Default 10 s: about twenty attempts for each agent.
    pub eager_for: Duration,
    /// The longest wait between retries of a longer outage. Default 30 s: a thousand agents then make about
    /// seventy attempts a second.
    pub cap: Duration,
    /// How long a connection must have lasted for its loss to count as the beginning of an outage, not as one more
    /// failure. Default 10 s.
    pub healthy_after: Duration,
    /// The shortest wait after a failure that somebody has to change something about, such as a credential that is
    /// not accepted. Default 10 s: tokens and policies do change.
    pub slow_floor: Duration,
    /// The longest wait before another attempt at a connection that a server has rejected beside others which it keeps;
    /// the shortest is half of it. Default 5 min: a limit on connections changes rarely.
    pub surplus_cap: Duration,
    /// The longest time for which a server can keep the agent away with its "not before". Default 5 min.
    pub max_not_before: Duration,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(200),
            eager_cap: Duration::from_secs(1),
            eager_for: Duration::from_secs(10),
            cap: Duration::from_secs(30),
            healthy_after: Duration::from_secs(10),
            slow_floor: Duration::from_secs(10),
            surplus_cap: Duration::from_secs(300),
            max_not_before: Duration::from_secs(300),
        }
    }
}

/// The shortest wait after a failure, so that one which costs no time cannot become a busy loop; and the longest
/// wait after a healthy connection was lost.
const LEAST: Duration = Duration::from_millis(50);

/// What a back-off must know of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whether dialling again can succeed without somebody changing something first.
    pub is_retryable: bool,
    /// How long the server asked this agent to stay away.
    pub not_before: Option<Duration>,
}

impl Failure {
    /// One that may be over at any time.
    pub const PLAIN: Self = Self {
        is_retryable: true,
        not_before: None,
    };
}

impl From<&DialError> for Failure {
    fn from(error: &DialError) -> Self {
        Self {
            is_retryable: error.is_retryable(),
            not_before: error.not_before(),
        }
    }
}

impl From<&ConnectionError> for Failure {
    fn from(error: &ConnectionError) -> Self {
        Self {
            is_retryable: error.is_retryable(),
            not_before: None,
        }
    }
}

/// Exponential back-off with full jitter: a wait is anything between 50 ms and a ceiling, and the ceiling doubles with
/// every failure. Waits that are spread over their whole range keep agents that lost a server together from coming
/// back together.
///
/// It takes outcomes and gives waits, and has neither a clock nor a source of randomness of its own.
#[derive(Debug)]
pub struct Backoff {
    config: BackoffConfig,
    rng: fastrand::Rng,
    /// The longest that the next wait may be.
    ceiling: Duration,
    /// When the outage began.
    since: Option<Instant>,
}

impl Backoff {
    /// Makes one that has seen no failure.
    #[must_use]
    pub fn new(config: BackoffConfig, rng: fastrand::Rng) -> Self {
        Self {
            ceiling: config.base,
            config,
            rng,
            since: None,
        }
    }

    /// How long to wait after an attempt that failed.
    pub fn failed(&mut self, now: Instant, failure: Failure) -> Duration {
        let outage = now.saturating_duration_since(*self.since.get_or_insert(now));
        let ceiling = self.ceiling;
        let cap = if outage < self.config.eager_for {
            self.config.eager_cap.min(self.config.cap)
        } else {
            self.config.cap
        };
        self.ceiling = ceiling.saturating_mul(2).min(cap).max(ceiling);
        let wait = self.between(LEAST, ceiling);
        self.at_least(failure, wait)
    }

    /// How long to wait after a connection that has `lasted` so long and was lost.
    pub fn lost(&mut self, now: Instant, lasted: Duration, failure: Failure) -> Duration {
        if lasted < self.config.healthy_after {
            return self.failed(now, failure);
        }
        self.ceiling = self.config.base;
        self.since = Some(now);
        let wait = self.between(Duration::ZERO, LEAST);
        self.at_least(failure, wait)
    }

    /// How long to wait after the server has taken no more connections than it keeps.
    pub fn surplus(&mut self, failure: Failure) -> Duration {
        let cap = self.config.surplus_cap;
        let wait = self.between(cap / 2, cap);
        wait.max(self.at_least(failure, Duration::ZERO))
    }

    /// Makes a wait as long as the failure asks for.
    fn at_least(&mut self, failure: Failure, mut wait: Duration) -> Duration {
        if !failure.is_retryable {
            wait = self.between(self.config.slow_floor, self.config.cap);
        }
        if let Some(asked) = failure.not_before {
            let asked = asked.min(self.config.max_not_before);
            // Everybody who was told the same comes back at a time of his own.
            let spread = (asked / 4).max(self.config.base);
            wait = wait.max(asked + self.between(Duration::ZERO, spread));
        }
        wait
    }

    /// Any duration between the two, to the microsecond; `least` if it is the greater.
    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let (least, most) = (micros(least), micros(most));
        Duration::from_micros(self.rng.u64(least..=most.max(least)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOPELESS: Failure = Failure {
        is_retryable: false,
        not_before: None,
    };

    fn backoff(seed: u64) -> Backoff {
        Backoff::new(BackoffConfig::default(), fastrand::Rng::with_seed(seed))
    }

    /// The waits of an outage in which every attempt fails at once, until it has lasted `long`.
    fn outage(backoff: &mut Backoff, long: Duration) -> Vec<(Duration, Duration)> {
        let start = Instant::now();
        let mut now = start;
        let mut waits = Vec::new();
        while now - start < long {
            let wait = backoff.failed(now, Failure::PLAIN);
            waits.push((now - start, wait));
            now += wait;
        }
        waits
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_once_an_outage_is_long() {
        let mut backoff = backoff(0);
        let start = Instant::now();
        let mut ceilings = vec![];
        for now in [0, 1, 2, 3, 4, 11, 12, 13, 14, 15, 16].map(|secs| start + Duration::from_secs(secs)) {
            ceilings.push(backoff.ceiling.as_millis());
            backoff.failed(now, Failure::PLAIN);
        }
        assert_eq!(
            ceilings,
            [200, 400, 800, 1000, 1000, 1000, 2000, 4000, 8000, 16_000, 30_000]
        );
    }

    proptest! {
        #[test]
        fn the_first_retry_is_quick(seed: u64) {
            let wait = backoff(seed).failed(Instant::now(), Failure::PLAIN);
            prop_assert!((LEAST..=Duration::from_millis(200)).contains(&wait), "{wait:?}");
        }

        #[test]
        fn a_short_outage_costs_at_most_a_second_more(seed: u64) {
            for (at, wait) in outage(&mut backoff(seed), Duration::from_secs(10)) {
                prop_assert!(wait >= LEAST && wait <= Duration::from_secs(1), "{wait:?} at {at:?}");
            }
        }

        #[test]
        fn a_long_outage_is_cheap_and_never_given_up(seed: u64) {
            let waits = outage(&mut backoff(seed), Duration::from_secs(3600));
            prop_assert!(waits.iter().all(|(_, wait)| *wait <= Duration::from_secs(30)));
            // An hour of waits of 15 s on average, after the eager beginning.
            prop_assert!((170..=350).contains(&waits.len()), "{}", waits.len());
        }

        #[test]
        fn waits_are_spread_over_their_whole_range(seed: u64) {
            let waits = outage(&mut backoff(seed), Duration::from_secs(7200));
            let late: Vec<_> = waits.iter().skip(40).map(|(_, wait)| wait.as_secs()).collect();
            for tenth in 0..10 {
                let range = tenth * 3..(tenth + 1) * 3;
                prop_assert!(late.iter().any(|wait| range.contains(wait)), "nothing in {range:?}");
            }
        }

        #[test]
        fn only_a_healthy_connection_begins_anew(seed: u64, lasted in 0u64..20_000) {
            let mut backoff = backoff(seed);
            outage(&mut backoff, Duration::from_secs(300));
            let lasted = Duration::from_millis(lasted);
            let now = Instant::now() + Duration::from_secs(300);
            let wait = backoff.lost(now, lasted, Failure::PLAIN);
            if lasted >= Duration::from_secs(10) {
                prop_assert!(wait <= LEAST, "{wait:?}");
                prop_assert_eq!(backoff.ceiling, Duration::from_millis(200));
            } else {
                prop_assert_eq!(backoff.ceiling, Duration::from_secs(30));
            }
        }

        #[test]
        fn a_failure_that_needs_a_change_is_retried_slowly(seed: u64, lasted in 0u64..20) {
            let mut backoff = backoff(seed);
            let slow = Duration::from_secs(10)..=Duration::from_secs(30);
            let wait = backoff.failed(Instant::now(), HOPELESS);
            prop_assert!(slow.contains(&wait), "{wait:?}");
            let wait = backoff.lost(Instant::now(), Duration::from_secs(lasted), HOPELESS);
            prop_assert!(slow.contains(&wait), "{wait:?}");
        }

        #[test]
        fn what_is_too_much_is_tried_rarely(seed: u64, asked in 0u64..100_000) {
            let not_before = Some(Duration::from_secs(asked));
            let wait = backoff(seed).surplus(Failure { not_before, ..Failure::PLAIN });
            prop_assert!(wait >= Duration::from_secs(150.max(asked.min(300))), "{wait:?} for {asked} s");
            prop_assert!(wait <= Duration::from_secs(375), "{wait:?} for {asked} s");
        }

        #[test]
        fn not_before_is_honoured_within_its_bound(seed: u64, asked in 0u64..100_000, is_retryable: bool) {
            let asked = Duration::from_secs(asked);
            let bound = asked.min(Duration::from_secs(300));
            let failure = Failure { is_retryable, not_before: Some(asked) };
            let wait = backoff(seed).failed(Instant::now(), failure);
            prop_assert!(wait >= bound, "{wait:?} for {asked:?}");
            prop_assert!(wait <= (bound * 5 / 4).max(Duration::from_secs(30)), "{wait:?} for {asked:?}");
        }
    }
}
