//! Faults in how streams are opened.

use std::{
    future::pending,
    mem::{forget, take},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{sync::oneshot, task::yield_now};
use tunnel_core::{
    Connection, ConnectionError, Duplex, Inbound, Metadata, OpenError, Refusal, RefusalKind, StreamHead,
};

use crate::fault::Fault;

#[derive(Debug)]
pub(crate) struct HeadWithoutMetadata;

#[async_trait]
impl Fault for HeadWithoutMetadata {
    async fn open(
        &self,
        connection: &Arc<dyn Connection>,
        mut head: StreamHead,
        early: &mut Bytes,
    ) -> Result<Duplex, OpenError> {
        head.metadata = Metadata::default();
        connection.open_with(head, early).await
    }
}

#[derive(Debug)]
pub(crate) struct RefusalWithoutText;

impl Fault for RefusalWithoutText {
    fn refuse(&self, inbound: Box<dyn Inbound>, refusal: Refusal) {
        inbound.refuse(Refusal::new(refusal.kind, ""));
    }
}

#[derive(Debug)]
pub(crate) struct RefusalOfAnotherKind;

impl Fault for RefusalOfAnotherKind {
    fn refuse(&self, inbound: Box<dyn Inbound>, mut refusal: Refusal) {
        refusal.kind = RefusalKind::ProxyInternalError;
        inbound.refuse(refusal);
    }
}

#[derive(Debug)]
pub(crate) struct RefusalThatOpens;

impl Fault for RefusalThatOpens {
    fn refuse(&self, inbound: Box<dyn Inbound>, _refusal: Refusal) {
        tokio::spawn(async move {
            let _stream = inbound.accept().await;
            pending::<()>().await;
        });
    }
}

/// Looks once more before it gives the stream away, and loses it if the caller has left.
#[derive(Debug)]
pub(crate) struct AcceptLosesStream;

#[async_trait]
impl Fault for AcceptLosesStream {
    async fn accept(&self, connection: &dyn Connection) -> Result<Box<dyn Inbound>, ConnectionError> {
        let inbound = connection.accept().await?;
        yield_now().await;
        Ok(inbound)
    }
}

/// Opens in a task that nobody ends.
#[derive(Debug)]
pub(crate) struct OpenLeaksStream;

#[async_trait]
impl Fault for OpenLeaksStream {
    async fn open(
        &self,
        connection: &Arc<dyn Connection>,
        head: StreamHead,
        early: &mut Bytes,
    ) -> Result<Duplex, OpenError> {
        let connection = Arc::clone(connection);
        let (sender, receiver) = oneshot::channel();
        let mut bytes = take(early);
        tokio::spawn(async move {
            let opened = connection.open_with(head, &mut bytes).await;
            if let Err(unwanted) = sender.send((opened, bytes)) {
                forget(unwanted);
            }
        });
        let (opened, left) = receiver.await.unwrap();
        *early = left;
        opened
    }
}

/// Keeps the stream when the future of its answer is dropped.
#[derive(Debug)]
pub(crate) struct AnswerLeavesOpenerWaiting;

#[async_trait]
impl Fault for AnswerLeavesOpenerWaiting {
    async fn answer(&self, inbound: Box<dyn Inbound>) -> Result<Duplex, OpenError> {
        let mut inbound = Forgotten(Some(inbound));
        yield_now().await;
        inbound.0.take().unwrap().accept().await
    }
}

#[derive(Debug)]
pub(crate) struct CancelUnnoticed;

#[async_trait]
impl Fault for CancelUnnoticed {
    async fn cancelled(&self, _inbound: &mut dyn Inbound) {
        pending().await
    }
}

/// A value that is never dropped.
#[derive(Debug)]
pub(crate) struct Forgotten<T>(pub(crate) Option<T>);

impl<T> Drop for Forgotten<T> {
    fn drop(&mut self) {
        forget(self.0.take());
    }
}
