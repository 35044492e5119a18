//! What hyper reads and writes.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;
use tunnel_tcp::{
    BoxIo,
    http2::{Frames, Role},
};

/// A byte pipe whose first bytes may have been read already, and that keeps what hyper does not pass on: of the error of
/// a failed read at most the text, and of a server's GOAWAY nothing while calls go on.
#[derive(Debug)]
pub(crate) struct Pipe {
    begin: BytesMut,
    io: BoxIo,
    failure: Failure,
    /// What comes from a server.
    overheard: Option<(Frames, CancellationToken)>,
}

/// Why reading failed, once it has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failure(Arc<OnceLock<Arc<io::Error>>>);

impl Pipe {
    /// One to a server.
    pub(crate) fn new(io: BoxIo) -> Self {
        let overheard = (Frames::of(Role::Server), CancellationToken::new());
        Self {
            overheard: Some(overheard),
            ..Self::begun(BytesMut::new(), io)
        }
    }

    /// One to a client, of which `begin` has been read.
    pub(crate) fn begun(begin: BytesMut, io: BoxIo) -> Self {
        Self {
            begin,
            io,
            failure: Failure::default(),
            overheard: None,
        }
    }

    /// Cancelled when a server has said that it will end the connection (RFC 9113 §6.8).
    pub(crate) fn goaway(&self) -> CancellationToken {
        let token = self.overheard.as_ref().map(|(_, goaway)| goaway.clone());
        token.unwrap_or_default()
    }

    /// Notes what has come.
    fn came(&mut self, bytes: &[u8]) {
        let Some((frames, goaway)) = &mut self.overheard else {
            return;
        };
        frames.see(bytes, |frame| {
            if let Some((code, words)) = frame.goaway() {
                tracing::debug!(code, words, "the server, or a proxy on the way, says GOAWAY");
                goaway.cancel();
            }
        });
    }

    pub(crate) fn failure(&self) -> Failure {
        self.failure.clone()
    }
}

impl Failure {
    pub(crate) fn get(&self) -> Option<&Arc<io::Error>> {
        self.0.get()
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.begin.is_empty() {
            let count = self.begin.len().min(into.remaining());
            into.put_slice(&self.begin[..count]);
            self.begin.advance(count);
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, into));
        self.came(&into.filled()[before..]);
        Poll::Ready(read.map_err(|error| {
            let error = self.failure.0.get_or_init(|| Arc::new(error));
            io::Error::new(error.kind(), Arc::clone(error))
        }))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, data)
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
