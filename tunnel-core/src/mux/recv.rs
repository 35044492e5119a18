//! The receiving half of a stream.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::task::coop::poll_proceed;
use tunnel_proto::{
    StreamCode,
    mux::{ReadError, StreamId},
};

use super::{
    shared::Shared,
    state::{State, now},
    waiting::On,
};
use crate::{error::RecvError, stream::RecvStream};

/// The receiving half of a stream. The machine knows its state; dropping it stops what has not ended.
pub(super) struct RecvHalf {
    shared: Arc<Shared>,
    id: StreamId,
}

impl RecvHalf {
    /// Takes charge of the receiving half of a stream that is open.
    pub(super) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self { shared, id }
    }
}

impl State {
    pub(super) fn poll_recv(
        &mut self,
        cx: &Context<'_>,
        id: StreamId,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, RecvError>> {
        match self.mux.read(now(), id, max) {
            Ok(bytes) => Poll::Ready(Ok(bytes)),
            Err(ReadError::Blocked) => self.waiting.wait(id, On::Recv, cx),
            Err(error) => Poll::Ready(Err(self.recv_error(error))),
        }
    }

    pub(super) fn poll_reset(&mut self, cx: &Context<'_>, id: StreamId) -> Poll<RecvError> {
        match self.mux.recv_ended(id) {
            Some(error @ (ReadError::Reset(_) | ReadError::Stopped(_))) => Poll::Ready(self.recv_error(error)),
            _ => self.waiting.wait(id, On::Recv, cx),
        }
    }

    fn recv_error(&self, error: ReadError) -> RecvError {
        match error {
            ReadError::Reset(code) => RecvError::Reset(code),
            ReadError::Stopped(code) => RecvError::Stopped(code),
            _ => RecvError::Connection(self.error()),
        }
    }
}

impl RecvStream for RecvHalf {
    fn poll_recv(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, RecvError>> {
        let progress = ready!(poll_proceed(cx));
        let received = ready!(self.shared.visit(|state| state.poll_recv(cx, self.id, max)));
        progress.made_progress();
        Poll::Ready(received)
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<RecvError> {
        self.shared.visit(|state| state.poll_reset(cx, self.id))
    }

    fn stop(&mut self, code: StreamCode) {
        self.shared.visit(|state| state.mux.stop(now(), self.id, code));
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.shared.visit(|state| state.release_recv(self.id));
    }
}

impl fmt::Debug for RecvHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvHalf")
            .field("stream", &self.id)
            .finish_non_exhaustive()
    }
}
