//! A stream as `AsyncRead + AsyncWrite`.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::Duplex;

/// The most that one write copies into the stream: larger writes are taken in parts.
const MAX_WRITE: usize = 64 * 1024;
/// The most that one receive takes from the stream and may be held for the reader.
const MAX_READ: usize = 64 * 1024;

/// A stream as `AsyncRead + AsyncWrite`, made by [`Duplex::into_io`].
///
/// `poll_shutdown` ends this side's half cleanly and leaves the other half open. Dropping it without a shutdown
/// resets the sending half.
#[derive(Debug)]
pub struct DuplexIo {
    stream: Duplex,
    /// Received and not yet read.
    unread: Bytes,
    /// Whether the peer's clean end was seen.
    ended: bool,
}

impl DuplexIo {
    pub(super) fn new(stream: Duplex) -> Self {
        Self {
            stream,
            unread: Bytes::new(),
            ended: false,
        }
    }

    /// The stream and the bytes that were received and not yet read.
    #[must_use]
    pub fn into_parts(self) -> (Duplex, Bytes) {
        (self.stream, self.unread)
    }
}

impl AsyncBufRead for DuplexIo {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.unread.is_empty() && !this.ended {
            match ready!(this.stream.rx.poll_recv(cx, MAX_READ))? {
                Some(bytes) => this.unread = bytes,
                None => this.ended = true,
            }
        }
        Poll::Ready(Ok(&this.unread))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        self.unread.advance(amount);
    }
}

impl AsyncRead for DuplexIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let bytes = ready!(self.as_mut().poll_fill_buf(cx))?;
        let len = bytes.len().min(buf.remaining());
        buf.put_slice(&bytes[..len]);
        self.consume(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for DuplexIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut data = Bytes::copy_from_slice(&buf[..buf.len().min(MAX_WRITE)]);
        self.stream.tx.poll_send(cx, &mut data).map_err(io::Error::from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.tx.poll_flush(cx).map_err(io::Error::from)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.tx.poll_finish(cx).map_err(io::Error::from)
    }
}
