//! What an agent counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use crate::{
    accept::AcceptMetrics,
    metrics::{CarrierLabels, Names, Traffic},
};

/// What an agent counts. Clones share their figures.
#[derive(Clone, Debug)]
pub struct AgentMetrics {
    pub(super) traffic: Traffic,
    pub(super) connect_attempts: Family<CarrierLabels, Counter>,
    pub(super) connect_failures: Family<CauseLabels, Counter>,
    pub(super) accept: AcceptMetrics,
    pub(super) streams_abandoned: Counter,
    pub(super) refusals: Family<KindLabels, Counter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CauseLabels {
    pub(super) carrier: &'static str,
    pub(super) cause: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KindLabels {
    pub(super) kind: &'static str,
}

const NAMES: Names = Names {
    own: "agent",
    peer: "server",
    to_peer: "to_server",
    from_peer: "from_server",
};

/// From a target on the same machine to one at the deadline.
const DIAL_BUCKETS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

impl Default for AgentMetrics {
    fn default() -> Self {
        Self {
            traffic: Traffic::new(NAMES, || Histogram::new(DIAL_BUCKETS)),
            connect_attempts: Family::default(),
            connect_failures: Family::default(),
            accept: AcceptMetrics::default(),
            streams_abandoned: Counter::default(),
            refusals: Family::default(),
        }
    }
}

impl AgentMetrics {
    /// Registers everything under names that begin with `tunnel_agent_`.
    pub fn register(&self, registry: &mut Registry) {
        let all = registry.sub_registry_with_prefix("tunnel_agent");
        self.traffic
            .register(all, "Time to connect to a target, name resolution included");
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
            "streams_abandoned",
            "Streams that a server gave up before the target was reached",
            self.streams_abandoned.clone(),
        );
        all.register(
            "refusals",
            "Streams that this agent refused, by the kind of the refusal",
            self.refusals.clone(),
        );
    }
}
