//! Messages over a byte pipe.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tunnel_core::{
    mux::{Link, LinkError},
    proto::mux::{MAX_MESSAGE, Message},
};
use tunnel_tcp::BoxIo;

/// A link over any byte pipe: each message behind its length, 4 bytes in network order. The clean end of the pipe is
/// that of the link.
///
/// It holds one message at the most; what else waits, waits in the pipe.
#[derive(Debug)]
pub struct PipeLink {
    io: BoxIo,
    /// What is left of the message that was taken last, and of the length ahead of it.
    outgoing: VecDeque<Bytes>,
    incoming: BytesMut,
}

/// What is ahead of a message.
const LENGTH: usize = 4;

impl PipeLink {
    /// Makes one.
    #[must_use]
    pub fn new(io: BoxIo) -> Self {
        Self {
            io,
            outgoing: VecDeque::new(),
            incoming: BytesMut::new(),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        while let Some(chunk) = self.outgoing.front_mut() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, chunk)).map_err(LinkError::Io)? {
                0 => return Poll::Ready(Err(LinkError::Io(io::ErrorKind::WriteZero.into()))),
                count => chunk.advance(count),
            }
            if chunk.is_empty() {
                self.outgoing.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes a whole message out of what has come.
    fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        let Some((length, _)) = self.incoming.split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            return Err(LinkError::Protocol(format!("a message has {length} bytes")));
        }
        if self.incoming.len() < LENGTH + length {
            self.incoming.reserve(LENGTH + length - self.incoming.len());
            return Ok(None);
        }
        self.incoming.advance(LENGTH);
        Ok(Some(self.incoming.split_to(length).freeze()))
    }
}

impl Link for PipeLink {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.poll_write(cx)
    }

    fn send(&mut self, message: Message) -> Result<(), LinkError> {
        let too_long = |_| LinkError::Protocol(format!("a message has {} bytes", message.len()));
        let length = u32::try_from(message.len()).map_err(too_long)?;
        self.outgoing.push_back(Bytes::copy_from_slice(&length.to_be_bytes()));
        self.outgoing.extend(message.into_chunks());
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        ready!(self.poll_write(cx))?;
        Pin::new(&mut self.io).poll_flush(cx).map_err(LinkError::Io)
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LinkError>> {
        loop {
            if let Some(message) = self.next()? {
                return Poll::Ready(Ok(Some(message)));
            }
            let read = pin!(self.io.read_buf(&mut self.incoming)).poll(cx);
            match ready!(read).map_err(LinkError::Io)? {
                0 if self.incoming.is_empty() => return Poll::Ready(Ok(None)),
                0 => return Poll::Ready(Err(LinkError::Io(io::ErrorKind::UnexpectedEof.into()))),
                _ => {}
            }
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        ready!(self.poll_write(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx).map_err(LinkError::Io)
    }
}
