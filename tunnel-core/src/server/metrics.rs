//! What a server counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{
    accept::AcceptMetrics,
    metrics::{Names, Traffic},
};

/// What a server counts. Clones share their figures.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    pub(super) traffic: Traffic,
    pub(super) sessions: Gauge,
    pub(super) accept: AcceptMetrics,
    pub(super) upstream_attempts: Family<UpstreamLabels, Counter>,
    pub(super) upstream_failures: Family<UpstreamFailureLabels, Counter>,
    pub(super) streams_ended: Family<StreamEndLabels, Counter>,
    pub(super) dial_retries: Counter,
    pub(super) refusals: Family<RefusalLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct UpstreamLabels {
    pub(super) upstream: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct UpstreamFailureLabels {
    pub(super) upstream: String,
    pub(super) cause: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StreamEndLabels {
    pub(super) opener: &'static str,
    pub(super) end: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RefusalLabels {
    pub(super) by: &'static str,
    pub(super) kind: &'static str,
}

const NAMES: Names = Names {
    own: "server",
    peer: "agent",
    to_peer: "to_agent",
    from_peer: "from_agent",
};

/// From a dial inside one machine to one at the deadline.
const DIAL_BUCKETS: [f64; 14] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 30.0,
];

impl Default for ServerMetrics {
    fn default() -> Self {
        Self {
            traffic: Traffic::new(NAMES, || Histogram::new(DIAL_BUCKETS)),
            sessions: Gauge::default(),
            accept: AcceptMetrics::default(),
            upstream_attempts: Family::default(),
            upstream_failures: Family::default(),
            streams_ended: Family::default(),
            dial_retries: Counter::default(),
            refusals: Family::default(),
        }
    }
}

impl ServerMetrics {
    /// Registers everything under names that begin with `tunnel_server_`.
    pub fn register(&self, registry: &mut Registry) {
        let all = registry.sub_registry_with_prefix("tunnel_server");
        self.traffic.register(
            all,
            "Time from the wish for a stream to its answer, routing and tries elsewhere included",
        );
        all.register("sessions", "Agents connected at the moment", self.sessions.clone());
        self.accept.register(all);
        all.register(
            "upstream_attempts",
            "Attempts to connect with an upstream",
            self.upstream_attempts.clone(),
        );
        all.register(
            "upstream_failures",
            "Failed attempts to connect with an upstream: resolve, unreachable, proxy, tls, protocol, lost, timeout, \
             unusable, or the code of a rejection",
            self.upstream_failures.clone(),
        );
        all.register(
            "streams_ended",
            "Streams that have ended: complete, reset, connection, policy or shutdown",
            self.streams_ended.clone(),
        );
        all.register(
            "dial_retries",
            "Tries through another connection, after one that was certainly not delivered",
            self.dial_retries.clone(),
        );
        all.register(
            "refusals",
            "Streams that were refused, by the kind of the refusal and whether the server or an agent refused",
            self.refusals.clone(),
        );
    }
}
