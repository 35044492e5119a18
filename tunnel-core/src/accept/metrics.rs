//! What an accept loop counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::metrics::CarrierLabels;

/// What the accept loops of a server or an agent count. Clones share their figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct AcceptMetrics {
    pub(crate) handshakes_pending: Gauge,
    pub(crate) handshake_failures: Family<ReasonLabels, Counter>,
    pub(super) accept_refusals: Family<ReasonLabels, Counter>,
    pub(super) accept_errors: Family<CarrierLabels, Counter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabels {
    pub(crate) carrier: &'static str,
    pub(crate) reason: &'static str,
}

impl AcceptMetrics {
    /// Registers everything under the prefix that the registry has.
    pub(crate) fn register(&self, all: &mut Registry) {
        all.register(
            "handshakes_pending",
            "Connections in their handshake at the moment",
            self.handshakes_pending.clone(),
        );
        all.register(
            "handshake_failures",
            "Handshakes that failed: tls, protocol, lost, timeout, or the code of the rejection",
            self.handshake_failures.clone(),
        );
        all.register(
            "accept_refusals",
            "Connections turned away before their handshake: filter, source_limit or total_limit",
            self.accept_refusals.clone(),
        );
        all.register(
            "accept_errors",
            "Failed attempts to accept a connection",
            self.accept_errors.clone(),
        );
    }
}
