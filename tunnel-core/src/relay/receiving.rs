//! From the stream into the socket.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};

use super::{Socket, hold::Hold, turn::Turn};
use crate::{
    error::{ConnectionError, RecvError},
    stream::RecvStream,
};

/// The most that is taken from the stream ahead of the socket, in bytes.
pub(super) const QUEUE_BYTES: usize = 64 * 1024;
/// The most that is taken from the stream ahead of the socket, in chunks; also the most that one write gathers. A
/// carrier that receives packets gives a chunk for each.
const QUEUE_CHUNKS: usize = 64;

/// Moves what the stream gives into the socket, and its clean end as a shutdown.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) rx: Box<dyn RecvStream>,
    /// Taken from the stream and not yet written.
    queue: VecDeque<Bytes>,
    /// The bytes in the queue.
    queued: usize,
    unflushed: bool,
    /// Whether the stream has ended cleanly.
    at_end: bool,
    /// That the connection has ended, which comes behind what is queued. On the heap, for it is rare.
    lost: Option<Box<ConnectionError>>,
    /// What keeps the first bytes back.
    hold: Option<Hold>,
}

/// Why the direction ended early.
#[derive(Debug)]
pub(super) enum ReceivingError {
    Socket(io::Error),
    Stream(RecvError),
}

impl Receiving {
    pub(super) fn new(rx: Box<dyn RecvStream>, hold: Option<Hold>) -> Self {
        Self {
            rx,
            queue: VecDeque::new(),
            queued: 0,
            unflushed: false,
            at_end: false,
            lost: None,
            hold,
        }
    }

    /// Nothing is held back any more.
    pub(super) fn let_go(&mut self) {
        self.hold = None;
    }

    /// Ready when the socket's sending side is shut down behind every byte.
    pub(super) fn poll<S: Socket>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
        turn: &mut Turn,
    ) -> Poll<Result<(), ReceivingError>> {
        loop {
            self.gather(cx).map_err(ReceivingError::Stream)?;
            if let Some(hold) = &mut self.hold
                && (self.at_end || !self.queue.is_empty())
            {
                if hold.poll(cx).is_pending() {
                    return self.poll_reset(cx).map(|error| Err(ReceivingError::Stream(error)));
                }
                self.let_go();
            }
            if self.queue.is_empty() {
                if let Some(error) = self.lost.take() {
                    return Poll::Ready(Err(ReceivingError::Stream(RecvError::Connection(*error))));
                }
                return self.poll_empty(cx, socket).map_err(ReceivingError::Socket);
            }
            if turn.is_over() {
                return Poll::Pending;
            }
            match self.poll_write(cx, socket).map_err(ReceivingError::Socket)? {
                Poll::Ready(written) => {
                    turn.moved(written);
                    self.unflushed = true;
                }
                Poll::Pending => return self.poll_reset(cx).map(|error| Err(ReceivingError::Stream(error))),
            }
        }
    }

    /// Takes what the stream has, as far as the queue has room.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), RecvError> {
        while !self.is_over() && self.has_room() {
            match self.rx.poll_recv(cx, QUEUE_BYTES - self.queued) {
                Poll::Ready(Ok(Some(bytes))) => {
                    self.queued += bytes.len();
                    self.queue.push_back(bytes);
                }
                Poll::Ready(Ok(None)) => self.at_end = true,
                Poll::Ready(Err(RecvError::Connection(error))) => self.lost = Some(Box::new(error)),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Whether the stream was reset while a full queue waits for the socket, which no receive tells.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<RecvError> {
        if self.is_over() || self.has_room() {
            return Poll::Pending;
        }
        self.rx.poll_reset(cx)
    }

    /// Whether nothing more comes from the stream.
    fn is_over(&self) -> bool {
        self.at_end || self.lost.is_some()
    }

    fn has_room(&self) -> bool {
        self.queued < QUEUE_BYTES && self.queue.len() < QUEUE_CHUNKS
    }

    /// Everything is written: ends with the stream, or waits for it without holding anything.
    fn poll_empty<S: Socket>(&mut self, cx: &mut Context<'_>, socket: &mut S) -> Poll<io::Result<()>> {
        self.queue = VecDeque::new();
        if self.at_end {
            return match ready!(Pin::new(socket).poll_shutdown(cx)) {
                Err(error) if !is_gone(&error) => Poll::Ready(Err(error)),
                _ => Poll::Ready(Ok(())),
            };
        }
        if self.unflushed && Pin::new(socket).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        Poll::Pending
    }

    fn poll_write<S: Socket>(&mut self, cx: &mut Context<'_>, socket: &mut S) -> Poll<io::Result<usize>> {
        let socket = Pin::new(socket);
        let written = if self.queue.len() > 1 && socket.is_write_vectored() {
            let mut slices = [IoSlice::new(&[]); QUEUE_CHUNKS];
            for (slice, chunk) in slices.iter_mut().zip(&self.queue) {
                *slice = IoSlice::new(chunk);
            }
            ready!(socket.poll_write_vectored(cx, &slices[..self.queue.len()]))?
        } else {
            let first = self.queue.front().map_or(&[][..], |chunk| chunk);
            ready!(socket.poll_write(cx, first))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.forget(written);
        Poll::Ready(Ok(written))
    }

    /// Takes written bytes off the queue.
    fn forget(&mut self, written: usize) {
        self.queued -= written;
        let mut left = written;
        while let Some(chunk) = self.queue.front_mut() {
            if left < chunk.len() {
                chunk.advance(left);
                return;
            }
            left -= chunk.len();
            self.queue.pop_front();
        }
    }

    /// Bytes held for the socket.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.queued + self.queue.capacity() * size_of::<Bytes>()
    }
}

/// Whether a shutdown failed because nobody is left to be told. If that was a reset, reading tells.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(
        error.kind(),
        NotConnected | ConnectionReset | ConnectionAborted | BrokenPipe
    )
}
