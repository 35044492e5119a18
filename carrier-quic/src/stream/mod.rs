//! The halves of a stream.

mod recv;
mod send;

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

pub(crate) use self::{
    recv::{RecvHalf, RecvSlot},
    send::SendHalf,
};
use crate::shared::{Shared, Ticket};

/// Both halves, before or after the preamble.
#[derive(Debug)]
pub(crate) struct Halves {
    pub(crate) tx: SendHalf,
    pub(crate) rx: RecvHalf,
}

impl Halves {
    pub(crate) fn new(shared: &Arc<Shared>, ticket: Ticket, tx: quinn::SendStream, rx: quinn::RecvStream) -> Self {
        let ticket = Arc::new(ticket);
        Self {
            tx: SendHalf::new(Arc::clone(shared), Arc::clone(&ticket), tx),
            rx: RecvHalf::new(Arc::clone(shared), ticket, rx),
        }
    }
}

/// Polls a future of quinn once and drops it. Those used so keep nothing of their own: the waker is registered under
/// the stream, and a pending one has done nothing else.
fn poll_once<F: Future>(cx: &mut Context<'_>, future: F) -> Poll<F::Output> {
    pin!(future).poll(cx)
}
