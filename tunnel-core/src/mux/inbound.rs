//! A stream that the peer opens.

use std::{future::poll_fn, sync::Arc};

use async_trait::async_trait;
use tunnel_proto::{Answer, Refusal, RefusalKind, StreamCode, StreamHead, mux::StreamId};

use super::{recv::RecvHalf, send::SendHalf, shared::Shared};
use crate::{carrier::Inbound, error::OpenError, stream::Duplex};

/// A stream that the peer has opened and that waits for an answer.
#[derive(Debug)]
pub(super) struct LinkInbound {
    shared: Arc<Shared>,
    id: StreamId,
    head: Box<StreamHead>,
    /// Until it is answered.
    halves: Option<(SendHalf, RecvHalf)>,
}

impl LinkInbound {
    /// Takes charge of a stream that came.
    pub(super) fn new(shared: &Arc<Shared>, id: StreamId, head: Box<StreamHead>) -> Self {
        let tx = SendHalf::new(Arc::clone(shared), id);
        let rx = RecvHalf::new(Arc::clone(shared), id);
        Self {
            shared: Arc::clone(shared),
            id,
            head,
            halves: Some((tx, rx)),
        }
    }

    fn answer_no(&mut self, refusal: Refusal) {
        if let Some(halves) = self.halves.take() {
            // It fails when nobody waits for the answer any more.
            let _ = self
                .shared
                .visit(|state| state.answer(self.id, &Answer::Refused(refusal)));
            drop(halves);
        }
    }
}

#[async_trait]
impl Inbound for LinkInbound {
    fn head(&self) -> &StreamHead {
        &self.head
    }

    async fn cancelled(&mut self) {
        poll_fn(|cx| self.shared.visit(|state| state.poll_cancelled(cx, self.id))).await;
    }

    async fn accept(mut self: Box<Self>) -> Result<Duplex, OpenError> {
        let Some((tx, rx)) = self.halves.take() else {
            return Err(OpenError::Reset(StreamCode::INTERNAL));
        };
        self.shared.visit(|state| state.answer(self.id, &Answer::Accepted))?;
        Ok(Duplex {
            tx: Box::new(tx),
            rx: Box::new(rx),
        })
    }

    fn refuse(mut self: Box<Self>, refusal: Refusal) {
        self.answer_no(refusal);
    }
}

impl Drop for LinkInbound {
    fn drop(&mut self) {
        self.answer_no(Refusal::new(
            RefusalKind::ProxyInternalError,
            "the stream was given up without an answer",
        ));
    }
}
