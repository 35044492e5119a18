//! Figures for a Prometheus registry.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tunnel_core::relay::Meter;

/// What a frontend counts. Clones count together, so that one may be registered and shared by several frontends,
/// which the label `frontend` tells apart: `connect`, `connect+tls` or `connect+unix`.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(crate) requests: Family<RequestLabels, Counter<u64, AtomicU64>>,
    pub(crate) abandoned: Family<FrontendLabels, Counter<u64, AtomicU64>>,
    pub(crate) failed_handshakes: Family<FrontendLabels, Counter<u64, AtomicU64>>,
    pub(crate) connections_open: Family<FrontendLabels, Gauge>,
    pub(crate) tunnels_open: Family<FrontendLabels, Gauge>,
    bytes: Family<ByteLabels, Counter<u64, AtomicU64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) frontend: &'static str,
    pub(crate) status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct FrontendLabels {
    pub(crate) frontend: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByteLabels {
    frontend: &'static str,
    direction: &'static str,
}

impl Metrics {
    /// Registers everything under names that begin with `frontend_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("frontend");
        registry.register("requests", "Requests answered, by status", self.requests.clone());
        registry.register(
            "abandoned",
            "Requests whose client left before the answer",
            self.abandoned.clone(),
        );
        registry.register(
            "failed_handshakes",
            "TLS handshakes of clients that failed",
            self.failed_handshakes.clone(),
        );
        registry.register(
            "connections_open",
            "Connections of clients that are open, tunnels included",
            self.connections_open.clone(),
        );
        registry.register("tunnels_open", "Tunnels that are open", self.tunnels_open.clone());
        registry.register("bytes", "Bytes that tunnels moved, as they pass", self.bytes.clone());
    }

    /// Counts the bytes of this frontend's tunnels.
    pub(crate) fn meter(&self, frontend: &'static str) -> BytesMoved {
        let counter = |direction| self.bytes.get_or_create_owned(&ByteLabels { frontend, direction });
        BytesMoved {
            to_target: counter("to_target"),
            to_client: counter("to_client"),
        }
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, frontend: &'static str, status: u16) {
        self.requests.get_or_create(&RequestLabels { frontend, status }).inc();
    }
}

/// The bytes that tunnels move.
#[derive(Debug)]
pub(crate) struct BytesMoved {
    to_target: Counter<u64, AtomicU64>,
    to_client: Counter<u64, AtomicU64>,
}

impl Meter for BytesMoved {
    fn sent(&self, bytes: u64) {
        self.to_target.inc_by(bytes);
    }

    fn received(&self, bytes: u64) {
        self.to_client.inc_by(bytes);
    }
}

/// Keeps a gauge one higher until it is dropped.
#[derive(Debug)]
pub(crate) struct Held(Gauge);

impl Held {
    pub(crate) fn new(family: &Family<FrontendLabels, Gauge>, frontend: &'static str) -> Self {
        let gauge = family.get_or_create_owned(&FrontendLabels { frontend });
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
