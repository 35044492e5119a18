//! The server's side: a listener for calls.

use std::{io, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use tokio::{select, sync::mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tunnel_core::{AcceptError, Incoming, Listener, Places, Threads};
use tunnel_tcp::{Accept, ServerSecurity};

use crate::{
    NAME,
    config::GrpcConfig,
    incoming::GrpcIncoming,
    serve::{self, Shared},
};

/// How many calls wait to be accepted; more of them wait in their connections.
const BACKLOG: usize = 64;

/// Listens for agents' calls.
///
/// What it accepts is a call and not a TCP connection, because balancers put the calls of several agents on one
/// HTTP/2 connection. A task for each TCP connection passes the TLS handshake and serves HTTP/2; a peer that is stuck
/// there holds up nobody else. The port answers `grpc.health.v1.Health`, too: SERVING until this is dropped.
///
/// Dropping it closes the port. Connections that are established stay, and their HTTP/2 connections until they end.
#[derive(Debug)]
pub struct GrpcListener {
    accept: Box<dyn Accept>,
    waiting: mpsc::Receiver<GrpcIncoming>,
    handshakes: Arc<Places>,
    threads: Threads,
    shared: Arc<Shared>,
    _gone: DropGuard,
}

impl GrpcListener {
    /// Listens on byte pipes from `accept`. For TLS, `security` is to offer [`ALPN`](crate::ALPN).
    #[must_use]
    pub fn new(accept: Box<dyn Accept>, security: ServerSecurity, config: GrpcConfig) -> Self {
        let (calls, waiting) = mpsc::channel(BACKLOG);
        let gone = CancellationToken::new();
        Self {
            accept,
            waiting,
            handshakes: Places::new(config.max_handshakes, config.max_handshakes_per_source),
            threads: Threads::default(),
            shared: Arc::new(Shared {
                config,
                security,
                calls,
                gone: gone.clone(),
            }),
            _gone: gone.drop_guard(),
        }
    }
}

#[async_trait]
impl Listener for GrpcListener {
    fn name(&self) -> &'static str {
        NAME
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.accept.local_addr()
    }

    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError> {
        loop {
            let accepted = select! {
                // One sender is in `self`, so that there is no end.
                Some(call) = self.waiting.recv() => return Ok(Box::new(call)),
                accepted = self.accept.accept() => accepted?,
            };
            let remote_addr = accepted.remote_addr;
            match self.handshakes.take(remote_addr.ip()) {
                Ok(place) => {
                    let serve = serve::serve(accepted, Arc::clone(&self.shared), place);
                    self.threads.home().spawn(serve);
                }
                Err(limit) => tracing::debug!(%remote_addr, ?limit, "closing a connection: too many handshakes"),
            }
        }
    }

    /// A call runs where its HTTP/2 connection does.
    fn divide(&mut self, threads: &Threads) {
        self.threads = threads.clone();
    }
}
