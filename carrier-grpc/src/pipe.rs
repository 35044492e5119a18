//! What hyper reads and writes.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tunnel_tcp::BoxIo;

/// A byte pipe whose first bytes may have been read already, and that keeps the error of a failed read: of that, hyper
/// passes on at most the text.
#[derive(Debug)]
pub(crate) struct Pipe {
    begin: BytesMut,
    io: BoxIo,
    failure: Failure,
}

/// Why reading failed, once it has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failure(Arc<OnceLock<Arc<io::Error>>>);

impl Pipe {
    pub(crate) fn new(io: BoxIo) -> Self {
        Self::begun(BytesMut::new(), io)
    }

    /// One of which `begin` has been read.
    pub(crate) fn begun(begin: BytesMut, io: BoxIo) -> Self {
        Self {
            begin,
            io,
            failure: Failure::default(),
        }
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
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, into));
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
