//! Whether the peer is alive, and how far away it is (`docs/wire.md` §9.7).

use std::time::{Duration, Instant};

use crate::Keepalive;

/// How often the round trip is measured while bytes flow: windows grow with it, and bulk makes it several times as long as it
/// was before.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// For how long, to twice as long, the shortest round trip is remembered.
const MEMORY: Duration = Duration::from_secs(30);
/// A reader takes this long for a turn, however short the path: between two processes the delay is that of their
/// schedulers.
const SHORTEST_TURN: Duration = Duration::from_millis(1);

/// Watches the peer: everything that comes from it is a sign of life, and silence is probed.
#[derive(Debug)]
pub struct Watch {
    keepalive: Keepalive,
    heard: Instant,
    /// Whether the present silence has been probed.
    probed: bool,
    wanted: bool,
    /// The token of the last PING, and when it was sent unless it was answered.
    token: u64,
    sent: Option<Instant>,
    sampled: Option<Instant>,
    round_trip: Option<Duration>,
    /// The shortest round trip of this span of [`MEMORY`] and of the one before, and when this one began.
    shortest: [Option<Duration>; 2],
    span: Instant,
    /// When the round trip was last measured with little on its way to this end.
    quiet: Instant,
    /// Credit is held back until little is.
    quieting: bool,
}

/// What a moment brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to worry about.
    Alive,
    /// The peer has been silent for too long.
    Dead,
}

impl Watch {
    /// One that begins now.
    #[must_use]
    pub fn new(keepalive: Keepalive, now: Instant) -> Self {
        Self {
            keepalive,
            heard: now,
            probed: false,
            wanted: false,
            token: 0,
            sent: None,
            sampled: None,
            round_trip: None,
            shortest: [None; 2],
            span: now,
            quiet: now,
            quieting: false,
        }
    }

    /// How long the peer may be silent.
    #[must_use]
    pub fn bound(&self) -> Duration {
        self.keepalive.bound()
    }

    /// The smoothed round-trip time.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// The shortest round trip of late: how long the path is, without the queues that bulk builds in it.
    #[must_use]
    pub fn shortest_round_trip(&self) -> Option<Duration> {
        let [this, before] = self.shortest;
        this.into_iter().chain(before).min()
    }

    /// How soon a stream's reader makes room for more, which the window of a stream is fitted to. It is not the smoothed round
    /// trip: a window that grows with the queue it builds would have no end.
    #[must_use]
    pub fn shortest_turn(&self) -> Option<Duration> {
        self.shortest_round_trip()
            .map(|round_trip| round_trip.max(SHORTEST_TURN))
    }

    /// Something came.
    pub fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.probed = false;
    }

    /// Looks at the clock.
    pub fn look(&mut self, now: Instant) -> Verdict {
        let silence = now.saturating_duration_since(self.heard);
        if silence >= self.bound() {
            return Verdict::Dead;
        }
        if silence >= self.keepalive.interval && !self.probed {
            self.probed = true;
            self.wanted = true;
        }
        Verdict::Alive
    }

    /// When to look again.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        let wait = if self.probed {
            self.bound()
        } else {
            self.keepalive.interval
        };
        self.heard.checked_add(wait)
    }

    /// Measures the round trip again, unless it was measured a moment ago.
    pub fn sample(&mut self, now: Instant) {
        let old = self
            .sampled
            .is_none_or(|at| now.saturating_duration_since(at) >= SAMPLE_INTERVAL);
        if old && self.sent.is_none() {
            self.sampled = Some(now);
            self.wanted = true;
        }
    }

    /// The share of a window that counts as little.
    pub const LITTLE: u64 = 8;

    /// Whether credit of the connection is to be held back until no more than the [`LITTLE`](Self::LITTLE)th part of the
    /// window is left to the peer: the shortest round trip may soon be forgotten, while all that were measured since hold
    /// the queue that bulk builds. A window fitted to those would build a longer one, without end.
    #[must_use]
    pub fn is_quieting(&self) -> bool {
        self.quieting
    }

    /// Credit of the connection is due, and granted now. Measures the round trip; a measurement that is under way is given
    /// up if credit was held back for this one, as it waited behind bulk.
    pub fn grant(&mut self, now: Instant) {
        if self.quieting {
            (self.quiet, self.sampled, self.sent) = (now, Some(now), None);
            self.wanted = true;
        } else {
            self.sample(now);
        }
        self.quieting = now.saturating_duration_since(self.quiet) >= MEMORY;
    }

    /// Whether a PING should go out.
    #[must_use]
    pub fn wants_ping(&self) -> bool {
        self.wanted
    }

    /// The bytes of a PING that goes out now, if one is wanted.
    pub fn take_ping(&mut self, now: Instant) -> Option<[u8; 8]> {
        if !std::mem::take(&mut self.wanted) {
            return None;
        }
        self.token += 1;
        self.sent = Some(now);
        Some(self.token.to_be_bytes())
    }

    /// A PONG came. One that answers no PING says nothing.
    pub fn pong(&mut self, now: Instant, bytes: [u8; 8]) -> bool {
        if u64::from_be_bytes(bytes) != self.token {
            return false;
        }
        let Some(sent) = self.sent.take() else {
            return false;
        };
        let sample = now.saturating_duration_since(sent);
        if now.saturating_duration_since(self.span) >= MEMORY {
            self.span = now;
            self.shortest = [None, self.shortest[0]];
        }
        let this = &mut self.shortest[0];
        *this = Some(this.map_or(sample, |shortest| shortest.min(sample)));
        // RFC 6298 §2.3
        self.round_trip = Some(self.round_trip.map_or(sample, |smoothed| (7 * smoothed + sample) / 8));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEPALIVE: Keepalive = Keepalive {
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
    };

    #[test]
    fn silence_is_probed_once_and_then_fatal() {
        let start = Instant::now();
        let mut watch = Watch::new(KEEPALIVE, start);
        let at = |secs| start + Duration::from_secs(secs);
        assert_eq!(watch.next_look(), Some(at(10)));
        assert_eq!((watch.look(at(9)), watch.wants_ping()), (Verdict::Alive, false));
        assert_eq!((watch.look(at(10)), watch.wants_ping()), (Verdict::Alive, true));
        assert!(watch.take_ping(at(10)).is_some());
        assert_eq!(watch.next_look(), Some(at(15)));
        assert_eq!((watch.look(at(14)), watch.wants_ping()), (Verdict::Alive, false));
        assert_eq!(watch.look(at(15)), Verdict::Dead);
        watch.hear(at(14));
        assert_eq!((watch.look(at(15)), watch.next_look()), (Verdict::Alive, Some(at(24))));
    }

    #[test]
    fn the_round_trip_is_smoothed_and_measured_now_and_then() {
        let start = Instant::now();
        let mut watch = Watch::new(KEEPALIVE, start);
        watch.sample(start);
        let ping = watch.take_ping(start).unwrap();
        watch.sample(start);
        assert!(!watch.wants_ping(), "one at a time");
        let back = start + Duration::from_millis(80);
        assert!(watch.pong(back, ping));
        assert!(!watch.pong(back, ping), "once");
        assert_eq!(watch.round_trip(), Some(Duration::from_millis(80)));
        watch.sample(back);
        assert!(!watch.wants_ping(), "not so soon");
        let later = start + SAMPLE_INTERVAL;
        watch.sample(later);
        let ping = watch.take_ping(later).unwrap();
        assert!(!watch.pong(later, [0xff; 8]), "no such PING");
        assert!(watch.pong(later, ping));
        assert_eq!(watch.round_trip(), Some(Duration::from_millis(70)));
    }

    /// Else a bulk transfer spends its first seconds with a window for the path as it was without it.
    #[test]
    fn what_bulk_makes_of_the_round_trip_is_known_within_a_second() {
        let (idle, busy) = (Duration::from_micros(200), Duration::from_millis(2));
        let mut now = Instant::now();
        let mut watch = Watch::new(KEEPALIVE, now);
        watch.sample(now);
        let ping = watch.take_ping(now).unwrap();
        assert!(watch.pong(now + idle, ping));
        let end = now + Duration::from_secs(1);
        while now < end {
            watch.sample(now);
            let ping = watch.take_ping(now);
            now += busy;
            if let Some(ping) = ping {
                assert!(watch.pong(now, ping));
            }
        }
        assert!(watch.round_trip() > Some(busy / 2), "{:?}", watch.round_trip());
    }

    #[test]
    fn a_reader_takes_a_turn_however_short_the_path() {
        let now = Instant::now();
        let turn = |micros| {
            let mut watch = Watch::new(KEEPALIVE, now);
            assert_eq!(watch.shortest_turn(), None);
            watch.sample(now);
            let ping = watch.take_ping(now).unwrap();
            assert!(watch.pong(now + Duration::from_micros(micros), ping));
            watch.shortest_turn()
        };
        assert_eq!(turn(100), Some(SHORTEST_TURN));
        assert_eq!(turn(20_000), Some(Duration::from_millis(20)));
    }

    #[test]
    fn now_and_then_the_round_trip_is_measured_with_little_on_its_way() {
        let start = Instant::now();
        let mut watch = Watch::new(KEEPALIVE, start);
        let at = |secs| start + Duration::from_secs(secs);
        watch.grant(at(0));
        let behind_bulk = watch.take_ping(at(0)).unwrap();
        watch.grant(at(29));
        assert!(!watch.is_quieting());
        watch.grant(at(30));
        assert!(watch.is_quieting(), "from here on credit is held back");
        assert!(!watch.wants_ping(), "not before little is on its way");
        watch.grant(at(31));
        assert!(!watch.is_quieting());
        let quiet = watch.take_ping(at(31)).unwrap();
        assert!(!watch.pong(at(32), behind_bulk), "it waited");
        assert!(watch.pong(at(32), quiet));
        watch.grant(at(60));
        assert!(!watch.is_quieting(), "not so soon again");
    }

    #[test]
    fn the_shortest_round_trip_is_forgotten_when_the_path_has_become_longer() {
        let start = Instant::now();
        let mut watch = Watch::new(KEEPALIVE, start);
        let mut measure = |secs, millis| {
            let sent = start + Duration::from_secs(secs);
            watch.sample(sent);
            let ping = watch.take_ping(sent).unwrap();
            assert!(watch.pong(sent + Duration::from_millis(millis), ping));
            watch.shortest_round_trip().map(|round_trip| round_trip.as_millis())
        };
        let shortest = [(0, 20), (10, 200), (29, 15), (31, 300), (50, 250), (62, 270)];
        let shortest = shortest.map(|(secs, millis)| measure(secs, millis));
        assert_eq!(shortest, [20, 20, 15, 15, 15, 250].map(Some));
    }
}
