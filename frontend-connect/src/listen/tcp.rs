//! Listening on TCP.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// The most connections that wait to be accepted; the kernel's `net.core.somaxconn` caps it.
const BACKLOG: u32 = 4096;

/// Listens on an address. A port that was in use a moment ago can be used again at once.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Sets up a client's socket: small writes go out at once, and a client that vanished is found.
pub(crate) fn prepare(socket: &TcpStream, keepalive: Option<Duration>) -> io::Result<()> {
    /// Whole seconds are the kernel's unit.
    const SHORTEST: Duration = Duration::from_secs(1);
    socket.set_nodelay(true)?;
    if let Some(idle) = keepalive {
        let keepalive = TcpKeepalive::new()
            .with_time(idle.max(SHORTEST))
            .with_interval((idle / 3).max(SHORTEST))
            .with_retries(3);
        SockRef::from(socket).set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}
