//! A connection that both ends have agreed on.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Mutex, mpsc};
use tunnel_core::{
    Capabilities, CloseCode, Connection, ConnectionError, ConnectionStats, Duplex, Inbound, OpenError, Peer, StreamHead,
};

use crate::{
    attend::attend,
    config::QuicConfig,
    control::{self, Control},
    inbound::{QuicInbound, accept_streams},
    opening, pressure,
    reports::PortReports,
    shared::Shared,
};

/// A connection after its welcome.
///
/// Tasks of its own take the peer's streams and serve the control stream; they end with the connection, which ends
/// at the latest when this handle is dropped.
pub(crate) struct QuicConnection {
    shared: Arc<Shared>,
    peer: Peer,
    inbounds: Mutex<mpsc::Receiver<QuicInbound>>,
}

impl QuicConnection {
    pub(crate) fn start(
        quic: quinn::Connection,
        config: &Arc<QuicConfig>,
        control: Control,
        peer: Peer,
        reports: PortReports,
    ) -> Arc<dyn Connection> {
        let shared = Shared::new(quic, Arc::clone(config));
        let inbounds = accept_streams(&shared);
        control::serve(&shared, control);
        tokio::spawn(attend(Arc::clone(&shared), reports));
        if shared.readers.is_some() {
            tokio::spawn(pressure::keep_room(Arc::clone(&shared)));
        }
        Arc::new(Self {
            shared,
            peer,
            inbounds: Mutex::new(inbounds),
        })
    }
}

#[async_trait]
impl Connection for QuicConnection {
    async fn open_with(&self, head: StreamHead, early: &mut Bytes) -> Result<Duplex, OpenError> {
        opening::open(&self.shared, head, early).await
    }

    async fn accept(&self) -> Result<Box<dyn Inbound>, ConnectionError> {
        let next = async { self.inbounds.lock().await.recv().await };
        tokio::select! {
            biased;
            error = self.shared.closed() => Err(error),
            inbound = next => match inbound {
                Some(inbound) => Ok(Box::new(inbound)),
                None => Err(self.shared.closed().await),
            },
        }
    }

    async fn draining(&self) {
        tokio::select! {
            () = self.shared.drained_so_that(|draining| draining.any()) => {}
            // Not before its end can be told from a drain.
            _ = self.shared.closed() => {}
        }
    }

    async fn closed(&self) -> ConnectionError {
        self.shared.closed().await
    }

    fn close(&self, code: CloseCode, reason: &str) {
        self.shared.close(code, reason);
    }

    fn drain(&self) {
        self.shared.drain(|draining| draining.local = true);
    }

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::NATIVE
    }

    /// `credit_outstanding` is none: quinn does not tell.
    fn stats(&self) -> ConnectionStats {
        let counters = &self.shared.counters;
        let mut stats = ConnectionStats::default();
        stats.bytes_sent = counters.bytes_sent.load(Ordering::Relaxed);
        stats.bytes_received = counters.bytes_received.load(Ordering::Relaxed);
        // Nothing is open in a connection that has ended, though halves of it may be held still.
        stats.streams_open = match self.shared.quic.close_reason() {
            None => counters.open.load(Ordering::SeqCst),
            Some(_) => 0,
        };
        stats.streams_opened = counters.opened.load(Ordering::Relaxed);
        stats.streams_accepted = counters.accepted.load(Ordering::Relaxed);
        stats.rtt = Some(self.shared.quic.rtt());
        stats
    }
}

impl Drop for QuicConnection {
    fn drop(&mut self) {
        self.shared.close(CloseCode::DONE, "");
    }
}

impl fmt::Debug for QuicConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicConnection")
            .field("peer", &self.peer)
            .field("ended", &self.shared.ended())
            .finish_non_exhaustive()
    }
}
