//! The server's side on a port of its own.

use std::{
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode, request};
use http_body_util::Full;
use hyper::{
    body::{Body, Incoming as IncomingBody},
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use tunnel_core::{
    AcceptError, Admission, Connection, ConnectionError, HandshakeError, Identity, Incoming, Listener, Peer,
};
use tunnel_tcp::{Accept, Accepted, ServerSecurity};
use tunnel_tls::ServerTls;

use crate::{
    ALPN, NAME,
    accept::{Agreed, judge, start},
    config::WsConfig,
    offer::NoAgent,
};

/// The longest head of a request. The longest claim fits, though few proxies would let it through.
const MAX_HEAD: usize = 128 * 1024;
/// The most header fields of a request.
const MAX_FIELDS: usize = 64;

/// Answers requests to other paths than the tunnel's.
///
/// It is meant for a line of text, such as a health check wants; to serve more on the same port, mount the tunnel in a
/// server of your own with [`WsAcceptor`](crate::WsAcceptor).
pub type Fallback = Arc<dyn Fn(&request::Parts) -> Response<Bytes> + Send + Sync>;

/// Listens for agents that come by WebSocket.
///
/// The port is one of HTTP/1.1: what asks for another path than the tunnel's gets the fallback's answer, and what asks
/// for the tunnel without being an agent is told so. A connection serves one request.
///
/// The field Origin means nothing here: it protects users of browsers, and no browser holds an agent's credential.
/// `X-Forwarded-For` and `X-Forwarded-Client-Cert` mean nothing either: anybody can write them. Behind a proxy that
/// ends TLS, the address is the proxy's and the identity is what the credential proves.
///
/// Dropping it closes the socket; connections that are established stay.
pub struct WsListener {
    accept: Box<dyn Accept>,
    shared: Arc<Shared>,
}

struct Shared {
    security: ServerSecurity,
    config: WsConfig,
    fallback: Fallback,
}

impl WsListener {
    /// Takes agents from `accept`, for example a [`TcpAcceptor`](tunnel_tcp::TcpAcceptor): by `wss` with `tls`, by
    /// `ws` without.
    #[must_use]
    pub fn new(accept: Box<dyn Accept>, tls: Option<&ServerTls>, config: WsConfig) -> Self {
        let security = match tls {
            Some(tls) => ServerSecurity::tls(tls, &[ALPN]),
            None => ServerSecurity::Plain,
        };
        let fallback = Arc::new(|_: &request::Parts| {
            let mut response = Response::new(Bytes::from_static(b"nothing here\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        });
        Self {
            accept,
            shared: Arc::new(Shared {
                security,
                config,
                fallback,
            }),
        }
    }

    /// Answers requests to other paths. Default: 404 and a line of text.
    #[must_use]
    pub fn with_fallback(mut self, fallback: Fallback) -> Self {
        self.shared = Arc::new(Shared {
            security: self.shared.security.clone(),
            config: self.shared.config.clone(),
            fallback,
        });
        self
    }
}

#[async_trait]
impl Listener for WsListener {
    fn name(&self) -> &'static str {
        NAME
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.accept.local_addr()
    }

    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError> {
        Ok(Box::new(WsIncoming {
            accepted: self.accept.accept().await?,
            shared: Arc::clone(&self.shared),
        }))
    }
}

impl fmt::Debug for WsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsListener")
            .field("accept", &self.accept)
            .field("shared", &self.shared)
            .finish()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("security", &self.security)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A pipe of which nothing was read yet.
#[derive(Debug)]
struct WsIncoming {
    accepted: Accepted,
    shared: Arc<Shared>,
}

/// What came of the one request.
type Outcome = Result<(Peer, OnUpgrade), HandshakeError>;

#[async_trait]
impl Incoming for WsIncoming {
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
            let origin = (remote_addr, identity.clone());
            let (response, came_of_it) = shared.respond(request, origin, admission).await;
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
        let upgraded = upgrade.await.map_err(lost)?;
        Ok(start(upgraded, peer, &shared.config.mux))
    }

    /// Drops the pipe.
    fn refuse(self: Box<Self>) {}
}

impl Shared {
    async fn respond(
        &self,
        mut request: Request<IncomingBody>,
        origin: (SocketAddr, Identity),
        admission: &dyn Admission,
    ) -> (Response<Full<Bytes>>, Outcome) {
        let upgrade = hyper::upgrade::on(&mut request);
        let has_body = !request.body().is_end_stream();
        let (request, _) = request.into_parts();
        if request.uri.path() != self.config.path {
            let response = closing((self.fallback)(&request));
            let error = lost(NoAgent::new(&request, response.status()));
            return (response, Err(error));
        }
        match judge(&request, has_body, origin, admission).await {
            Ok(Agreed { response, peer }) => (response, Ok((peer, upgrade))),
            Err(refused) => (*refused.response, Err(refused.error)),
        }
    }
}

/// One request is all that a connection may have.
fn closing(response: Response<Bytes>) -> Response<Full<Bytes>> {
    let mut response = response.map(Full::from);
    let close = http::HeaderValue::from_static("close");
    response.headers_mut().insert(http::header::CONNECTION, close);
    response
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
