//! Where byte pipes come from.

use std::{fmt, io, net::SocketAddr};

use async_trait::async_trait;
use tunnel_core::{AcceptError, DialError, HostPort};

use crate::BoxIo;

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

/// A byte pipe from an agent.
#[derive(Debug)]
pub struct Accepted {
    /// The pipe.
    pub io: BoxIo,
    /// Where it comes from.
    pub remote_addr: SocketAddr,
}
