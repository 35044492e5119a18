//! Faults in what is sent with an open.

use std::{
    mem::take,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use bytes::Bytes;
use tunnel_core::{Connection, ConnectionStats, Duplex, OpenError, SendError, SendStream, StreamHead};

use crate::{
    fault::Fault,
    halves::{FaultyTx, TxFault},
};

#[derive(Debug)]
pub(crate) struct Lost;

#[async_trait]
impl Fault for Lost {
    async fn open(
        &self,
        connection: &Arc<dyn Connection>,
        head: StreamHead,
        early: &mut Bytes,
    ) -> Result<Duplex, OpenError> {
        early.clear();
        connection.open(head).await
    }
}

/// With the open, and once more when it has succeeded.
#[derive(Debug)]
pub(crate) struct SentTwice;

#[async_trait]
impl Fault for SentTwice {
    async fn open(
        &self,
        connection: &Arc<dyn Connection>,
        head: StreamHead,
        early: &mut Bytes,
    ) -> Result<Duplex, OpenError> {
        let again = early.clone();
        let mut stream = connection.open_with(head, early).await?;
        let _sent = stream.tx.send_all(again).await;
        Ok(stream)
    }
}

#[derive(Debug)]
pub(crate) struct SentAndLeft;

#[async_trait]
impl Fault for SentAndLeft {
    async fn open(
        &self,
        connection: &Arc<dyn Connection>,
        head: StreamHead,
        early: &mut Bytes,
    ) -> Result<Duplex, OpenError> {
        connection.open_with(head, &mut early.clone()).await
    }
}

/// Behind everything else.
#[derive(Debug)]
pub(crate) struct SentLast;

#[async_trait]
impl Fault for SentLast {
    async fn open(
        &self,
        connection: &Arc<dyn Connection>,
        head: StreamHead,
        early: &mut Bytes,
    ) -> Result<Duplex, OpenError> {
        let held = take(early);
        let Duplex { tx, rx } = connection.open(head).await?;
        let tx = FaultyTx::wrap(tx, SendsAtTheEnd(held));
        Ok(Duplex { tx, rx })
    }
}

#[derive(Debug)]
struct SendsAtTheEnd(Bytes);

impl TxFault for SendsAtTheEnd {
    fn poll_finish(&mut self, tx: &mut dyn SendStream, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        while !self.0.is_empty() {
            ready!(tx.poll_send(cx, &mut self.0))?;
        }
        tx.poll_finish(cx)
    }
}

#[derive(Debug, Default)]
pub(crate) struct NotCounted(AtomicU64);

#[async_trait]
impl Fault for NotCounted {
    async fn open(
        &self,
        connection: &Arc<dyn Connection>,
        head: StreamHead,
        early: &mut Bytes,
    ) -> Result<Duplex, OpenError> {
        let offered = early.len();
        let opened = connection.open_with(head, early).await;
        self.0.fetch_add((offered - early.len()) as u64, Ordering::Relaxed);
        opened
    }

    fn stats(&self, connection: &dyn Connection) -> ConnectionStats {
        let mut stats = connection.stats();
        stats.bytes_sent = stats.bytes_sent.saturating_sub(self.0.load(Ordering::Relaxed));
        stats
    }
}
