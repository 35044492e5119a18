//! The pipe below a WebSocket, as tungstenite sees it.

use std::{
    io::{self, Read, Write},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};
use tunnel_tcp::BoxIo;

use super::{outbox::Outbox, passing::Passing};

/// A byte pipe, and what the HTTP parser had read beyond the handshake.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) io: BoxIo,
    pub(crate) ahead: Bytes,
    pub(crate) passing: Passing,
}

impl Pipe {
    /// `ahead` is copied, so that it keeps no larger buffer alive.
    pub(crate) fn new(io: BoxIo, ahead: &[u8]) -> Self {
        Self {
            io,
            ahead: Bytes::copy_from_slice(ahead),
            passing: Passing::default(),
        }
    }
}

/// A pipe while it is polled: reads come from it, and what tungstenite writes, which is control frames only, goes to
/// the outbox between two messages.
pub(crate) struct Polled<'a, 'cx> {
    pub(crate) pipe: &'a mut Pipe,
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) cx: &'a mut Context<'cx>,
}

impl Read for Polled<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = if self.pipe.ahead.is_empty() {
            let mut filling = ReadBuf::new(&mut *buf);
            match Pin::new(&mut self.pipe.io).poll_read(self.cx, &mut filling) {
                Poll::Ready(Ok(())) => filling.filled().len(),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
            }
        } else {
            let count = buf.len().min(self.pipe.ahead.len());
            self.pipe.ahead.copy_to_slice(&mut buf[..count]);
            count
        };
        self.pipe.passing.pass(&buf[..count]);
        Ok(count)
    }
}

impl Write for Polled<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.outbox.push_control(buf) {
            Ok(buf.len())
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    /// The link flushes the outbox itself.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
