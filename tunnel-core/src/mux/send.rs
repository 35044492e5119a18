//! The sending half of a stream.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::task::coop::poll_proceed;
use tunnel_proto::{
    StreamCode,
    mux::{StreamId, WriteError},
};

use super::{
    shared::Shared,
    state::{State, now},
    waiting::On,
};
use crate::{error::SendError, stream::SendStream};

/// The sending half of a stream. The machine knows its state; dropping it gives up what was not finished.
pub(super) struct SendHalf {
    shared: Arc<Shared>,
    id: StreamId,
    /// Whether and how this end has ended it.
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Finished,
    Reset(StreamCode),
}

impl SendHalf {
    /// Takes charge of the sending half of a stream that is open.
    pub(super) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self { shared, id, end: None }
    }
}

impl State {
    pub(super) fn poll_send(
        &mut self,
        cx: &Context<'_>,
        id: StreamId,
        data: &mut Bytes,
    ) -> Poll<Result<usize, SendError>> {
        match self.mux.write(now(), id, data) {
            Ok(taken) => Poll::Ready(Ok(taken)),
            Err(WriteError::Blocked) => self.waiting.wait(id, On::Send, cx),
            Err(error) => Poll::Ready(Err(self.send_error(error))),
        }
    }

    pub(super) fn poll_room(&mut self, cx: &Context<'_>, id: StreamId) -> Poll<Result<usize, SendError>> {
        match self.mux.room(id) {
            Ok(room) => Poll::Ready(Ok(room)),
            Err(WriteError::Blocked) => self.waiting.wait(id, On::Send, cx),
            Err(error) => Poll::Ready(Err(self.send_error(error))),
        }
    }

    pub(super) fn poll_stopped(&mut self, cx: &Context<'_>, id: StreamId) -> Poll<Result<StreamCode, SendError>> {
        if let Some(code) = self.mux.send_stopped(id) {
            return Poll::Ready(Ok(code));
        }
        match self.ended() {
            Some(error) => Poll::Ready(Err(SendError::Connection(error))),
            None => self.waiting.wait(id, On::Stop, cx),
        }
    }

    fn send_error(&self, error: WriteError) -> SendError {
        match error {
            WriteError::Finished => SendError::Finished,
            WriteError::Reset(code) => SendError::Reset(code),
            WriteError::Stopped(code) => SendError::Stopped(code),
            _ => SendError::Connection(self.error()),
        }
    }
}

impl SendStream for SendHalf {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize, SendError>> {
        let progress = ready!(poll_proceed(cx));
        let sent = ready!(self.shared.visit(|state| state.poll_send(cx, self.id, data)));
        progress.made_progress();
        Poll::Ready(sent)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        self.shared.visit(|state| state.poll_room(cx, self.id))
    }

    /// The driver sends what is queued.
    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let state = self.shared.lock();
        Poll::Ready(match (self.end, state.mux.send_stopped(self.id), state.ended()) {
            (Some(End::Reset(code)), _, _) => Err(SendError::Reset(code)),
            (_, Some(code), _) => Err(SendError::Stopped(code)),
            (None, None, Some(error)) => Err(SendError::Connection(error)),
            _ => Ok(()),
        })
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        if self.end == Some(End::Finished) {
            return Poll::Ready(Ok(()));
        }
        let finished = self.shared.visit(|state| {
            let finished = state.mux.finish(now(), self.id);
            finished.map_err(|error| state.send_error(error))
        });
        if finished.is_ok() {
            self.end = Some(End::Finished);
        }
        Poll::Ready(finished)
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Result<StreamCode, SendError>> {
        if let Some(End::Reset(code)) = self.end {
            return Poll::Ready(Err(SendError::Reset(code)));
        }
        self.shared.visit(|state| state.poll_stopped(cx, self.id))
    }

    fn reset(&mut self, code: StreamCode) {
        if matches!(self.end, Some(End::Reset(_))) {
            return;
        }
        let stopped = self.shared.visit(|state| {
            state.mux.reset(now(), self.id, code);
            state.mux.send_stopped(self.id)
        });
        if stopped.is_none() {
            self.end = Some(End::Reset(code));
        }
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.shared.visit(|state| state.release_send(self.id));
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendHalf")
            .field("stream", &self.id)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
