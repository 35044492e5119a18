//! The two halves of a stream.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tunnel_core::{RecvError, RecvStream, SendError, SendStream, StreamCode};

use super::{
    link::Link,
    pipe::End,
    state::{State, Stream, StreamId},
};
use crate::Side;

/// One side's hold on a stream. While it lives, the stream stays known.
#[derive(Debug)]
struct Hold {
    link: Arc<Link>,
    side: Side,
    id: StreamId,
}

impl Hold {
    fn new(link: &Arc<Link>, state: &mut State, side: Side, id: StreamId) -> Self {
        if let Some(stream) = state.stream(id) {
            stream.halves += 1;
        }
        let link = link.clone();
        Self { link, side, id }
    }

    /// Ends a direction of the stream, and lets the connection draw the consequences. Nothing reaches the peer when the
    /// connection has ended.
    fn end(&self, end: impl FnOnce(&mut Stream)) {
        let mut state = self.link.lock();
        let has_ended = state.end(self.side).ended.is_some();
        if let Some(stream) = state.stream(self.id).filter(|_| !has_ended) {
            end(stream);
        }
        state.settle(self.id);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.link.lock();
        if let Some(stream) = state.stream(self.id) {
            stream.halves -= 1;
        }
        state.settle(self.id);
    }
}

/// Makes the halves of a stream for one side.
pub(super) fn halves(link: &Arc<Link>, state: &mut State, side: Side, id: StreamId) -> (MemorySend, MemoryRecv) {
    let tx = Hold::new(link, state, side, id);
    let rx = Hold::new(link, state, side, id);
    (MemorySend(tx), MemoryRecv(rx))
}

/// The sending half.
#[derive(Debug)]
pub(super) struct MemorySend(Hold);

impl SendStream for MemorySend {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize, SendError>> {
        let Hold { link, side, id } = &self.0;
        let mut state = link.lock();
        if let Some(error) = state.end(*side).ended.clone() {
            return Poll::Ready(Err(SendError::Connection(error)));
        }
        let up = state.is_up();
        let Some(stream) = state.stream(*id) else {
            return Poll::Ready(Err(SendError::Finished));
        };
        let pipe = stream.pipe(*side);
        let queued = pipe.queued();
        let sent = pipe.poll_send(cx, data, up);
        if let Poll::Ready(Ok(sent)) = sent {
            state.end(*side).bytes_sent += sent as u64;
            if queued == 0 && sent > 0 {
                state.queue(*side, *id);
            }
            if !state.is_slow() {
                state.carry();
            }
        }
        sent
    }

    /// It does not know.
    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        Poll::Ready(Ok(usize::MAX))
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        // What is queued moves on by itself; only the fate of the stream is left to tell.
        let Hold { link, side, id } = &self.0;
        let mut state = link.lock();
        let up = state.is_up();
        let ended = state.end(*side).ended.clone();
        let end = state.stream(*id).map(|stream| stream.pipe(*side).end());
        Poll::Ready(match (ended, end) {
            (Some(error), _) => Err(SendError::Connection(error)),
            (None, Some(End::Reset(code))) => Err(SendError::Reset(code)),
            (None, Some(End::Stopped(code))) if up => Err(SendError::Stopped(code)),
            (None, _) => Ok(()),
        })
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let Hold { link, side, id } = &self.0;
        let mut state = link.lock();
        let (up, ended) = (state.is_up(), state.end(*side).ended.clone());
        let Some(stream) = state.stream(*id) else {
            return Poll::Ready(Err(SendError::Finished));
        };
        let pipe = stream.pipe(*side);
        Poll::Ready(match (pipe.end(), ended) {
            (End::Finished | End::Complete, _) => Ok(()),
            (_, Some(error)) => Err(SendError::Connection(error)),
            (_, None) => pipe.finish(up),
        })
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Result<StreamCode, SendError>> {
        let Hold { link, side, id } = &self.0;
        let mut state = link.lock();
        if let Some(error) = state.end(*side).ended.clone() {
            return Poll::Ready(Err(SendError::Connection(error)));
        }
        let up = state.is_up();
        match state.stream(*id) {
            Some(stream) => stream.pipe(*side).poll_stopped(cx, up),
            None => Poll::Ready(Err(SendError::Finished)),
        }
    }

    fn reset(&mut self, code: StreamCode) {
        let side = self.0.side;
        self.0.end(|stream| stream.reset(side, code));
    }
}

impl Drop for MemorySend {
    fn drop(&mut self) {
        let side = self.0.side;
        self.0.end(|stream| {
            if stream.pipe(side).end() == End::Open {
                stream.reset(side, StreamCode::CANCELLED);
            }
        });
    }
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct MemoryRecv(Hold);

impl RecvStream for MemoryRecv {
    fn poll_recv(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, RecvError>> {
        let Hold { link, side, id } = &self.0;
        let mut state = link.lock();
        let (up, ended) = (state.is_up(), state.end(*side).ended.clone());
        let Some(stream) = state.stream(*id) else {
            return Poll::Ready(Ok(None));
        };
        let received = stream.pipe(side.peer()).poll_recv(cx, max, up);
        match (&received, ended) {
            (Poll::Ready(Ok(Some(bytes))), _) => state.end(*side).bytes_received += bytes.len() as u64,
            (Poll::Ready(Ok(None)), _) => state.settle(*id),
            // What had arrived before the connection ended was given first.
            (Poll::Pending, Some(error)) => return Poll::Ready(Err(RecvError::Connection(error))),
            _ => {}
        }
        received
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<RecvError> {
        let Hold { link, side, id } = &self.0;
        let mut state = link.lock();
        let up = state.is_up();
        match state.stream(*id) {
            Some(stream) => stream.pipe(side.peer()).poll_reset(cx, up),
            None => Poll::Pending,
        }
    }

    fn stop(&mut self, code: StreamCode) {
        let peer = self.0.side.peer();
        self.0.end(|stream| stream.pipe(peer).stop(code));
    }
}

impl Drop for MemoryRecv {
    fn drop(&mut self) {
        let peer = self.0.side.peer();
        self.0.end(|stream| stream.pipe(peer).stop(StreamCode::CANCELLED));
    }
}
