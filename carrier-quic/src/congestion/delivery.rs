//! How fast a path delivers, and how long it takes.
//!
//! A rate is what was acknowledged between two acknowledgements, of which the later one is of a packet that was sent just
//! after the earlier one had come: about a round trip (draft-cheng-iccrg-delivery-rate-estimation). Neither
//! acknowledgements that come in bursts nor packets that leave in bursts make it look faster than it is.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Rates are over no less than this: within a host it is shorter than the turns of those who send and acknowledge.
const LEAST_INTERVAL: Duration = Duration::from_millis(1);
/// How many moments of sending are noted in a round trip.
const NOTES: u32 = 64;

/// What one round of acknowledgements says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// Bytes a second.
    pub(super) rate: f64,
    pub(super) rtt: Duration,
    /// Whether there was too little to send for the rate to be the path's.
    pub(super) is_limited: bool,
    /// Whether it is the first of a round trip.
    pub(super) begins_round: bool,
}

/// Measures what is delivered.
#[derive(Clone, Debug, Default)]
pub(super) struct Delivery {
    /// Bytes acknowledged so far.
    delivered: u64,
    /// When the last of them were, and when these had been sent.
    last: Option<(Instant, Instant)>,
    notes: VecDeque<Note>,
    /// When the newest packet was sent that is acknowledged now.
    newest: Option<Instant>,
    /// What is sent before more than so much is delivered says nothing about the path.
    limited_until: u64,
    /// The round trip ends with a packet that was sent after so much had been delivered.
    round_end: u64,
    shortest: Option<Duration>,
}

/// How things were when something was sent.
#[derive(Clone, Copy, Debug)]
struct Note {
    at: Instant,
    delivered: u64,
    last: (Instant, Instant),
    is_limited: bool,
}

impl Delivery {
    pub(super) fn on_sent(&mut self, now: Instant) {
        let apart = self.shortest.unwrap_or_default() / NOTES;
        if self.notes.back().is_some_and(|note| now <= note.at + apart) {
            return;
        }
        let last = *self.last.get_or_insert((now, now));
        self.notes.push_back(Note {
            at: now,
            delivered: self.delivered,
            last,
            is_limited: self.delivered <= self.limited_until,
        });
    }

    pub(super) fn on_ack(&mut self, sent: Instant, bytes: u64) {
        self.delivered += bytes;
        self.newest = self.newest.max(Some(sent));
    }

    /// All packets of some acknowledgements have been told. `is_idle` is whether there is nothing more to send.
    pub(super) fn on_end_acks(&mut self, now: Instant, in_flight: u64, is_idle: bool) -> Option<Sample> {
        let newest = self.newest.take();
        let sample = newest.and_then(|sent| self.sample(now, sent));
        if is_idle {
            self.limited_until = self.delivered + in_flight;
        }
        if in_flight == 0 {
            // Whatever is sent next is the first after a pause.
            self.last = None;
            self.notes.clear();
        } else if let Some(sent) = newest {
            self.last = Some((now, sent));
        }
        sample
    }

    fn sample(&mut self, now: Instant, sent: Instant) -> Option<Sample> {
        while self.notes.get(1).is_some_and(|note| note.at <= sent) {
            self.notes.pop_front();
        }
        let note = *self.notes.front().filter(|note| note.at <= sent)?;
        let (delivered_at, sent_before) = note.last;
        let acked_in = now.saturating_duration_since(delivered_at);
        let sent_in = sent.saturating_duration_since(sent_before);
        let interval = acked_in.max(sent_in).max(LEAST_INTERVAL);
        let rtt = now.saturating_duration_since(sent);
        self.shortest = Some(self.shortest.map_or(rtt, |shortest| shortest.min(rtt)));
        let begins_round = note.delivered >= self.round_end;
        if begins_round {
            self.round_end = self.delivered;
        }
        Some(Sample {
            rate: (self.delivered - note.delivered) as f64 / interval.as_secs_f64(),
            rtt,
            is_limited: note.is_limited,
            begins_round,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends 1,000 bytes a millisecond for 100 ms and has them acknowledged 20 ms later, `together` at a time.
    fn steady(together: u64) -> Vec<Sample> {
        let start = Instant::now();
        let mut delivery = Delivery::default();
        let mut samples = Vec::new();
        let at = |ms: u64| start + MS * u32::try_from(ms).unwrap();
        for ms in 0..100_u64 {
            delivery.on_sent(at(ms));
            if ms >= 20 && (ms + 1) % together == 0 {
                let last = ms - 20;
                for sent in (last + 1).saturating_sub(together)..=last {
                    delivery.on_ack(at(sent), 1000);
                }
                samples.extend(delivery.on_end_acks(at(ms), 20_000, false));
            }
        }
        samples
    }

    #[test]
    fn a_steady_flow_has_its_rate() {
        for sample in &steady(1)[25..] {
            assert!((sample.rate - 1e6).abs() < 1e5, "{sample:?}");
            assert_eq!(sample.rtt, 20 * MS);
        }
    }

    #[test]
    fn acknowledgements_in_bursts_do_not_make_it_faster() {
        for together in [2, 5, 10] {
            for sample in &steady(together)[1..] {
                assert!(sample.rate < 1.3e6, "{together}: {sample:?}");
            }
        }
    }

    #[test]
    fn a_round_is_as_long_as_a_round_trip() {
        let rounds = steady(1).iter().filter(|sample| sample.begins_round).count();
        assert!((3..=5).contains(&rounds), "{rounds}");
    }

    #[test]
    fn what_is_sent_when_there_is_little_to_send_is_marked() {
        let start = Instant::now();
        let mut delivery = Delivery::default();
        delivery.on_sent(start);
        delivery.on_ack(start, 1000);
        delivery.on_end_acks(start + 20 * MS, 0, true);
        delivery.on_sent(start + 30 * MS);
        delivery.on_ack(start + 30 * MS, 1000);
        let sample = delivery.on_end_acks(start + 50 * MS, 0, true).unwrap();
        assert!(sample.is_limited);
        assert_eq!((sample.rtt, sample.rate), (20 * MS, 50_000.0));
    }
}
