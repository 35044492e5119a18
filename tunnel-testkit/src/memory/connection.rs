//! One end of a connection.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{select, sync::OwnedSemaphorePermit};
use tunnel_core::{
    Capabilities, CloseCode, Connection, ConnectionError, ConnectionStats, Duplex, Inbound, OpenError, Peer,
    SendStream, StreamHead,
};

use super::{half::halves, inbound::MemoryInbound, link::Link, pipe::pend, state::StreamId};
use crate::Side;

/// One end of a connection over memory.
#[derive(Debug)]
pub struct MemoryConnection {
    link: Arc<Link>,
    side: Side,
    peer: Peer,
}

impl MemoryConnection {
    pub(super) fn new(link: Arc<Link>, side: Side, peer: Peer) -> Self {
        Self { link, side, peer }
    }

    /// Waits for a place under the peer's stream limit.
    async fn place(&self) -> Result<OwnedSemaphorePermit, OpenError> {
        let mut place = std::pin::pin!(self.link.places(self.side).clone().acquire_owned());
        loop {
            let changed = self.link.news.changed.notified();
            self.link.lock().may_open(self.side)?;
            select! {
                biased;
                place = &mut place => return place.map_err(|_closed| OpenError::Draining),
                () = changed => {}
            }
        }
    }

    /// Waits for the peer's answer.
    async fn answer(&self, id: StreamId) -> Result<(), OpenError> {
        poll_fn(|cx| {
            let mut state = self.link.lock();
            if let Some(error) = state.end(self.side).ended.clone() {
                return Poll::Ready(Err(OpenError::Connection(error)));
            }
            let up = state.is_up();
            let Some(stream) = state.stream(id) else {
                return Poll::Ready(Err(OpenError::Draining));
            };
            match &stream.answer {
                Some(Ok(())) if up => {
                    state.end(self.side).streams_opened += 1;
                    Poll::Ready(Ok(()))
                }
                Some(Err(refusal)) if up => Poll::Ready(Err(OpenError::Refused(refusal.clone()))),
                _ => pend(&mut stream.answer_waiter, cx),
            }
        })
        .await
    }
}

#[async_trait]
impl Connection for MemoryConnection {
    async fn open_with(&self, head: StreamHead, early: &mut Bytes) -> Result<Duplex, OpenError> {
        let place = self.place().await?;
        // The halves are made before the answer, so that dropping the future resets and stops the stream.
        let (id, mut tx, rx) = {
            let mut state = self.link.lock();
            let id = state.open(self.side, head, place)?;
            let (tx, rx) = halves(&self.link, &mut state, self.side, id);
            (id, tx, rx)
        };
        // What there is no credit for is left to the caller.
        let _ = tx.poll_send(&mut Context::from_waker(Waker::noop()), early);
        self.answer(id).await?;
        let (tx, rx) = (Box::new(tx), Box::new(rx));
        Ok(Duplex { tx, rx })
    }

    async fn accept(&self) -> Result<Box<dyn Inbound>, ConnectionError> {
        loop {
            let news = self.link.news.inbound.notified();
            {
                let mut state = self.link.lock();
                if let Some(error) = state.end(self.side).ended.clone() {
                    return Err(error);
                }
                if let Some((id, head)) = state.next_inbound(self.side) {
                    let (tx, rx) = halves(&self.link, &mut state, self.side, id);
                    return Ok(Box::new(MemoryInbound::new(
                        self.link.clone(),
                        self.side,
                        id,
                        head,
                        tx,
                        rx,
                    )));
                }
            }
            news.await;
        }
    }

    async fn draining(&self) {
        loop {
            let changed = self.link.news.changed.notified();
            if self.link.lock().may_open(self.side).is_err() {
                return;
            }
            changed.await;
        }
    }

    async fn closed(&self) -> ConnectionError {
        loop {
            let changed = self.link.news.changed.notified();
            if let Some(error) = self.link.lock().end(self.side).ended.clone() {
                return error;
            }
            changed.await;
        }
    }

    fn close(&self, code: CloseCode, reason: &str) {
        self.link.lock().close(self.side, code, reason);
    }

    fn drain(&self) {
        self.link.lock().drain(self.side);
    }

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::NATIVE
    }

    fn stats(&self) -> ConnectionStats {
        let places = self.link.places(self.side.peer()).available_permits();
        let mut state = self.link.lock();
        let mut stats = ConnectionStats::default();
        stats.streams_open = state.open_streams(self.side) as u64;
        stats.credit_outstanding = Some(state.credit(self.side, places) as u64);
        let end = state.end(self.side);
        stats.bytes_sent = end.bytes_sent;
        stats.bytes_received = end.bytes_received;
        stats.streams_opened = end.streams_opened;
        stats.streams_accepted = end.streams_accepted;
        stats
    }
}

impl Drop for MemoryConnection {
    fn drop(&mut self) {
        self.close(CloseCode::DONE, "");
    }
}
