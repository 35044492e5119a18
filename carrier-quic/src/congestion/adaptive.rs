//! CUBIC with a floor: what the path has been seen to carry.
//!
//! CUBIC takes every lost packet for congestion. Where packets are lost for other reasons it ends up with a window of a few
//! packets, whatever the path carries: at 1 % loss and 20 ms about 1 MB/s. What a path carries can be measured instead
//! ([`delivery`](super::delivery), [`path`](super::path)): the rate at which it delivers, times its round trip. Here the
//! window never falls below that and [a little more](super::floor), so that there is always something to carry and a faster
//! path is noticed. What that adds to the queue of the path is bounded: a quarter of the round trip and 2 ms.
//!
//! Where nothing is lost, or buffers are so large that CUBIC's window stays above the floor, nothing differs from CUBIC.
//! Where much is lost, or the path marks congestion (ECN), the floor is lowered step by step, until CUBIC decides alone.
//!
//! quinn lets a controller decide about the window only, and paces at 5/4 of the window in a round trip.

use std::{any::Any, sync::Arc, time::Instant};

use quinn::congestion::{Controller, ControllerFactory, CubicConfig};
use quinn_proto::RttEstimator;

use super::floor::Floor;

/// Makes them.
#[derive(Debug, Default)]
pub(crate) struct AdaptiveConfig {
    cubic: Arc<CubicConfig>,
}

impl ControllerFactory for AdaptiveConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Adaptive {
            cubic: Arc::clone(&self.cubic).build(now, current_mtu),
            floor: Floor::new(current_mtu),
        })
    }
}

struct Adaptive {
    cubic: Box<dyn Controller>,
    floor: Floor,
}

impl Controller for Adaptive {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.floor.on_sent(now);
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.floor.on_ack(sent, bytes);
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.floor.on_end_acks(now, in_flight, app_limited, self.cubic.window());
        self.cubic
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.floor.on_loss(lost_bytes, is_persistent_congestion);
        self.cubic
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.floor.on_mtu_update(new_mtu);
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.floor.window(self.cubic.window())
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            cubic: self.cubic.clone_box(),
            floor: self.floor.clone(),
        })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
