//! The server's side on a port of its own.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Response, StatusCode, request};
use http_body_util::Full;
use tunnel_core::{AcceptError, Admission, Connection, HandshakeError, Identity, Incoming, Listener, Peer};
use tunnel_tcp::{
    Accept, Accepted, ServerSecurity,
    upgrade::{self, Refused},
};
use tunnel_tls::ServerTls;

use crate::{
    ALPN, NAME,
    accept::{judge, start},
    config::WsConfig,
};

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

#[async_trait]
impl Incoming for WsIncoming {
    fn remote_addr(&self) -> SocketAddr {
        self.accepted.remote_addr
    }

    /// The caller bounds the time, which bounds how slowly a request may come, too.
    async fn handshake(self: Box<Self>, admission: &dyn Admission) -> Result<Arc<dyn Connection>, HandshakeError> {
        let (remote_addr, io) = (self.accepted.remote_addr, self.accepted.open()?);
        let shared = self.shared;
        let (io, identity) = shared.security.secure(io).await?;
        let answer = |request, has_body| shared.answer(request, has_body, (remote_addr, identity.clone()), admission);
        let (peer, pipe) = upgrade::serve(io, answer).await?;
        Ok(start(pipe, peer, &shared.config.mux))
    }

    /// Drops the pipe.
    fn refuse(self: Box<Self>) {}
}

impl Shared {
    async fn answer(
        &self,
        request: request::Parts,
        has_body: bool,
        origin: (SocketAddr, Identity),
        admission: &dyn Admission,
    ) -> Result<(Response<Full<Bytes>>, Peer), Refused> {
        if request.uri.path() != self.config.path {
            let response = closing((self.fallback)(&request));
            let error = upgrade::stranger(&request, response.status());
            let response = Box::new(response);
            return Err(Refused { response, error });
        }
        judge(&request, has_body, origin, admission).await
    }
}

/// One request is all that a connection may have.
fn closing(response: Response<Bytes>) -> Response<Full<Bytes>> {
    let mut response = response.map(Full::from);
    let close = http::HeaderValue::from_static("close");
    response.headers_mut().insert(http::header::CONNECTION, close);
    response
}
