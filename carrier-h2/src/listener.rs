//! The server's side.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Body, Incoming as IncomingBody},
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use tunnel_core::{
    AcceptError, Admission, Admitted, Arrival, Connection, ConnectionError, HandshakeError, Identity, Incoming,
    Listener, Peer,
};
use tunnel_tcp::{Accept, Accepted, ServerSecurity};

use crate::{
    NAME,
    config::H2Config,
    native,
    upgrade::{Offer, Refused, recover},
};

/// The longest head of a request. The longest claim fits, though few proxies would let it through.
const MAX_HEAD: usize = 128 * 1024;
/// The most header fields of a request.
const MAX_FIELDS: usize = 64;

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

/// What came of the one request.
type Outcome = Result<(Peer, OnUpgrade), HandshakeError>;

#[async_trait]
impl Incoming for H2Incoming {
    fn remote_addr(&self) -> SocketAddr {
        self.accepted.remote_addr
    }

    /// The caller bounds the time, which bounds how slowly a request may come, too.
    async fn handshake(self: Box<Self>, admission: &dyn Admission) -> Result<Arc<dyn Connection>, HandshakeError> {
        let Accepted { io, remote_addr } = self.accepted;
        let shared = self.shared;
        let (io, identity) = shared.security.secure(io).await?;
        let outcome = Mutex::new(None::<Outcome>);
        let service = service_fn(async |request: Request<IncomingBody>| {
            let (response, came_of_it) = shared.respond(request, remote_addr, identity.clone(), admission).await;
            *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(came_of_it);
            Ok::<_, Infallible>(response)
        });
        let mut http = http1::Builder::new();
        // There is no timer but the caller's.
        http.header_read_timeout(None)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_FIELDS);
        let served = http.serve_connection(TokioIo::new(io), service).with_upgrades().await;
        let outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (peer, upgrade) = match (outcome, served) {
            (Some(outcome), Ok(())) => outcome?,
            (Some(Err(refused)), Err(_)) => return Err(refused),
            (_, Err(error)) => return Err(failure(error)),
            (None, Ok(())) => return Err(lost(io::Error::from(io::ErrorKind::UnexpectedEof))),
        };
        let pipe = recover(upgrade.await.map_err(lost)?);
        native::start(pipe, peer, &shared.config).await.map_err(lost)
    }

    /// Drops the pipe.
    fn refuse(self: Box<Self>) {}
}

impl Shared {
    async fn respond(
        &self,
        mut request: Request<IncomingBody>,
        remote_addr: SocketAddr,
        identity: Identity,
        admission: &dyn Admission,
    ) -> (Response<Full<Bytes>>, Outcome) {
        let upgrade = hyper::upgrade::on(&mut request);
        let judged = self.judge(request, remote_addr, identity, admission).await;
        match judged {
            Ok((response, peer)) => (response, Ok((peer, upgrade))),
            Err(refused) => (refused.response, Err(refused.error)),
        }
    }

    async fn judge(
        &self,
        request: Request<IncomingBody>,
        remote_addr: SocketAddr,
        identity: Identity,
        admission: &dyn Admission,
    ) -> Result<(Response<Full<Bytes>>, Peer), Box<Refused>> {
        let has_body = !request.body().is_end_stream();
        let (request, _) = request.into_parts();
        let offer = Offer::read(&request, has_body, self.config.path.path())?;
        let arrival = Arrival::new(NAME, remote_addr, identity, offer.claim);
        let Admitted { identity, welcome } = admission
            .admit(&arrival)
            .await
            .map_err(|rejection| Box::new(Refused::rejection(rejection)))?;
        Ok((Offer::accept(&welcome), arrival.into_peer(identity)))
    }
}

fn lost(error: impl std::error::Error + Send + Sync + 'static) -> HandshakeError {
    HandshakeError::Lost(ConnectionError::transport(error))
}

fn failure(error: hyper::Error) -> HandshakeError {
    if error.is_parse() {
        return HandshakeError::Protocol {
            detail: format!("it sent no request of HTTP/1.1: {error}"),
        };
    }
    lost(error)
}
