//! The agent's side: takes connections of proxies and clients of others.

use std::{io, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use tunnel_core::{AcceptError, Admission, Admitted, Arrival, Connection, HandshakeError, Incoming, Listener};
use tunnel_tcp::{Accept, Accepted, ServerSecurity, SocketOptions, TcpAcceptor};

use super::{ForwardConfig, connection};

/// Listens for whoever opens streams by CONNECT of HTTP/2: Envoy, ztunnel, `curl --proxy-http2`, a
/// [`ForwardCarrier`](super::ForwardCarrier).
///
/// A connection is accepted by its identity alone: what [`Admission`] gets to see is an [`Arrival`] without a claim, and
/// of an [`Admitted`] only the identity counts. The peer is [`PeerRole::Foreign`](tunnel_core::PeerRole::Foreign). One
/// that is rejected gets a GOAWAY at once, whose debug data are the words of the rejection.
///
/// Every plain CONNECT is a stream; its head has the target, the trace context of `traceparent` and `tracestate`, the
/// client of `Forwarded` or `X-Forwarded-For` (port 0 if there is none) if
/// [that is wanted](super::ForwardConfigBuilder::tells_client), and `baggage` as metadata. An accepted stream is answered
/// 200 when its target was reached, a refused one with the [status](tunnel_core::RefusalKind::status) of its kind,
/// `Proxy-Status` and a sentence. Without asking anybody, a CONNECT without host and port gets 400, another method 405,
/// and an extended CONNECT (RFC 8441) 501.
///
/// Dropping it closes the socket; connections that are established stay.
#[derive(Debug)]
pub struct ForwardListener {
    accept: Box<dyn Accept>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    security: ServerSecurity,
    config: ForwardConfig,
}

impl ForwardListener {
    /// Takes connections from `accept`. For TLS, `security` is to offer [`ALPN`](super::ALPN); clear text begins with
    /// HTTP/2 at once (prior knowledge, RFC 9113 §3.3).
    #[must_use]
    pub fn new(accept: Box<dyn Accept>, security: ServerSecurity, config: ForwardConfig) -> Self {
        Self {
            accept,
            shared: Arc::new(Shared { security, config }),
        }
    }

    /// Listens on a TCP address; port 0 lets the system choose.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn bind(addr: SocketAddr, security: ServerSecurity, config: ForwardConfig) -> io::Result<Self> {
        let acceptor = TcpAcceptor::bind(addr, SocketOptions::default())?;
        Ok(Self::new(Box::new(acceptor), security, config))
    }
}

#[async_trait]
impl Listener for ForwardListener {
    fn name(&self) -> &'static str {
        self.shared.config.dialect.name()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.accept.local_addr()
    }

    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError> {
        Ok(Box::new(ForwardIncoming {
            accepted: self.accept.accept().await?,
            shared: Arc::clone(&self.shared),
        }))
    }
}

/// A pipe of which nothing was read yet.
#[derive(Debug)]
struct ForwardIncoming {
    accepted: Accepted,
    shared: Arc<Shared>,
}

#[async_trait]
impl Incoming for ForwardIncoming {
    fn remote_addr(&self) -> SocketAddr {
        self.accepted.remote_addr
    }

    /// The caller bounds the time. Who is rejected is told so by a GOAWAY.
    async fn handshake(self: Box<Self>, admission: &dyn Admission) -> Result<Arc<dyn Connection>, HandshakeError> {
        let (remote_addr, io) = (self.accepted.remote_addr, self.accepted.open()?);
        let shared = self.shared;
        let (io, identity) = shared.security.secure(io).await?;
        let arrival = Arrival::foreign(shared.config.dialect.name(), remote_addr, identity);
        let identity = match admission.admit(&arrival).await {
            Ok(Admitted { identity, .. }) => identity,
            Err(rejection) => {
                connection::turn_away(io, &rejection).await;
                return Err(HandshakeError::Rejected(rejection));
            }
        };
        let peer = arrival.into_peer(identity);
        connection::serve(io, peer, &shared.config).await
    }

    /// Drops the pipe.
    fn refuse(self: Box<Self>) {}
}
