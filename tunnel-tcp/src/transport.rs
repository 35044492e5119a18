//! Where byte pipes come from.

use std::{fmt, io, net::SocketAddr};

use async_trait::async_trait;
use tokio::net::TcpStream;
use tunnel_core::{AcceptError, ConnectionError, DialError, HandshakeError, HostPort};

use crate::{BoxIo, Congestion};

/// Makes byte pipes to servers.
#[async_trait]
pub trait Dial: fmt::Debug + Send + Sync {
    /// Makes one. The caller bounds the time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes what has been opened.
    async fn dial(&self, server: &HostPort) -> Result<Dialled, DialError>;
}

/// A byte pipe to a server.
#[derive(Debug)]
pub struct Dialled {
    /// The pipe.
    pub io: BoxIo,
    /// The address at the other end: the server's, or the proxy's.
    pub remote_addr: SocketAddr,
    /// The proxy on the way, without its credentials, for people.
    pub via: Option<String>,
}

/// Yields byte pipes from agents.
#[async_trait]
pub trait Accept: fmt::Debug + Send {
    /// The address that it listens on.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Waits for the next one.
    ///
    /// # Cancel safety
    ///
    /// None is lost when the future is dropped.
    async fn accept(&mut self) -> Result<Accepted, AcceptError>;
}

/// A byte pipe from an agent, not yet at home in any runtime.
#[derive(Debug)]
pub struct Accepted {
    /// Where it comes from.
    pub remote_addr: SocketAddr,
    pipe: Pipe,
}

#[derive(Debug)]
enum Pipe {
    Tcp(std::net::TcpStream, Congestion),
    /// What no runtime watches.
    Other(BoxIo),
}

impl Accepted {
    /// A pipe that works the same in all runtimes, for example in memory.
    #[must_use]
    pub fn new(io: BoxIo, remote_addr: SocketAddr) -> Self {
        Self {
            remote_addr,
            pipe: Pipe::Other(io),
        }
    }

    /// A TCP socket, which leaves the runtime that has accepted it.
    pub fn tcp(socket: TcpStream, remote_addr: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            remote_addr,
            pipe: Pipe::Tcp(socket.into_std()?, Congestion::System),
        })
    }

    /// The same of a socket that began with this congestion control.
    pub(crate) fn adapting(mut self, to: &Congestion) -> Self {
        if let Pipe::Tcp(_, congestion) = &mut self.pipe {
            congestion.clone_from(to);
        }
        self
    }

    /// The pipe, at home in the runtime that calls: its thread hears first hand when there is something to read.
    pub fn open(self) -> Result<BoxIo, HandshakeError> {
        match self.pipe {
            Pipe::Tcp(socket, congestion) => match TcpStream::from_std(socket) {
                Ok(socket) => Ok(congestion.pipe(socket)),
                Err(error) => Err(HandshakeError::Lost(ConnectionError::transport(error))),
            },
            Pipe::Other(io) => Ok(io),
        }
    }
}
