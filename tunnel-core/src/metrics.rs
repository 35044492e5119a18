//! What both ends count of their connections and streams.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::error::{ConnectionError, Initiator};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CarrierLabels {
    pub(crate) carrier: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    carrier: &'static str,
    by: &'static str,
    reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpenerLabels {
    opener: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// Counts one in a gauge until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    pub(crate) fn in_gauge(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What the two ends are called in labels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub(crate) own: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) to_peer: &'static str,
    pub(crate) from_peer: &'static str,
}

/// Connections and streams, as one end counts them. Clones share their figures.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    names: Names,
    connections: Family<CarrierLabels, Gauge>,
    connections_made: Family<CarrierLabels, Counter>,
    connections_ended: Family<EndLabels, Counter>,
    streams_open: Family<OpenerLabels, Gauge>,
    streams: Family<OpenerLabels, Counter>,
    bytes: Family<DirectionLabels, Counter>,
    /// Streams that wait for their answer.
    pub(crate) dials_pending: Gauge,
    dial_duration: Family<ResultLabels, Histogram, fn() -> Histogram>,
}

/// A connection, which counts as there until it is dropped.
#[derive(Debug)]
pub(crate) struct CountedConnection<'a> {
    traffic: &'a Traffic,
    carrier: &'static str,
    _there: Counted,
}

/// What is counted of an open stream, until it is dropped.
#[derive(Debug)]
pub(crate) struct CountedStream {
    pub(crate) sent: Counter,
    pub(crate) received: Counter,
    _open: Counted,
}

impl Traffic {
    /// That of an end. `histogram` is for the time that a dial takes.
    pub(crate) fn new(names: Names, histogram: fn() -> Histogram) -> Self {
        Self {
            names,
            connections: Family::default(),
            connections_made: Family::default(),
            connections_ended: Family::default(),
            streams_open: Family::default(),
            streams: Family::default(),
            bytes: Family::default(),
            dials_pending: Gauge::default(),
            dial_duration: Family::new_with_constructor(histogram),
        }
    }

    /// Counts a connection that was made.
    pub(crate) fn connection(&self, carrier: &'static str) -> CountedConnection<'_> {
        let labels = CarrierLabels { carrier };
        self.connections_made.get_or_create(&labels).inc();
        CountedConnection {
            traffic: self,
            carrier,
            _there: Counted::in_gauge(&self.connections.get_or_create_owned(&labels)),
        }
    }

    /// Counts a stream that was opened.
    pub(crate) fn stream(&self, opener: &'static str) -> CountedStream {
        let labels = OpenerLabels { opener };
        self.streams.get_or_create(&labels).inc();
        let bytes = |direction| self.bytes.get_or_create_owned(&DirectionLabels { direction });
        CountedStream {
            sent: bytes(self.names.to_peer),
            received: bytes(self.names.from_peer),
            _open: Counted::in_gauge(&self.streams_open.get_or_create_owned(&labels)),
        }
    }

    /// How many streams are open, whoever opened them.
    pub(crate) fn open_streams(&self) -> usize {
        let open = [self.names.own, self.names.peer]
            .map(|opener| self.streams_open.get_or_create(&OpenerLabels { opener }).get());
        usize::try_from(open.iter().sum::<i64>()).unwrap_or_default()
    }

    /// Counts a dial that took so long.
    pub(crate) fn dialled(&self, result: &'static str, took: Duration) {
        let duration = self.dial_duration.get_or_create_owned(&ResultLabels { result });
        duration.observe(took.as_secs_f64());
    }

    /// Registers everything under the prefix that the registry has. `dial` says what time a dial takes.
    pub(crate) fn register(&self, all: &mut Registry, dial: &'static str) {
        let peer = self.names.peer;
        all.register(
            "connections",
            format!("Connections with {peer}s at the moment"),
            self.connections.clone(),
        );
        all.register(
            "connections_made",
            format!("Connections made with {peer}s"),
            self.connections_made.clone(),
        );
        all.register(
            "connections_ended",
            format!("Connections with {peer}s that have ended, by who ended them and why"),
            self.connections_ended.clone(),
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
        all.register_with_unit(
            "stream",
            format!("Payload of streams, to {peer}s and from {peer}s"),
            Unit::Bytes,
            self.bytes.clone(),
        );
        all.register(
            "dials_pending",
            "Streams that wait for their answer",
            self.dials_pending.clone(),
        );
        all.register_with_unit("dial_duration", dial, Unit::Seconds, self.dial_duration.clone());
    }
}

impl CountedConnection<'_> {
    /// Counts how it has ended.
    pub(crate) fn end(self, cause: &ConnectionError) {
        let by = match cause.initiator() {
            Initiator::Local => self.traffic.names.own,
            Initiator::Remote => self.traffic.names.peer,
            Initiator::Network => "network",
        };
        let labels = EndLabels {
            carrier: self.carrier,
            by,
            reason: cause.label(),
        };
        self.traffic.connections_ended.get_or_create(&labels).inc();
    }
}
