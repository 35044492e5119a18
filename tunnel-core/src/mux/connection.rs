//! A connection over a link.

use std::{fmt, future::poll_fn, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tunnel_proto::{CloseCode, StreamHead, Text};

use super::{inbound::LinkInbound, recv::RecvHalf, send::SendHalf, shared::Shared, state::now};
use crate::{
    carrier::{Capabilities, Connection, ConnectionStats, Inbound, Peer},
    error::{ConnectionError, OpenError},
    stream::Duplex,
};

/// The handle of a connection over a link. A task drives it, and ends with it.
pub(super) struct LinkConnection {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Peer,
}

#[async_trait]
impl Connection for LinkConnection {
    async fn open_with(&self, head: StreamHead, early: &mut Bytes) -> Result<Duplex, OpenError> {
        let turn = self.shared.turn.lock().await;
        let id = poll_fn(|cx| self.shared.visit(|state| state.poll_open(cx, &head, early))).await?;
        drop(turn);
        // From here on the halves give the stream up if this future is dropped.
        let tx = SendHalf::new(Arc::clone(&self.shared), id);
        let rx = RecvHalf::new(Arc::clone(&self.shared), id);
        drop(head);
        poll_fn(|cx| self.shared.visit(|state| state.poll_answer(cx, id))).await?;
        Ok(Duplex {
            tx: Box::new(tx),
            rx: Box::new(rx),
        })
    }

    async fn accept(&self) -> Result<Box<dyn Inbound>, ConnectionError> {
        // Closed when the connection ends.
        while let Ok(arrival) = self.shared.arrivals.acquire().await {
            arrival.forget();
            if let Some((id, head)) = self.shared.visit(|state| state.next_arrived()) {
                return Ok(Box::new(LinkInbound::new(&self.shared, id, head)));
            }
        }
        Err(self.shared.error())
    }

    async fn draining(&self) {
        tokio::select! {
            () = self.shared.draining.cancelled() => {}
            // Not before its end can be told from a drain.
            () = self.shared.told.cancelled() => {}
        }
    }

    /// Resolves when the peer has been told of a close by this end, or cannot be.
    async fn closed(&self) -> ConnectionError {
        self.shared.told.cancelled().await;
        self.shared.error()
    }

    fn close(&self, code: CloseCode, reason: &str) {
        self.shared.visit(|state| state.mux.close(now(), code, reason.into()));
    }

    fn drain(&self) {
        self.shared.visit(|state| state.mux.drain(now(), Text::default()));
    }

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::NATIVE
    }

    fn stats(&self) -> ConnectionStats {
        let mux = self.shared.lock().mux.stats();
        ConnectionStats {
            bytes_sent: mux.bytes_sent,
            bytes_received: mux.bytes_received,
            streams_open: mux.streams_open,
            streams_opened: mux.streams_opened,
            streams_accepted: mux.streams_accepted,
            rtt: mux.rtt,
            credit_outstanding: Some(mux.credit_outstanding),
        }
    }
}

impl Drop for LinkConnection {
    fn drop(&mut self) {
        self.close(CloseCode::DONE, "");
    }
}

impl fmt::Debug for LinkConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkConnection")
            .field("peer", &self.peer)
            .field("ended", &self.shared.lock().ended())
            .finish_non_exhaustive()
    }
}
