//! The server's side.

use std::{io, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Response, request};
use http_body_util::Full;
use tunnel_core::{
    AcceptError, Admission, Admitted, Arrival, Connection, ConnectionError, HandshakeError, Identity, Incoming,
    Listener, Peer,
};
use tunnel_tcp::{
    Accept, Accepted, ServerSecurity,
    http2::Role,
    upgrade::{Refused, serve},
};

use crate::{NAME, PROTOCOL, config::H2Config, http2::Pipe, native, upgrade::Offer};

/// Listens for agents.
///
/// What asks for another path than the tunnel's, and what asks for the tunnel without being an agent, is told so in
/// HTTP/1.1. A connection serves one request. `X-Forwarded-For` and its like mean nothing here: anybody can write them.
/// Behind a proxy that ends TLS, the address is the proxy's and the identity is what the credential proves.
///
/// Dropping it closes the socket; connections that are established stay.
#[derive(Debug)]
pub struct H2Listener {
    accept: Box<dyn Accept>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    security: ServerSecurity,
    config: H2Config,
}

impl H2Listener {
    /// Takes agents from `accept`. For TLS, `security` is to offer [`ALPN`](crate::ALPN).
    #[must_use]
    pub fn new(accept: Box<dyn Accept>, security: ServerSecurity, config: H2Config) -> Self {
        Self {
            accept,
            shared: Arc::new(Shared { security, config }),
        }
    }
}

#[async_trait]
impl Listener for H2Listener {
    fn name(&self) -> &'static str {
        NAME
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.accept.local_addr()
    }

    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError> {
        Ok(Box::new(H2Incoming {
            accepted: self.accept.accept().await?,
            shared: Arc::clone(&self.shared),
        }))
    }
}

/// A pipe of which nothing was read yet.
#[derive(Debug)]
struct H2Incoming {
    accepted: Accepted,
    shared: Arc<Shared>,
}

#[async_trait]
impl Incoming for H2Incoming {
    fn remote_addr(&self) -> SocketAddr {
        self.accepted.remote_addr
    }

    /// The caller bounds the time, which bounds how slowly a request may come, too.
    async fn handshake(self: Box<Self>, admission: &dyn Admission) -> Result<Arc<dyn Connection>, HandshakeError> {
        let (remote_addr, io) = (self.accepted.remote_addr, self.accepted.open()?);
        let shared = self.shared;
        let (io, identity) = shared.security.secure(io).await?;
        let answer = |request, has_body| shared.judge(request, has_body, (remote_addr, identity.clone()), admission);
        let (peer, (io, ahead)) = serve(io, answer).await?;
        native::start(
            Pipe::new(io, ahead, Role::Client, &shared.config.tuning.mux.budget),
            peer,
            &shared.config,
        )
        .await
        .map_err(|error| HandshakeError::Lost(ConnectionError::transport(error)))
    }

    /// Drops the pipe.
    fn refuse(self: Box<Self>) {}
}

impl Shared {
    async fn judge(
        &self,
        request: request::Parts,
        has_body: bool,
        (remote_addr, identity): (SocketAddr, Identity),
        admission: &dyn Admission,
    ) -> Result<(Response<Full<Bytes>>, Peer), Refused> {
        let offer = Offer::read(&request, has_body, self.config.path.path())?;
        let arrival = Arrival::new(NAME, remote_addr, identity, offer.claim);
        let Admitted { identity, welcome } = admission
            .admit(&arrival)
            .await
            .map_err(|rejection| Refused::rejection(rejection, PROTOCOL))?;
        Ok((Offer::accept(&welcome), arrival.into_peer(identity)))
    }
}
