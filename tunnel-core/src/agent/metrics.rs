//! What an agent counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::accept::AcceptMetrics;
pub(super) use crate::accept::CarrierLabels;

/// What an agent counts. Clones share their figures.
#[derive(Clone, Debug)]
pub struct AgentMetrics {
    pub(super) connections: Family<CarrierLabels, Gauge>,
    pub(super) connections_made: Family<CarrierLabels, Counter>,
    pub(super) connections_ended: Family<EndLabels, Counter>,
    pub(super) connect_attempts: Family<CarrierLabels, Counter>,
    pub(super) connect_failures: Family<CauseLabels, Counter>,
    pub(super) accept: AcceptMetrics,
    pub(super) streams_open: Family<OpenerLabels, Gauge>,
    pub(super) streams: Family<OpenerLabels, Counter>,
    pub(super) streams_abandoned: Counter,
    pub(super) refusals: Family<KindLabels, Counter>,
    pub(super) bytes: Family<DirectionLabels, Counter>,
    pub(super) dials_pending: Gauge,
    pub(super) dial_duration: Family<ResultLabels, Histogram>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct EndLabels {
    pub(super) carrier: &'static str,
    pub(super) by: &'static str,
    pub(super) reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CauseLabels {
    pub(super) carrier: &'static str,
    pub(super) cause: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OpenerLabels {
    pub(super) opener: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KindLabels {
    pub(super) kind: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DirectionLabels {
    pub(super) direction: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResultLabels {
    pub(super) result: &'static str,
}

/// From a target on the same machine to one at the deadline.
const DIAL_BUCKETS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

impl Default for AgentMetrics {
    fn default() -> Self {
        Self {
            connections: Family::default(),
            connections_made: Family::default(),
            connections_ended: Family::default(),
            connect_attempts: Family::default(),
            connect_failures: Family::default(),
            accept: AcceptMetrics::default(),
            streams_open: Family::default(),
            streams: Family::default(),
            streams_abandoned: Counter::default(),
            refusals: Family::default(),
            bytes: Family::default(),
            dials_pending: Gauge::default(),
            dial_duration: Family::new_with_constructor(|| Histogram::new(DIAL_BUCKETS)),
        }
    }
}

impl AgentMetrics {
    /// How many streams are open, whoever opened them.
    pub(super) fn open_streams(&self) -> usize {
        let open = ["server", "agent"].map(|opener| self.streams_open.get_or_create(&OpenerLabels { opener }).get());
        usize::try_from(open.iter().sum::<i64>()).unwrap_or_default()
    }

    /// Registers everything under names that begin with `tunnel_agent_`.
    pub fn register(&self, registry: &mut Registry) {
        let all = registry.sub_registry_with_prefix("tunnel_agent");
        all.register(
            "connections",
            "Connections with servers at the moment",
            self.connections.clone(),
        );
        all.register(
            "connections_made",
            "Connections made with servers",
            self.connections_made.clone(),
        );
        all.register(
            "connections_ended",
            "Connections with servers that have ended, by who ended them and why",
            self.connections_ended.clone(),
        );
        all.register(
            "connect_attempts",
            "Attempts to connect to a server",
            self.connect_attempts.clone(),
        );
        all.register(
            "connect_failures",
            "Failed attempts: resolve, unreachable, proxy, tls, protocol, lost, timeout, unusable, or the code of the \
             server's rejection",
            self.connect_failures.clone(),
        );
        self.accept.register(all);
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
            "streams_abandoned",
            "Streams that a server gave up before the target was reached",
            self.streams_abandoned.clone(),
        );
        all.register(
            "refusals",
            "Streams that this agent refused, by the kind of the refusal",
            self.refusals.clone(),
        );
        all.register_with_unit(
            "stream",
            "Payload of streams, to servers and from servers",
            Unit::Bytes,
            self.bytes.clone(),
        );
        all.register(
            "dials_pending",
            "Streams that wait for their answer",
            self.dials_pending.clone(),
        );
        all.register_with_unit(
            "dial_duration",
            "Time to connect to a target, name resolution included",
            Unit::Seconds,
            self.dial_duration.clone(),
        );
    }
}
