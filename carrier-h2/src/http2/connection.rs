//! A connection that both ends have agreed on.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tunnel_core::{
    Capabilities, CloseCode, Connection, ConnectionError, ConnectionStats, Duplex, Inbound, Messages, OpenError,
    Openers, Peer, PeerRole, StreamHead,
};

use super::{hub::Hub, opening};

/// A connection after its welcome. The driver ends at most a second after it.
pub(crate) struct H2Connection {
    pub(crate) hub: Arc<Hub>,
    pub(crate) peer: Peer,
    pub(crate) capabilities: Capabilities,
}

#[async_trait]
impl Connection for H2Connection {
    async fn open_with(&self, head: StreamHead, early: &mut Bytes) -> Result<Duplex, OpenError> {
        let is_server = matches!(self.peer.role, PeerRole::Agent(_));
        if self.capabilities.openers == Openers::ServerOnly && !is_server {
            return Err(OpenError::Unsupported(self.peer.carrier));
        }
        let may_precede = self.capabilities.messages == Messages::Own;
        // RFC 9113 §8.5 gives DATA no meaning before the 2xx, and programs of others are known to refuse it.
        let mut none = Bytes::new();
        opening::open(&self.hub, head, if may_precede { early } else { &mut none }).await
    }

    async fn accept(&self) -> Result<Box<dyn Inbound>, ConnectionError> {
        tokio::select! {
            biased;
            error = self.hub.closed() => Err(error),
            (inbound, place) = self.hub.arrivals.next() => Ok(Box::new(inbound.place(place))),
        }
    }

    async fn draining(&self) {
        self.hub.drained_or_ended().await;
        if !self.hub.draining().any() {
            // Not before its end can be told from a drain.
            self.hub.closed().await;
        }
    }

    async fn closed(&self) -> ConnectionError {
        self.hub.closed().await
    }

    fn close(&self, code: CloseCode, reason: &str) {
        self.hub.close(code, reason);
    }

    fn drain(&self) {
        self.hub.drain(|draining| draining.local = true);
    }

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// `credit_outstanding` is none: h2 does not tell.
    fn stats(&self) -> ConnectionStats {
        let counters = &self.hub.counters;
        let mut stats = ConnectionStats::default();
        stats.bytes_sent = counters.bytes_sent.load(Ordering::Relaxed);
        stats.bytes_received = counters.bytes_received.load(Ordering::Relaxed);
        // Nothing is open in a connection that has ended, though halves of it may be held still.
        stats.streams_open = if self.hub.ended().is_none() { self.hub.open() } else { 0 };
        stats.streams_opened = counters.opened.load(Ordering::Relaxed);
        stats.streams_accepted = counters.accepted.load(Ordering::Relaxed);
        let round_trip = counters.round_trip.load(Ordering::Relaxed);
        stats.rtt = (round_trip > 0).then(|| Duration::from_nanos(round_trip));
        stats
    }
}

impl Drop for H2Connection {
    fn drop(&mut self) {
        self.hub.close(CloseCode::DONE, "");
    }
}

impl fmt::Debug for H2Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H2Connection")
            .field("peer", &self.peer)
            .field("ended", &self.hub.ended())
            .finish_non_exhaustive()
    }
}
