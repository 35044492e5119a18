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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
    use tunnel_proto::StreamCode;

    use super::*;
    use crate::{
        error::{ConnectionError, RecvError, SendError},
        stream::pair::{pair, pair_with_cut},
    };

    /// The stream error inside an I/O error.
    fn cause<E: std::error::Error + 'static>(error: &io::Error) -> &E {
        error.get_ref().and_then(|inner| inner.downcast_ref()).unwrap()
    }

    #[tokio::test]
    async fn a_shutdown_ends_one_half_only() {
        let (left, right) = pair(64);
        let (mut left, mut right) = (left.into_io(), right.into_io());
        left.write_all(b"question").await.unwrap();
        left.shutdown().await.unwrap();
        left.shutdown().await.unwrap();
        let mut text = String::new();
        right.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "question");

        right.write_all(b"answer").await.unwrap();
        right.shutdown().await.unwrap();
        text.clear();
        left.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");
        // The end stays the end.
        assert_eq!(left.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_write_after_a_shutdown_fails() {
        let (left, _right) = pair(64);
        let mut left = left.into_io();
        left.shutdown().await.unwrap();
        let error = left.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    }

    #[tokio::test]
    async fn a_reset_is_no_end() {
        let (mut left, right) = pair(64);
        left.tx.reset(StreamCode::POLICY);
        let error = right.into_io().read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(
            matches!(cause(&error), RecvError::Reset(StreamCode::POLICY)),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_drop_without_a_shutdown_is_a_reset() {
        let (left, right) = pair(64);
        let (mut left, mut right) = (left.into_io(), right.into_io());
        left.write_all(b"half a mess").await.unwrap();
        drop(left);
        let error = right.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_stop_breaks_the_pipe() {
        let (left, mut right) = pair(64);
        right.rx.stop(StreamCode::TARGET_RESET);
        let error = left.into_io().write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(
            matches!(cause(&error), SendError::Stopped(StreamCode::TARGET_RESET)),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_lost_connection_aborts_both_halves() {
        let (left, _right, lose) = pair_with_cut(64);
        let mut left = left.into_io();
        lose(ConnectionError::local(tunnel_proto::CloseCode::DONE, ""));
        let read = left.read(&mut [0]).await.unwrap_err();
        let write = left.write(&[0]).await.unwrap_err();
        assert_eq!(
            (read.kind(), write.kind()),
            (io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionAborted)
        );
    }

    #[tokio::test]
    async fn what_was_not_read_is_given_back() {
        let (mut left, right) = pair(64);
        left.tx.send_all(Bytes::from_static(b"line\nrest")).await.unwrap();
        let mut right = right.into_io();
        let mut line = String::new();
        right.read_line(&mut line).await.unwrap();
        assert_eq!(line, "line\n");
        let (mut stream, unread) = right.into_parts();
        assert_eq!(unread, "rest");
        left.tx.finish().await.unwrap();
        assert_eq!(stream.rx.recv(64).await.unwrap(), None);
    }

    #[tokio::test]
    async fn nothing_is_read_into_no_room() {
        let (mut left, right) = pair(64);
        left.tx.send_all(Bytes::from_static(b"x")).await.unwrap();
        let mut right = right.into_io();
        assert_eq!(right.read(&mut []).await.unwrap(), 0);
        assert_eq!(right.read_u8().await.unwrap(), b'x');
        assert_eq!(right.write(&[]).await.unwrap(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_byte_passes_in_order(len in 0..300_000_usize, piece in 1..100_000_usize, room in 1..100_000_usize, window in 1..100_000_usize) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let bytes: Vec<u8> = (0..251).cycle().take(len).collect();
            let (left, right) = pair(window);
            let (mut left, mut right) = (left.into_io(), right.into_io());
            let received = runtime.block_on(async {
                let write = async {
                    for piece in bytes.chunks(piece) {
                        left.write_all(piece).await.unwrap();
                    }
                    left.shutdown().await.unwrap();
                };
                let read = async {
                    let (mut all, mut buf) = (Vec::new(), vec![0; room]);
                    loop {
                        let read = right.read(&mut buf).await.unwrap();
                        if read == 0 {
                            return all;
                        }
                        all.extend_from_slice(&buf[..read]);
                    }
                };
                tokio::join!(write, read).1
            });
            prop_assert!(received == bytes);
        }
    }
}
