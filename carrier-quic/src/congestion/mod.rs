//! Congestion control: [fit for paths that lose packets](adaptive), and letting the last words of a connection through.
//!
//! A close of QUIC does not count against the congestion window (RFC 9002 §3), but quinn holds it back while the window
//! is full, and takes no acknowledgements any more that would free it: the peer would learn of the end by its silence.

mod adaptive;
mod delivery;
mod floor;
mod path;

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

pub(crate) use self::adaptive::AdaptiveConfig;

/// Makes controllers of another kind that can be [opened](open).
pub(crate) struct Openable<F>(pub(crate) Arc<F>);

impl<F: ControllerFactory + Send + Sync> ControllerFactory for Openable<F> {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Gate {
            controller: Arc::clone(&self.0).build(now, current_mtu),
            is_open: Arc::default(),
        })
    }
}

/// Has congestion hold back nothing any more of what a connection sends, for it is about to be closed.
pub(crate) fn open(quic: &quinn::Connection) {
    if let Ok(gate) = quic.congestion_state().into_any().downcast::<Gate>() {
        gate.is_open.store(true, Ordering::Relaxed);
    }
}

struct Gate {
    controller: Box<dyn Controller>,
    /// Shared with its duplicates.
    is_open: Arc<AtomicBool>,
}

impl Controller for Gate {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.controller.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.controller.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.controller
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.controller
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.controller.on_mtu_update(new_mtu);
    }

    /// A window beyond 32 bits is one for which quinn does not pace either.
    fn window(&self) -> u64 {
        if self.is_open.load(Ordering::Relaxed) {
            u64::MAX
        } else {
            self.controller.window()
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            controller: self.controller.clone_box(),
            is_open: Arc::clone(&self.is_open),
        })
    }

    fn initial_window(&self) -> u64 {
        self.controller.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
