//! What a congestion window need not fall below, by what the path has carried.

use std::time::{Duration, Instant};

use super::{
    delivery::{Delivery, Sample},
    path::Path,
};

/// The floor in rates times round trips, once the path is known, and before: then it doubles with each.
const GAIN: f64 = 1.25;
const GAIN_AT_FIRST: f64 = 2.0;
/// What hosts are late by, for which there has to be something under way, too.
const SLACK: Duration = Duration::from_millis(2);
/// The floor for a round trip or two now and then, in which the queue that it makes itself runs empty: only then does the
/// round trip of the path show.
const GAIN_TO_LOOK: f64 = 0.5;
/// In packets.
const LEAST: u64 = 4;

/// Loss beyond this part is congestion. Random loss beyond it gets no help.
const CONGESTED: f64 = 0.1;
/// Of how many packets loss is judged at least.
const JUDGED: u64 = 50;
/// By how much the floor is lowered then, for how many round trips at least, and by how much it is raised in each after that.
const LOWER: f64 = 0.85;
const HOLD: u64 = 20;
const RAISE: f64 = 1.03;
/// A floor that is lowered to this is none.
const LOWEST: f64 = 0.1;

/// Follows what is sent, acknowledged and lost, and says how much may be under way in any case.
#[derive(Clone, Debug)]
pub(super) struct Floor {
    mtu: u64,
    delivery: Delivery,
    /// Nothing is known before the first acknowledgement.
    path: Option<Path>,
    look: Option<Look>,
    losses: Losses,
}

/// The queue is let run empty, and the round trip looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    /// The round trip with which it ends, once little enough is under way.
    until: Option<u64>,
    shortest: Option<Duration>,
}

impl Look {
    /// For how many round trips after that: what shows in the first was sent before.
    const ROUNDS: u64 = 2;

    /// Gives the shortest round trip in the end.
    fn learn(&mut self, round: u64, rtt: Duration, is_low: bool) -> Option<Duration> {
        let shortest = self.shortest.map_or(rtt, |shortest| shortest.min(rtt));
        self.shortest = Some(shortest);
        if is_low && self.until.is_none() {
            self.until = Some(round + Self::ROUNDS);
        }
        self.until.is_some_and(|until| round >= until).then_some(shortest)
    }
}

/// How much of what was sent is lost, and what follows.
#[derive(Clone, Copy, Debug)]
struct Losses {
    acked: u64,
    lost: u64,
    is_marked: bool,
    /// What is left of the floor.
    trust: f64,
    /// The round trip in which it was lowered.
    lowered: Option<u64>,
}

impl Default for Losses {
    fn default() -> Self {
        Self {
            acked: 0,
            lost: 0,
            is_marked: false,
            trust: 1.0,
            lowered: None,
        }
    }
}

impl Losses {
    /// Judges at the end of a round trip; gives whether there was too much.
    fn judge(&mut self, round: u64, mtu: u64) -> bool {
        let all = self.acked + self.lost;
        if all < JUDGED * mtu && !self.is_marked {
            return false;
        }
        let is_congested = self.is_marked || self.lost as f64 > all as f64 * CONGESTED;
        (self.acked, self.lost, self.is_marked) = (0, 0, false);
        let since = self.lowered.map(|lowered| round - lowered);
        match (is_congested, since) {
            // What was sent before shows for another round trip.
            (true, Some(..=1)) => {}
            (true, _) => {
                self.lowered = Some(round);
                self.trust = (self.trust * LOWER).max(LOWEST);
            }
            (false, Some(..HOLD)) => {}
            (false, _) => self.trust = (self.trust * RAISE).min(1.0),
        }
        is_congested
    }
}

impl Floor {
    pub(super) fn new(mtu: u16) -> Self {
        Self {
            mtu: mtu.into(),
            delivery: Delivery::default(),
            path: None,
            look: None,
            losses: Losses::default(),
        }
    }

    pub(super) fn on_sent(&mut self, now: Instant) {
        self.delivery.on_sent(now);
    }

    pub(super) fn on_ack(&mut self, sent: Instant, bytes: u64) {
        self.delivery.on_ack(sent, bytes);
        self.losses.acked += bytes;
    }

    /// All packets of some acknowledgements have been told. `is_idle` is whether there is nothing more to send, and
    /// `window` the congestion window without this.
    pub(super) fn on_end_acks(&mut self, now: Instant, in_flight: u64, is_idle: bool, window: u64) {
        if let Some(sample) = self.delivery.on_end_acks(now, in_flight, is_idle) {
            self.learn(now, in_flight, sample, window);
        }
    }

    /// So many bytes were lost; none if the path has marked congestion (ECN).
    pub(super) fn on_loss(&mut self, bytes: u64, of_everything: bool) {
        self.losses.lost += bytes;
        self.losses.is_marked |= bytes == 0;
        if of_everything {
            // Round trips are counted anew.
            (self.path, self.look, self.losses.lowered) = (None, None, None);
        }
    }

    pub(super) fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = mtu.into();
    }

    /// The congestion window, which would be `window` without this.
    pub(super) fn window(&self, window: u64) -> u64 {
        match (self.look, self.bytes()) {
            (Some(_), 1..) => self.bytes(),
            (_, floor) => floor.max(window),
        }
    }

    /// What the window does not fall below; 0 if there is no such thing.
    fn bytes(&self) -> u64 {
        let Some(path) = self.path.as_ref().filter(|_| self.losses.trust > LOWEST) else {
            return 0;
        };
        let round_trip = path.round_trip().as_secs_f64();
        let seconds = match (self.look, path.is_known()) {
            (Some(_), _) => round_trip * GAIN_TO_LOOK,
            (None, true) => round_trip * GAIN + SLACK.as_secs_f64(),
            (None, false) => round_trip * GAIN_AT_FIRST + SLACK.as_secs_f64(),
        };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // neither negative nor near the end
        let floor = (path.rate() * seconds * self.losses.trust) as u64;
        floor.max(LEAST * self.mtu)
    }

    fn learn(&mut self, now: Instant, in_flight: u64, sample: Sample, window: u64) {
        let path = self.path.get_or_insert_with(|| Path::new(now, sample));
        path.learn(now, sample, sample.is_limited || self.look.is_some());
        let round = path.round();
        if sample.begins_round && self.losses.judge(round, self.mtu) {
            path.settle();
        }
        let is_stale = path.is_stale(now);
        let floor = self.bytes();
        if sample.begins_round {
            tracing::trace!(round, rate = sample.rate, rtt = ?sample.rtt, in_flight, floor, window, "another round trip");
        }
        if let (Some(look), Some(path)) = (&mut self.look, &mut self.path) {
            if let Some(round_trip) = look.learn(round, sample.rtt, in_flight <= floor) {
                path.renew(now, round_trip);
                self.look = None;
            }
        } else if is_stale && floor > window {
            self.look = Some(Look::default());
        }
    }
}

#[cfg(test)]
mod tests;
