//! Streams as an agent counts them.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tunnel_proto::{Refusal, StreamCode, StreamHead};

use super::metrics::{AgentMetrics, KindLabels};
use crate::{
    carrier::Inbound,
    error::{OpenError, RecvError, SendError},
    metrics::{Counted, CountedStream},
    stream::{Duplex, RecvStream, SendStream},
};

/// Counts a stream as open until both its halves are dropped, and its bytes as they pass.
pub(super) fn counted(metrics: &AgentMetrics, opener: &'static str, stream: Duplex) -> Duplex {
    let counted = Arc::new(metrics.traffic.stream(opener));
    Duplex {
        tx: Box::new(CountedSend {
            tx: stream.tx,
            counted: Arc::clone(&counted),
        }),
        rx: Box::new(CountedRecv { rx: stream.rx, counted }),
    }
}

struct CountedSend {
    tx: Box<dyn SendStream>,
    counted: Arc<CountedStream>,
}

impl SendStream for CountedSend {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize, SendError>> {
        let polled = self.tx.poll_send(cx, data);
        if let Poll::Ready(Ok(sent)) = polled {
            self.counted.sent.inc_by(sent as u64);
        }
        polled
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        self.tx.poll_room(cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.tx.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.tx.poll_finish(cx)
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Result<StreamCode, SendError>> {
        self.tx.poll_stopped(cx)
    }

    fn reset(&mut self, code: StreamCode) {
        self.tx.reset(code);
    }
}

impl fmt::Debug for CountedSend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tx.fmt(f)
    }
}

struct CountedRecv {
    rx: Box<dyn RecvStream>,
    counted: Arc<CountedStream>,
}

impl RecvStream for CountedRecv {
    fn poll_recv(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, RecvError>> {
        let polled = self.rx.poll_recv(cx, max);
        if let Poll::Ready(Ok(Some(bytes))) = &polled {
            self.counted.received.inc_by(bytes.len() as u64);
        }
        polled
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<RecvError> {
        self.rx.poll_reset(cx)
    }

    fn stop(&mut self, code: StreamCode) {
        self.rx.stop(code);
    }
}

impl fmt::Debug for CountedRecv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rx.fmt(f)
    }
}

/// A stream that a server opens. It holds its place among those that wait for an answer until it has one.
pub(super) struct Pending {
    inbound: Box<dyn Inbound>,
    metrics: AgentMetrics,
    _permit: OwnedSemaphorePermit,
    _place: Counted,
}

impl Pending {
    pub(super) fn new(inbound: Box<dyn Inbound>, metrics: AgentMetrics, permit: OwnedSemaphorePermit) -> Box<Self> {
        Box::new(Self {
            inbound,
            _place: Counted::in_gauge(&metrics.traffic.dials_pending),
            metrics,
            _permit: permit,
        })
    }
}

/// Refuses a stream and counts it.
pub(super) fn refuse(metrics: &AgentMetrics, inbound: Box<dyn Inbound>, refusal: Refusal) {
    let kind = refusal.kind.name();
    metrics.refusals.get_or_create(&KindLabels { kind }).inc();
    inbound.refuse(refusal);
}

#[async_trait]
impl Inbound for Pending {
    fn head(&self) -> &StreamHead {
        self.inbound.head()
    }

    async fn cancelled(&mut self) {
        self.inbound.cancelled().await;
    }

    async fn accept(self: Box<Self>) -> Result<Duplex, OpenError> {
        let stream = self.inbound.accept().await?;
        Ok(counted(&self.metrics, "server", stream))
    }

    fn refuse(self: Box<Self>, refusal: Refusal) {
        refuse(&self.metrics, self.inbound, refusal);
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inbound.fmt(f)
    }
}
