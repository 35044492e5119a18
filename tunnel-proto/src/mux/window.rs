//! How large a stream's window should be.

use std::time::{Duration, Instant};

use super::{Windows, budget::Pressure};

/// A stream whose reader took longer for a window has idled or stalled.
const IDLE: Duration = Duration::from_secs(1);

/// The shortest time over which a rate says something: tasks take turns, and within one of theirs bytes are taken as
/// fast as memory gives them.
const SPAN: Duration = Duration::from_millis(10);

/// The window of one stream, fitted to how fast its reader empties it.
///
/// A window of `w` bytes lets through `w` in each round trip. While the reader empties more than half of it within
/// one, the window may be what limits the stream, so it doubles: it ends between two and four times what the path and
/// the reader together carry in a round trip. A larger one would only move the queue from the sender to the path.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    size: u64,
    /// When the bytes that are measured began to be taken, and how many had been taken then.
    since: Instant,
    base: u64,
}

impl Window {
    /// One of this size.
    #[must_use]
    pub fn new(size: u64, now: Instant) -> Self {
        Self {
            size,
            since: now,
            base: 0,
        }
    }

    /// The size that fits.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Measures from here on.
    pub fn restart(&mut self, now: Instant, returned: u64) {
        self.since = now;
        self.base = returned;
    }

    /// Fits the size, when a part of it was taken since this was last called.
    pub fn fit(
        &mut self,
        now: Instant,
        returned: u64,
        round_trip: Option<Duration>,
        pressure: Pressure,
        windows: &Windows,
    ) {
        let elapsed = now.saturating_duration_since(self.since);
        let drained = returned - self.base;
        self.size = if pressure == Pressure::Tight {
            (self.size / 2).max(windows.floor)
        } else if self.size < windows.start {
            windows.start
        } else if elapsed > round_trip.map_or(IDLE, |round_trip| IDLE.max(8 * round_trip)) {
            (self.size / 2).max(windows.start)
        } else if elapsed < SPAN {
            return;
        } else if round_trip.is_some_and(|round_trip| carries_half(drained, elapsed, round_trip, self.size)) {
            (self.size * 2).min(windows.ceiling)
        } else {
            self.size
        };
        self.restart(now, returned);
    }
}

/// Whether, at `drained` bytes in `elapsed`, more than half of a window is taken in a round trip.
fn carries_half(drained: u64, elapsed: Duration, round_trip: Duration, window: u64) -> bool {
    2 * u128::from(drained) * round_trip.as_nanos() > u128::from(window) * elapsed.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: Windows = Windows {
        floor: 1 << 16,
        start: 1 << 18,
        ceiling: 1 << 24,
    };

    /// Where the window ends when the reader takes `rate` bytes a second, if the window lets it.
    fn settled(rate: u64, round_trip: Duration) -> u64 {
        let mut now = Instant::now();
        let mut window = Window::new(WINDOWS.start, now);
        let mut returned = 0;
        for _ in 0..100 {
            let allowed = window.size() as f64 / round_trip.as_secs_f64();
            returned += window.size() / 2;
            now += Duration::from_secs_f64(window.size() as f64 / 2.0 / allowed.min(rate as f64));
            window.fit(now, returned, Some(round_trip), Pressure::Ample, &WINDOWS);
        }
        window.size()
    }

    #[test]
    fn it_settles_between_two_and_four_times_what_a_round_trip_carries() {
        for (rate, millis) in [
            (125_000_000, 60),
            (10_000_000, 50),
            (1_250_000_000, 2),
            (50_000_000, 100),
        ] {
            let carried = rate * millis / 1000;
            let size = settled(rate, Duration::from_millis(millis));
            assert!(
                (2 * carried..=4 * carried).contains(&size) || size == WINDOWS.ceiling,
                "{size} for {carried}"
            );
        }
        assert_eq!(settled(1_000_000, Duration::from_millis(20)), WINDOWS.start);
    }

    #[test]
    fn it_falls_back_when_the_stream_idles_and_when_memory_is_short() {
        let mut now = Instant::now();
        let mut window = Window::new(1 << 22, now);
        let round_trip = Some(Duration::from_millis(10));
        let mut sizes = Vec::new();
        for _ in 0..6 {
            now += Duration::from_secs(5);
            window.fit(now, 0, round_trip, Pressure::Ample, &WINDOWS);
            sizes.push(window.size() >> 18);
        }
        assert_eq!(sizes, [8, 4, 2, 1, 1, 1]);
        for expected in [1 << 17, 1 << 16, 1 << 16] {
            window.fit(now, 0, round_trip, Pressure::Tight, &WINDOWS);
            assert_eq!(window.size(), expected);
        }
        window.fit(now, 0, round_trip, Pressure::Ample, &WINDOWS);
        assert_eq!(window.size(), WINDOWS.start, "back when memory is there again");
    }

    #[test]
    fn what_is_taken_in_a_burst_is_no_rate() {
        let mut now = Instant::now();
        let mut window = Window::new(WINDOWS.start, now);
        let mut returned = 0;
        // 64 MB/s, of which a round trip of a millisecond carries a quarter of the window.
        for _ in 0..100 {
            now += Duration::from_millis(2);
            for _ in 0..4 {
                returned += 32_000;
                now += Duration::from_micros(1);
                let round_trip = Some(Duration::from_millis(1));
                window.fit(now, returned, round_trip, Pressure::Ample, &WINDOWS);
            }
        }
        assert_eq!(window.size(), WINDOWS.start);
    }

    #[test]
    fn it_does_not_grow_before_a_round_trip_was_measured() {
        let now = Instant::now();
        let mut window = Window::new(WINDOWS.start, now);
        window.fit(now + SPAN, 1 << 17, None, Pressure::Ample, &WINDOWS);
        assert_eq!(window.size(), WINDOWS.start);
    }
}
