//! How large the windows of a connection's streams are.
//!
//! HTTP/2 can give one stream more than it has read only by giving it to all (RFC 9113 §6.9.2). That fits: how much is
//! on its way in a round trip is a fact about the path, which all streams share. So the window of all is the largest
//! that one of them, lately, has had a use for.

use std::time::{Duration, Instant};

use tunnel_core::proto::mux::{Pressure, Window, Windows};

/// For how long a stream's use counts, and how often the window is looked at while it is larger than it was at first.
const REVIEW: Duration = Duration::from_secs(2);
/// The largest window of HTTP/2 (RFC 9113 §6.9.1).
const MOST: u64 = (1 << 31) - 1;

/// The window of a connection's streams.
#[derive(Debug)]
pub(crate) struct StreamWindow {
    windows: Windows,
    /// What the peer was told.
    told: u64,
    wanted: u64,
    /// The largest use since the last review.
    used: u64,
    review: Instant,
}

/// What one stream has a use for.
#[derive(Debug)]
pub(crate) struct Use {
    window: Window,
    returned: u64,
    fitted: u64,
}

impl Use {
    pub(crate) fn new(windows: &StreamWindow, now: Instant) -> Self {
        Self {
            window: Window::new(windows.windows.start, now),
            returned: 0,
            fitted: 0,
        }
    }
}

impl StreamWindow {
    pub(crate) fn new(windows: Windows, now: Instant) -> Self {
        let start = windows.start.min(MOST);
        Self {
            windows,
            told: start,
            wanted: start,
            used: 0,
            review: now + REVIEW,
        }
    }

    /// What the peer was told.
    pub(crate) fn size(&self) -> usize {
        usize::try_from(self.told).unwrap_or(usize::MAX)
    }

    /// A reader has taken so many bytes of a stream; `turn` is how soon readers make room for more.
    pub(crate) fn took(
        &mut self,
        stream: &mut Use,
        bytes: usize,
        now: Instant,
        turn: Option<Duration>,
        pressure: Pressure,
    ) {
        stream.returned += bytes as u64;
        if stream.returned - stream.fitted < stream.window.size() / 2 {
            return;
        }
        stream.fitted = stream.returned;
        stream.window.fit(now, stream.returned, turn, pressure, &self.windows);
        let size = stream.window.size().min(MOST);
        self.used = self.used.max(size);
        if pressure == Pressure::Ample {
            self.wanted = self.wanted.max(size);
        } else {
            self.wanted = self.wanted.min(size);
        }
    }

    /// Looks at the clock: the window falls back when nobody has had a use for it, and to the floor when memory is short.
    pub(crate) fn look(&mut self, now: Instant, pressure: Pressure) {
        if now < self.review {
            return;
        }
        self.review = now + REVIEW;
        let rest = match pressure {
            Pressure::Ample => self.windows.start.max(self.used),
            Pressure::Tight => self.windows.floor,
        };
        let rest = rest.min(MOST);
        self.wanted = if self.wanted > rest {
            (self.wanted / 2).max(rest)
        } else {
            rest
        };
        self.used = 0;
    }

    /// What to tell the peer, if it is not what it was told.
    pub(crate) fn change(&self) -> Option<u32> {
        (self.wanted != self.told).then(|| u32::try_from(self.wanted).unwrap_or(u32::MAX))
    }

    /// The peer was told what is wanted.
    pub(crate) fn changed(&mut self) {
        self.told = self.wanted;
    }

    /// When to look again, while it is not what it was at first.
    pub(crate) fn next_look(&self, pressure: Pressure) -> Option<Instant> {
        let rests = self.told == self.windows.start.min(MOST) && pressure == Pressure::Ample;
        (!rests && self.windows.floor < self.windows.ceiling).then_some(self.review)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows() -> Windows {
        Windows::default()
    }

    #[test]
    fn it_grows_with_the_path_and_falls_back() {
        let mut now = Instant::now();
        let mut all = StreamWindow::new(windows(), now);
        let mut stream = Use::new(&all, now);
        let round_trip = Some(Duration::from_millis(100));
        // One stream takes 40 MB/s: 4 MB in a round trip.
        for _ in 0..400 {
            now += Duration::from_millis(5);
            all.took(&mut stream, 200_000, now, round_trip, Pressure::Ample);
            all.changed();
        }
        assert!((8 << 20..=16 << 20).contains(&all.told), "{}", all.told);
        for _ in 0..10 {
            now += REVIEW;
            all.look(now, Pressure::Ample);
            all.changed();
        }
        assert_eq!(all.told, windows().start);
        assert_eq!(all.next_look(Pressure::Ample), None);
    }

    #[test]
    fn it_shrinks_to_the_floor_when_memory_is_short() {
        let mut now = Instant::now();
        let mut all = StreamWindow::new(windows(), now);
        for _ in 0..3 {
            assert!(all.next_look(Pressure::Tight).is_some());
            now += REVIEW;
            all.look(now, Pressure::Tight);
            all.changed();
        }
        assert_eq!(all.told, windows().floor);
        now += REVIEW;
        all.look(now, Pressure::Ample);
        assert_eq!(all.change(), Some(256 * 1024));
    }

    #[test]
    fn a_fixed_window_stays() {
        let mut now = Instant::now();
        let mut all = StreamWindow::new(Windows::fixed(65_536), now);
        let mut stream = Use::new(&all, now);
        for _ in 0..100 {
            now += Duration::from_millis(1);
            all.took(
                &mut stream,
                65_536,
                now,
                Some(Duration::from_millis(50)),
                Pressure::Ample,
            );
            all.look(now, Pressure::Tight);
            assert_eq!(all.change(), None);
        }
    }
}
