//! A stream that waits for an answer.

use std::{future::poll_fn, sync::Arc, task::Poll};

use async_trait::async_trait;
use tunnel_core::{Duplex, Inbound, OpenError, Refusal, RefusalKind, StreamCode, StreamHead};

use super::{
    half::{MemoryRecv, MemorySend},
    link::Link,
    pipe::{pend, wake},
    state::StreamId,
};
use crate::Side;

/// A stream that the peer has opened and that waits for an answer.
#[derive(Debug)]
pub(super) struct MemoryInbound {
    link: Arc<Link>,
    side: Side,
    id: StreamId,
    head: StreamHead,
    /// Until the stream is answered.
    halves: Option<(MemorySend, MemoryRecv)>,
}

impl MemoryInbound {
    pub(super) fn new(
        link: Arc<Link>,
        side: Side,
        id: StreamId,
        head: StreamHead,
        tx: MemorySend,
        rx: MemoryRecv,
    ) -> Self {
        let halves = Some((tx, rx));
        Self {
            link,
            side,
            id,
            head,
            halves,
        }
    }

    fn answer(&mut self, refusal: Refusal) {
        let Some(halves) = self.halves.take() else {
            return;
        };
        if let Some(stream) = self.link.lock().stream(self.id) {
            stream.answer = Some(Err(refusal));
            wake(&mut stream.answer_waiter);
        }
        // Dropping the halves ends the stream, which the opener takes for the refusal that is there already.
        drop(halves);
    }
}

#[async_trait]
impl Inbound for MemoryInbound {
    fn head(&self) -> &StreamHead {
        &self.head
    }

    async fn cancelled(&mut self) {
        poll_fn(|cx| {
            let mut state = self.link.lock();
            if state.end(self.side).ended.is_some() {
                return Poll::Ready(());
            }
            let up = state.is_up();
            match state.stream(self.id) {
                Some(stream) if !(up && stream.given_up().is_some()) => pend(&mut stream.cancel_waiter, cx),
                _ => Poll::Ready(()),
            }
        })
        .await;
    }

    async fn accept(mut self: Box<Self>) -> Result<Duplex, OpenError> {
        let mut state = self.link.lock();
        let up = state.is_up();
        if let Some(error) = state.end(self.side).ended.clone() {
            return Err(OpenError::Connection(error));
        }
        let Some(stream) = state.stream(self.id) else {
            return Err(OpenError::Reset(StreamCode::CANCELLED));
        };
        if let Some(code) = stream.given_up().filter(|_| up) {
            return Err(OpenError::Reset(code));
        }
        stream.answer = Some(Ok(()));
        wake(&mut stream.answer_waiter);
        state.end(self.side).streams_accepted += 1;
        drop(state);
        match self.halves.take() {
            Some((tx, rx)) => Ok(Duplex {
                tx: Box::new(tx),
                rx: Box::new(rx),
            }),
            None => Err(OpenError::Reset(StreamCode::INTERNAL)),
        }
    }

    fn refuse(mut self: Box<Self>, refusal: Refusal) {
        self.answer(refusal);
    }
}

impl Drop for MemoryInbound {
    fn drop(&mut self) {
        let text = "the stream was dropped without an answer";
        self.answer(Refusal::new(RefusalKind::ProxyInternalError, text));
    }
}
