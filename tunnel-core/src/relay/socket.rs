//! What a relay needs of the socket on its side.

use std::{
    io,
    os::fd::AsFd as _,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::{TcpStream, UnixStream},
};

/// A byte stream of this machine that can end in a reset, too.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the drop that follows a reset, as far as the socket can express one: whoever is at its other end must
    /// not take what came so far for the whole. What was written and not yet delivered may be lost.
    fn abort(&mut self);

    /// Pending while a read would certainly be pending, with the waker kept as a read would keep it. It lets a relay
    /// hold no buffer while it waits; the default says that a read has to be tried.
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = cx;
        Poll::Ready(Ok(()))
    }

    /// Moves it to the runtime that calls, whose thread then hears first hand when there is something to read; it works in
    /// any, and after a failure as before. What no runtime watches has nothing to do.
    fn settle(&mut self) -> io::Result<()>;
}

impl Socket for TcpStream {
    /// A linger time of zero: closing sends RST and drops what is queued (RFC 9293 §3.10.4, ABORT).
    fn abort(&mut self) {
        // It fails only where nothing is left to reset.
        let _ = self.set_zero_linger();
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TcpStream::poll_read_ready(self, cx)
    }

    /// By another descriptor of the same socket.
    fn settle(&mut self) -> io::Result<()> {
        let socket = self.as_fd().try_clone_to_owned()?;
        *self = Self::from_std(socket.into())?;
        Ok(())
    }
}

impl Socket for UnixStream {
    /// Nothing: Unix sockets know no reset on demand. Closing with unread bytes makes the other end's next read fail
    /// with ECONNRESET; otherwise it sees an ordinary end.
    fn abort(&mut self) {}

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        UnixStream::poll_read_ready(self, cx)
    }

    /// By another descriptor of the same socket.
    fn settle(&mut self) -> io::Result<()> {
        let socket = self.as_fd().try_clone_to_owned()?;
        *self = Self::from_std(socket.into())?;
        Ok(())
    }
}

impl Socket for DuplexStream {
    /// Nothing: a pipe in memory knows no reset.
    fn abort(&mut self) {}

    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Socket + ?Sized> Socket for Box<S> {
    fn abort(&mut self) {
        (**self).abort();
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_read_ready(cx)
    }

    fn settle(&mut self) -> io::Result<()> {
        (**self).settle()
    }
}
