//! The server's side.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tunnel_core::{AcceptError, Incoming, Listener};

use super::{NAME, attempt::MemoryIncoming};

/// Where every listener claims to be: an address of the block for documentation (RFC 5737 §3).
pub(super) const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 8091);

/// Yields the dials of the carriers that belong to it. Dropping it refuses those that wait.
#[derive(Debug)]
pub struct MemoryListener {
    attempts: mpsc::Receiver<MemoryIncoming>,
}

impl MemoryListener {
    pub(super) fn new(attempts: mpsc::Receiver<MemoryIncoming>) -> Self {
        Self { attempts }
    }
}

#[async_trait]
impl Listener for MemoryListener {
    fn name(&self) -> &'static str {
        NAME
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SERVER)
    }

    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError> {
        match self.attempts.recv().await {
            Some(incoming) => Ok(Box::new(incoming)),
            None => Err(AcceptError::Closed),
        }
    }
}
