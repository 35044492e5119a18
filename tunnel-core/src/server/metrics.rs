//! What a server counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::accept::AcceptMetrics;
pub(super) use crate::accept::{CarrierLabels, Counted, ReasonLabels};

/// What a server counts. Clones share their figures.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    pub(super) connections: Family<CarrierLabels, Gauge>,
    pub(super) connections_made: Family<CarrierLabels, Counter>,
    pub(super) connections_ended: Family<EndLabels, Counter>,
    pub(super) sessions: Gauge,
    pub(super) accept: AcceptMetrics,
    pub(super) upstream_attempts: Family<UpstreamLabels, Counter>,
    pub(super) upstream_failures: Family<UpstreamFailureLabels, Counter>,
    pub(super) streams_open: Family<OpenerLabels, Gauge>,
    pub(super) streams: Family<OpenerLabels, Counter>,
    pub(super) streams_ended: Family<StreamEndLabels, Counter>,
    pub(super) bytes: Family<DirectionLabels, Counter>,
    pub(super) dials_pending: Gauge,
    pub(super) dial_retries: Counter,
    pub(super) dial_duration: Family<ResultLabels, Histogram>,
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
pub(super) struct EndLabels {
    pub(super) carrier: &'static str,
    pub(super) by: &'static str,
    pub(super) reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OpenerLabels {
    pub(super) opener: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StreamEndLabels {
    pub(super) opener: &'static str,
    pub(super) end: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DirectionLabels {
    pub(super) direction: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResultLabels {
    pub(super) result: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RefusalLabels {
    pub(super) by: &'static str,
    pub(super) kind: &'static str,
}

/// From a dial inside one machine to one at the deadline.
const DIAL_BUCKETS: [f64; 14] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 30.0,
];

impl Default for ServerMetrics {
    fn default() -> Self {
        Self {
            connections: Family::default(),
            connections_made: Family::default(),
            connections_ended: Family::default(),
            sessions: Gauge::default(),
            accept: AcceptMetrics::default(),
            upstream_attempts: Family::default(),
            upstream_failures: Family::default(),
            streams_open: Family::default(),
            streams: Family::default(),
            streams_ended: Family::default(),
            bytes: Family::default(),
            dials_pending: Gauge::default(),
            dial_retries: Counter::default(),
            dial_duration: Family::new_with_constructor(|| Histogram::new(DIAL_BUCKETS)),
            refusals: Family::default(),
        }
    }
}

impl ServerMetrics {
    /// Registers everything under names that begin with `tunnel_server_`.
    pub fn register(&self, registry: &mut Registry) {
        let all = registry.sub_registry_with_prefix("tunnel_server");
        all.register(
            "connections",
            "Agents' connections at the moment",
            self.connections.clone(),
        );
        all.register(
            "connections_made",
            "Connections that agents have made",
            self.connections_made.clone(),
        );
        all.register(
            "connections_ended",
            "Agents' connections that have ended, by who ended them and why",
            self.connections_ended.clone(),
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
            "streams_open",
            "Streams open at the moment, by who opened them",
            self.streams_open.clone(),
        );
        all.register(
            "streams",
            "Streams that were opened, by who opened them",
            self.streams.clone(),
        );
        all.register(
            "streams_ended",
            "Streams that have ended: complete, reset, connection, policy or shutdown",
            self.streams_ended.clone(),
        );
        all.register_with_unit(
            "stream",
            "Payload of streams, to agents and from agents",
            Unit::Bytes,
            self.bytes.clone(),
        );
        all.register(
            "dials_pending",
            "Streams that wait for their answer",
            self.dials_pending.clone(),
        );
        all.register(
            "dial_retries",
            "Tries through another connection, after one that was certainly not delivered",
            self.dial_retries.clone(),
        );
        all.register_with_unit(
            "dial_duration",
            "Time from the wish for a stream to its answer, routing and tries elsewhere included",
            Unit::Seconds,
            self.dial_duration.clone(),
        );
        all.register(
            "refusals",
            "Streams that were refused, by the kind of the refusal and whether the server or an agent refused",
            self.refusals.clone(),
        );
    }
}
