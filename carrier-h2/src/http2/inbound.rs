//! Streams that the peer opens.

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

use async_trait::async_trait;
use tokio::sync::OwnedSemaphorePermit;
use tunnel_core::{Duplex, Inbound, OpenError, Refusal, RefusalKind, StreamHead};

use super::{
    halves::duplex,
    stream::{Plan, Stream, Tx},
};

/// A stream that the peer has opened and that waits for an answer.
pub(crate) struct H2Inbound {
    head: StreamHead,
    /// Until it is answered.
    stream: Option<Arc<Stream>>,
}

impl H2Inbound {
    pub(crate) fn new(head: StreamHead, stream: Arc<Stream>) -> Self {
        Self {
            head,
            stream: Some(stream),
        }
    }

    /// Whether the opener has given it up.
    pub(crate) fn is_given_up(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.lock().tx != Tx::Open)
    }

    /// Gives it a place under the limit.
    pub(crate) fn place(self, place: Option<OwnedSemaphorePermit>) -> Self {
        if let Some(stream) = &self.stream
            && let Some(ticket) = &mut stream.lock().ticket
        {
            ticket.place = place;
        }
        self
    }

    fn answer(&mut self, plan: Plan) -> Option<Arc<Stream>> {
        let stream = self.stream.take()?;
        stream.lock().plan = plan;
        stream.post();
        Some(stream)
    }

    fn answer_no(&mut self, refusal: Refusal) {
        if let Some(stream) = self.answer(Plan::Refuse(refusal)) {
            // Both halves end with the answer, with nothing further to say.
            drop(duplex(&stream));
        }
    }
}

#[async_trait]
impl Inbound for H2Inbound {
    fn head(&self) -> &StreamHead {
        &self.head
    }

    async fn cancelled(&mut self) {
        let Some(stream) = &self.stream else { return };
        poll_fn(|cx| {
            let mut state = stream.lock();
            if state.tx != Tx::Open || stream.hub.ended().is_some() {
                return Poll::Ready(());
            }
            state.wakers.stopped = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn accept(mut self: Box<Self>) -> Result<Duplex, OpenError> {
        let Some(stream) = self.answer(Plan::Accept) else {
            return Err(OpenError::Reset(tunnel_core::StreamCode::INTERNAL));
        };
        let halves = duplex(&stream);
        if let Some(error) = stream.hub.ended() {
            return Err(OpenError::Connection(error));
        }
        stream.hub.counters.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(halves)
    }

    fn refuse(mut self: Box<Self>, refusal: Refusal) {
        self.answer_no(refusal);
    }
}

impl Drop for H2Inbound {
    fn drop(&mut self) {
        self.answer_no(Refusal::new(
            RefusalKind::ProxyInternalError,
            "the stream was given up without an answer",
        ));
    }
}

impl fmt::Debug for H2Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H2Inbound")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}
