//! The sockets of clients.

use std::io;

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

/// A client's socket.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the drop that follows a reset, as far as the socket can express one.
    fn abort(&mut self);
}

impl Socket for TcpStream {
    fn abort(&mut self) {
        // Closing with a linger time of zero sends a reset. If that cannot be set, the socket is closed all the same.
        let _: io::Result<()> = SockRef::from(&*self).set_linger(Some(std::time::Duration::ZERO));
    }
}

impl Socket for UnixStream {
    /// A Unix socket has no reset: the client sees the end.
    fn abort(&mut self) {}
}
