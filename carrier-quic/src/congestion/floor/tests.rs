//! A sender that has nothing but the floor, over a path in virtual time.

use std::collections::VecDeque;

use super::*;

const PACKET: u64 = 1200;
/// How far time goes at once.
const STEP: Duration = Duration::from_micros(100);
/// The window without the floor.
const WINDOW: u64 = 2 * PACKET;

#[derive(Clone, Copy)]
struct Link {
    /// Bytes a second.
    rate: f64,
    rtt: Duration,
    /// How long packets wait for others at most.
    queue: Duration,
    loss: f64,
}

/// 40 Mbit/s and 20 ms, with a queue that is large.
const LINK: Link = Link {
    rate: 5e6,
    rtt: Duration::from_millis(20),
    queue: Duration::from_millis(100),
    loss: 0.0,
};

struct Sender {
    floor: Floor,
    link: Link,
    random: fastrand::Rng,
    now: Instant,
    /// When what happens to a packet is known, when it was sent, and whether it got through.
    under_way: VecDeque<(Instant, Instant, bool)>,
    free: Instant,
    tokens: f64,
    srtt: f64,
}

/// What came out in some time.
struct Outcome {
    /// Of the rate of the link.
    share: f64,
    /// Part of the packets that was lost.
    lost: f64,
    /// The longest that a packet waited for others.
    waited: Duration,
}

impl Sender {
    fn new(link: Link) -> Self {
        let now = Instant::now();
        Self {
            floor: Floor::new(u16::try_from(PACKET).unwrap()),
            link,
            random: fastrand::Rng::with_seed(7),
            now,
            under_way: VecDeque::new(),
            free: now,
            tokens: 0.0,
            srtt: link.rtt.as_secs_f64(),
        }
    }

    fn in_flight(&self) -> u64 {
        self.under_way.len() as u64 * PACKET
    }

    fn run(&mut self, seconds: u64) -> Outcome {
        self.run_for(Duration::from_secs(seconds))
    }

    fn run_for(&mut self, time: Duration) -> Outcome {
        let end = self.now + time;
        let (mut delivered, mut lost, mut waited) = (0, 0, Duration::ZERO);
        while self.now < end {
            self.now += STEP;
            let mut gone = 0;
            let mut is_acked = false;
            while let Some((_, sent, arrived)) = self.under_way.pop_front_if(|(known, ..)| *known <= self.now) {
                if arrived {
                    self.floor.on_ack(sent, PACKET);
                    self.srtt += ((self.now - sent).as_secs_f64() - self.srtt) / 8.0;
                    delivered += 1;
                    is_acked = true;
                } else {
                    gone += 1;
                }
            }
            if is_acked {
                self.floor.on_end_acks(self.now, self.in_flight(), false, WINDOW);
            }
            if gone > 0 {
                self.floor.on_loss(gone * PACKET, false);
                lost += gone;
            }
            waited = waited.max(self.send());
        }
        Outcome {
            share: (delivered * PACKET) as f64 / self.link.rate / time.as_secs_f64(),
            lost: lost as f64 / (lost + delivered) as f64,
            waited,
        }
    }

    /// As quinn paces; gives the longest wait.
    fn send(&mut self) -> Duration {
        let window = self.floor.window(WINDOW);
        let pace = window as f64 * 1.25 / self.srtt;
        self.tokens = (self.tokens + pace * STEP.as_secs_f64()).min((10 * PACKET) as f64);
        let mut waited = Duration::ZERO;
        while self.in_flight() + PACKET <= window && self.tokens >= PACKET as f64 {
            self.tokens -= PACKET as f64;
            self.floor.on_sent(self.now);
            let wait = self.free.saturating_duration_since(self.now);
            let is_dropped = wait > self.link.queue;
            if !is_dropped {
                self.free = self.now + wait + Duration::from_secs_f64(PACKET as f64 / self.link.rate);
                waited = waited.max(wait);
            }
            let arrived = !is_dropped && self.random.f64() >= self.link.loss;
            self.under_way.push_back((self.free + self.link.rtt, self.now, arrived));
        }
        waited
    }
}

#[test]
fn a_path_that_loses_packets_is_filled_and_its_queue_stays_short() {
    for loss in [0.0, 0.001, 0.01, 0.03, 0.05] {
        for (rate, rtt) in [(1e6, 20), (5e6, 5), (5e6, 20), (5e6, 100), (30e6, 20)] {
            let rtt = Duration::from_millis(rtt);
            let mut sender = Sender::new(Link {
                rate,
                rtt,
                loss,
                ..LINK
            });
            sender.run(3);
            let Outcome { share, waited, .. } = sender.run(20);
            assert!(share > 0.97 - loss * 1.5, "{share} of {rate} with {rtt:?} and {loss}");
            assert!(
                waited < rtt + Duration::from_millis(10),
                "{waited:?} at {rate} with {rtt:?} and {loss}"
            );
        }
    }
}

#[test]
fn a_short_queue_does_not_lose_much_more_than_there_is_loss() {
    for queue in [1, 3] {
        let queue = Duration::from_millis(queue);
        let mut sender = Sender::new(Link { queue, ..LINK });
        sender.run(5);
        let Outcome { share, lost, .. } = sender.run(20);
        assert!(lost < CONGESTED, "{lost} with {queue:?}");
        assert!(share > 0.9, "{share} with {queue:?}");
    }
}

#[test]
fn a_path_that_changes_is_got_to_know_anew() {
    let mut sender = Sender::new(Link { loss: 0.01, ..LINK });
    sender.run(3);
    for (rate, rtt) in [(5e6, 60), (20e6, 60), (2e6, 20), (5e6, 20)] {
        sender.link.rate = rate;
        sender.link.rtt = Duration::from_millis(rtt);
        sender.run(30);
        let Outcome { share, waited, .. } = sender.run(10);
        assert!(share > 0.9, "{share} of {rate} with {rtt} ms");
        assert!(
            waited < Duration::from_millis(rtt + 10),
            "{waited:?} at {rate} with {rtt} ms"
        );
    }
}

#[test]
fn where_too_much_is_lost_or_congestion_is_marked_there_is_no_floor() {
    let mut sender = Sender::new(Link { loss: 0.3, ..LINK });
    sender.run(30);
    assert_eq!(sender.floor.bytes(), 0);

    let mut sender = Sender::new(LINK);
    sender.run(3);
    assert!(sender.floor.bytes() > WINDOW);
    for _ in 0..200 {
        sender.floor.on_loss(0, false);
        sender.run_for(LINK.rtt);
    }
    assert_eq!(sender.floor.bytes(), 0);
}

#[test]
fn a_path_that_was_dead_is_not_trusted() {
    let mut sender = Sender::new(LINK);
    sender.run(3);
    sender.floor.on_loss(0, false);
    sender.run(1);
    sender.floor.on_loss(PACKET, true);
    assert_eq!(sender.floor.window(WINDOW), WINDOW);
    sender.run(3);
    assert!(sender.run(3).share > 0.95);
}

#[test]
fn the_window_is_never_less_than_it_would_be_where_there_is_no_floor() {
    let mut sender = Sender::new(Link { loss: 0.01, ..LINK });
    while sender.floor.look.is_none() {
        sender.run_for(STEP);
    }
    sender.floor.losses.trust = LOWEST;
    assert_eq!(sender.floor.window(WINDOW), WINDOW);
}
