//! Reading more than is asked for.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::BoxIo;

/// Reads a pipe in pieces of some size, for a reader that asks for smaller ones; what is written goes through.
///
/// Memory is held only for bytes that wait: a pipe that has nothing to read costs nothing.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    io: BoxIo,
    size: usize,
    buffer: BytesMut,
}

impl ReadAhead {
    pub(crate) fn new(io: BoxIo, size: usize) -> Self {
        let buffer = BytesMut::new();
        Self { io, size, buffer }
    }

    /// The first byte, which stays to be read, or `None` at the end of the pipe.
    pub(crate) async fn first(&mut self) -> io::Result<Option<u8>> {
        poll_fn(|cx| self.poll_fill(cx)).await?;
        Ok(self.buffer.first().copied())
    }

    /// Ready when the buffer has something, or the pipe has ended.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() {
            // The same memory again, while there is more to read.
            self.buffer.reserve(self.size);
            if poll_read_buf(Pin::new(&mut self.io), cx, &mut self.buffer)?.is_pending() {
                self.buffer = BytesMut::new();
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() && buf.remaining() >= self.size {
            self.buffer = BytesMut::new();
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        ready!(self.poll_fill(cx))?;
        let count = self.buffer.len().min(buf.remaining());
        buf.put_slice(&self.buffer[..count]);
        self.buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn every_byte_comes_once_and_in_order() {
        let sent: Vec<u8> = (0..10_000).map(|at| (at % 251) as u8).collect();
        for size in [1, 7, 1000, 20_000] {
            for asked in [1, 7, 1000, 20_000] {
                let (near, mut far) = duplex(1500);
                let mut near = ReadAhead::new(Box::new(near), size);
                let writing = async {
                    far.write_all(&sent).await.unwrap();
                    drop(far);
                };
                let reading = async {
                    assert_eq!(near.first().await.unwrap(), Some(0));
                    let (mut seen, mut buf) = (Vec::new(), vec![0; asked]);
                    loop {
                        match near.read(&mut buf).await.unwrap() {
                            0 => return seen,
                            count => seen.extend_from_slice(&buf[..count]),
                        }
                    }
                };
                let ((), seen) = tokio::join!(writing, reading);
                assert!(seen == sent, "{size} {asked}");
                assert_eq!(near.first().await.unwrap(), None);
            }
        }
    }

    #[tokio::test]
    async fn an_idle_pipe_holds_no_memory() {
        let (near, mut far) = duplex(1500);
        let mut near = ReadAhead::new(Box::new(near), 1000);
        for _ in 0..3 {
            far.write_all(b"hello").await.unwrap();
            near.read_exact(&mut [0; 5]).await.unwrap();
            assert!(near.buffer.capacity() >= 995);
            let mut next = [0; 1];
            tokio::select! {
                biased;
                read = near.read(&mut next) => panic!("{read:?}"),
                () = tokio::task::yield_now() => {}
            }
            assert_eq!(near.buffer.capacity(), 0);
        }
    }

    #[test]
    fn writes_of_several_pieces_go_through() {
        let (near, _far) = duplex(1);
        assert!(near.is_write_vectored());
        assert!(ReadAhead::new(Box::new(near), 1).is_write_vectored());
    }
}
