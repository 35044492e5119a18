//! Listening on TCP.

use std::{io, net::SocketAddr};

use async_trait::async_trait;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tunnel_core::AcceptError;

use crate::{Accept, Accepted, SocketOptions};

/// The most connections that wait to be accepted; the kernel's `net.core.somaxconn` caps it. Thousands of agents may
/// come back in the same moment after a restart.
const BACKLOG: u32 = 4096;

/// Accepts TCP connections. Dropping it closes the socket; those that wait to be accepted are reset.
#[derive(Debug)]
pub struct TcpAcceptor {
    listener: TcpListener,
    options: SocketOptions,
}

impl TcpAcceptor {
    /// Listens on an address; port 0 lets the system choose. A port that was in use a moment ago can be used again at
    /// once (`SO_REUSEADDR`), which does not mean that two may listen.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn bind(addr: SocketAddr, options: SocketOptions) -> io::Result<Self> {
        let socket = match addr {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        // Accepted sockets inherit what is set before `listen` only on some systems, so each gets its own, too.
        options.apply_to_listener(SockRef::from(&socket));
        socket.bind(addr)?;
        let listener = socket.listen(BACKLOG)?;
        Ok(Self { listener, options })
    }

    async fn take(&mut self) -> Result<(TcpStream, SocketAddr), AcceptError> {
        // No error of accept(2) is the end of a listener: a connection is over already, or something is short.
        let (socket, remote_addr) = self.listener.accept().await.map_err(AcceptError::Transient)?;
        self.options.apply(SockRef::from(&socket));
        Ok((socket, remote_addr))
    }
}

#[async_trait]
impl Accept for TcpAcceptor {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    async fn accept(&mut self) -> Result<Accepted, AcceptError> {
        let (socket, remote_addr) = self.take().await?;
        let accepted = Accepted::tcp(socket, remote_addr).map_err(AcceptError::Transient)?;
        Ok(accepted.adapting(&self.options.congestion))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::io::AsyncReadExt as _;
    use tunnel_testkit::OtherThread;

    use super::*;

    fn bind(port: u16) -> io::Result<TcpAcceptor> {
        TcpAcceptor::bind(([127, 0, 0, 1], port).into(), SocketOptions::default())
    }

    #[tokio::test]
    async fn accepted_sockets_are_set_up() {
        let mut acceptor = bind(0).unwrap();
        let near = TcpStream::connect(acceptor.local_addr().unwrap()).await.unwrap();
        let (far, remote) = acceptor.take().await.unwrap();
        assert_eq!(remote, near.local_addr().unwrap());
        assert!(far.nodelay().unwrap());
        assert!(SockRef::from(&far).keepalive().unwrap());
        assert_eq!(SockRef::from(&far).tcp_notsent_lowat().unwrap(), 128 * 1024);
    }

    #[cfg(target_os = "linux")]
    fn bind_with(congestion: &str) -> TcpAcceptor {
        let options = SocketOptions {
            congestion: congestion.parse().unwrap(),
            ..SocketOptions::default()
        };
        TcpAcceptor::bind(([127, 0, 0, 1], 0).into(), options).unwrap()
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_congestion_control_is_set_before_a_connection_begins() {
        let acceptor = bind_with("reno");
        let _near = TcpStream::connect(acceptor.local_addr().unwrap()).await.unwrap();
        let (far, _) = acceptor.listener.accept().await.unwrap();
        assert_eq!(SockRef::from(&far).tcp_congestion().unwrap()[..4], *b"reno");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_is_accepted_adapts() {
        for (name, kind) in [("adaptive", "Watched"), ("cubic", "TcpStream")] {
            let mut acceptor = bind_with(name);
            let _near = TcpStream::connect(acceptor.local_addr().unwrap()).await.unwrap();
            let own = SockRef::from(&acceptor.listener).tcp_congestion().unwrap();
            if ![b"cubic".as_slice(), b"reno"].iter().any(|name| own.starts_with(name)) {
                println!("skipped: the system's congestion control is none to adapt");
                continue;
            }
            let pipe = acceptor.accept().await.unwrap().open().unwrap();
            assert!(format!("{pipe:?}").starts_with(kind), "{name}: {pipe:?}");
        }
    }

    #[tokio::test]
    async fn a_port_can_be_used_again_at_once_and_not_twice() {
        let mut acceptor = bind(0).unwrap();
        let addr = acceptor.local_addr().unwrap();
        assert_eq!(bind(addr.port()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // The end that closes first keeps the port for a while (TIME_WAIT).
        let near = TcpStream::connect(addr).await.unwrap();
        drop(acceptor.take().await.unwrap());
        drop((acceptor, near));
        bind(addr.port()).unwrap();
    }

    #[tokio::test]
    async fn what_was_accepted_is_at_home_where_it_is_opened() {
        let other = OtherThread::new();
        let accepting = other.runtime().spawn(async {
            let mut acceptor = bind(0).unwrap();
            let far = std::net::TcpStream::connect(acceptor.local_addr().unwrap()).unwrap();
            (acceptor.accept().await.unwrap(), far)
        });
        let (accepted, mut far) = accepting.await.unwrap();
        drop(other);
        let mut near = accepted.open().unwrap();
        far.write_all(b"hello").unwrap();
        let mut read = [0; 5];
        near.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"hello");
    }

    #[tokio::test]
    async fn none_is_lost_when_the_future_is_dropped() {
        let mut acceptor = bind(0).unwrap();
        let addr = acceptor.local_addr().unwrap();
        tokio::select! {
            biased;
            accepted = acceptor.accept() => panic!("{accepted:?}"),
            () = tokio::task::yield_now() => {}
        }
        let near = TcpStream::connect(addr).await.unwrap();
        let accepted = acceptor.accept().await.unwrap();
        assert_eq!(accepted.remote_addr, near.local_addr().unwrap());
    }
}
