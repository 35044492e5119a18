//! From the socket into the stream.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;

use super::{
    Socket,
    buffer::{MEDIUM, ReadBuffer},
    turn::Turn,
};
use crate::{error::SendError, stream::SendStream};

/// Moves what the socket gives into the stream, and its end as a clean end.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) tx: Box<dyn SendStream>,
    pub(super) buffer: ReadBuffer,
    /// Read and not yet taken by the stream.
    chunk: Bytes,
    unflushed: bool,
    /// Whether the socket has ended.
    at_end: bool,
    /// Whether the socket is known to be broken, so that its end means nothing.
    truncated: bool,
}

/// Why the direction ended early.
#[derive(Debug)]
pub(super) enum SendingError {
    Socket(io::Error),
    Stream(SendError),
}

impl From<SendError> for SendingError {
    fn from(error: SendError) -> Self {
        Self::Stream(error)
    }
}

impl Sending {
    pub(super) fn new(tx: Box<dyn SendStream>, early: Bytes) -> Self {
        Self {
            tx,
            buffer: ReadBuffer::default(),
            chunk: early,
            unflushed: false,
            at_end: false,
            truncated: false,
        }
    }

    /// What the socket still gives may go on, but its end, where there is no error left to tell, is no clean end.
    pub(super) fn truncate(&mut self) {
        self.truncated = true;
    }

    /// Ready when the clean end is queued behind every byte.
    pub(super) fn poll<S: Socket>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
        turn: &mut Turn,
    ) -> Poll<Result<(), SendingError>> {
        let moved = self.poll_move(cx, socket, turn);
        if moved.is_pending() && !turn.paused() && self.unflushed && self.tx.poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        moved
    }

    /// Reads what the socket gives and forgets it; ready at the socket's end, clean or not.
    pub(super) fn poll_discard<S: Socket>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
        turn: &mut Turn,
    ) -> Poll<()> {
        while !self.at_end && !turn.is_over() {
            match ready!(self.buffer.poll_read(cx, socket, MEDIUM)) {
                Ok(Some(bytes)) => turn.moved(bytes.len()),
                Ok(None) | Err(_) => self.at_end = true,
            }
        }
        if self.at_end { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_move<S: Socket>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
        turn: &mut Turn,
    ) -> Poll<Result<(), SendingError>> {
        while !self.at_end {
            if turn.is_over() {
                return Poll::Pending;
            }
            if self.chunk.is_empty() {
                match self.poll_chunk(cx, socket)? {
                    Poll::Ready(Some(chunk)) => self.chunk = chunk,
                    Poll::Ready(None) => self.at_end = true,
                    Poll::Pending => return self.poll_stopped(cx),
                }
            } else {
                turn.moved(ready!(self.tx.poll_send(cx, &mut self.chunk))?);
                self.unflushed = true;
            }
        }
        ready!(self.tx.poll_finish(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_chunk<S: Socket>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
    ) -> Poll<Result<Option<Bytes>, SendingError>> {
        ready!(self.buffer.poll_ready(cx, socket)).map_err(SendingError::Socket)?;
        let Poll::Ready(room) = self.tx.poll_room(cx)? else {
            self.buffer.rest();
            return Poll::Pending;
        };
        match ready!(self.buffer.poll_read(cx, socket, room)).map_err(SendingError::Socket)? {
            None if self.truncated => Poll::Ready(Err(SendingError::Socket(io::ErrorKind::ConnectionReset.into()))),
            chunk => Poll::Ready(Ok(chunk)),
        }
    }

    /// Whether the peer wants no more, which no send tells while the socket has nothing to send.
    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendingError>> {
        let code = ready!(self.tx.poll_stopped(cx))?;
        Poll::Ready(Err(SendError::Stopped(code).into()))
    }
}
