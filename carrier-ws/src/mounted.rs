//! The server's side inside somebody else's HTTP server.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, request};
use http_body_util::Full;
use hyper::{body::Body, upgrade::OnUpgrade};
use tokio::sync::{mpsc, oneshot};
use tunnel_core::{
    AcceptError, Admission, CloseCode, Connection, ConnectionError, HandshakeError, Identity, Incoming, Listener,
    Rejection,
};
use tunnel_tcp::upgrade;

use crate::{
    NAME, PROTOCOL,
    accept::{judge, start},
    config::WsConfig,
};

/// How many requests wait for the server to look at them; more are turned away.
const BACKLOG: usize = 256;

/// Takes the tunnel into an HTTP/1.1 server that is there already, such as one of hyper or axum: give it the requests
/// to the tunnel's path, and give the other half, [`WsMounted`], to the tunnel's server as a listener.
///
/// ```no_run
/// use std::{convert::Infallible, net::SocketAddr};
///
/// use carrier_ws::{WsAcceptor, WsConfig};
/// use hyper::{Response, server::conn::http1, service::service_fn};
/// use hyper_util::rt::TokioIo;
/// use tunnel_core::Identity;
///
/// # async fn run() -> std::io::Result<()> {
/// let socket = tokio::net::TcpListener::bind("[::]:8080").await?;
/// let (acceptor, mounted) = WsAcceptor::new(socket.local_addr()?, WsConfig::default());
/// // `mounted` goes to `tunnel_core::Server::builder().listener(Box::new(mounted))`.
/// loop {
///     let (stream, remote_addr) = socket.accept().await?;
///     let acceptor = acceptor.clone();
///     let service = service_fn(move |request| {
///         let acceptor = acceptor.clone();
///         async move {
///             Ok::<_, Infallible>(match request.uri().path() {
///                 "/tunnel" => acceptor.upgrade(request, remote_addr, Identity::anonymous()).await,
///                 _ => Response::new("hello\n".into()),
///             })
///         }
///     });
///     tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
/// }
/// # }
/// ```
///
/// With axum, `response.map(axum::body::Body::new)` makes a response of its kind.
#[derive(Clone)]
pub struct WsAcceptor {
    offers: mpsc::Sender<Asked>,
}

/// The requests of a [`WsAcceptor`], as a listener for the tunnel's server.
///
/// Dropping it turns further requests away.
pub struct WsMounted {
    offers: mpsc::Receiver<Asked>,
    local_addr: SocketAddr,
    config: Arc<WsConfig>,
}

/// A request that waits to be judged.
struct Asked {
    request: request::Parts,
    has_body: bool,
    remote_addr: SocketAddr,
    identity: Identity,
    upgrade: OnUpgrade,
    answer: oneshot::Sender<Response<Full<Bytes>>>,
}

impl WsAcceptor {
    /// Makes both halves. `local_addr` is only told to whoever asks the listener; the path of `config` is not looked
    /// at.
    #[must_use]
    pub fn new(local_addr: SocketAddr, config: WsConfig) -> (Self, WsMounted) {
        let (sender, offers) = mpsc::channel(BACKLOG);
        let mounted = WsMounted {
            offers,
            local_addr,
            config: Arc::new(config),
        };
        (Self { offers: sender }, mounted)
    }

    /// Answers a request to the tunnel's path. The connection that carried it must allow upgrades
    /// (`serve_connection(…).with_upgrades()`; axum's does), and the response must be sent as it is.
    ///
    /// `remote_addr` is where the request came from, and `identity` what the server has verified by TLS:
    /// [`Identity::anonymous`] if it has asked for no certificate. Only pass on what the server knows by itself, never
    /// what a header field says.
    ///
    /// It takes no longer than the tunnel's server allows a handshake.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the attempt.
    pub async fn upgrade<B: Body>(
        &self,
        mut request: Request<B>,
        remote_addr: SocketAddr,
        identity: Identity,
    ) -> Response<Full<Bytes>> {
        let on_upgrade = hyper::upgrade::on(&mut request);
        let has_body = !request.body().is_end_stream();
        let (request, _) = request.into_parts();
        let (answer, answered) = oneshot::channel();
        let asked = Asked {
            request,
            has_body,
            remote_addr,
            identity,
            upgrade: on_upgrade,
            answer,
        };
        match self.offers.try_send(asked) {
            Ok(()) => match answered.await {
                Ok(response) => response,
                Err(_) => rejected(CloseCode::TIMEOUT, "the server did not decide in time"),
            },
            Err(mpsc::error::TrySendError::Full(_)) => overloaded(),
            Err(mpsc::error::TrySendError::Closed(_)) => rejected(CloseCode::SHUTDOWN, "the server is shutting down"),
        }
    }
}

fn overloaded() -> Response<Full<Bytes>> {
    rejected(CloseCode::OVERLOADED, "too many handshakes")
}

fn rejected(code: CloseCode, text: &'static str) -> Response<Full<Bytes>> {
    upgrade::rejected(&Rejection::new(code, text), PROTOCOL)
}

#[async_trait]
impl Listener for WsMounted {
    fn name(&self) -> &'static str {
        NAME
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local_addr)
    }

    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError> {
        let asked = self.offers.recv().await.ok_or(AcceptError::Closed)?;
        let config = Arc::clone(&self.config);
        Ok(Box::new(MountedIncoming { asked, config }))
    }
}

struct MountedIncoming {
    asked: Asked,
    config: Arc<WsConfig>,
}

#[async_trait]
impl Incoming for MountedIncoming {
    fn remote_addr(&self) -> SocketAddr {
        self.asked.remote_addr
    }

    async fn handshake(self: Box<Self>, admission: &dyn Admission) -> Result<Arc<dyn Connection>, HandshakeError> {
        let Self { asked, config } = *self;
        let origin = (asked.remote_addr, asked.identity);
        let mut answer = asked.answer;
        let judged = tokio::select! {
            judged = judge(&asked.request, asked.has_body, origin, admission) => judged,
            () = answer.closed() => return Err(gone()),
        };
        let (response, peer) = match judged {
            Ok(agreed) => agreed,
            Err(refused) => {
                // If it cannot be told, the client is gone.
                let _ = answer.send(*refused.response);
                return Err(refused.error);
            }
        };
        answer.send(response).map_err(|_| gone())?;
        let upgraded = asked.upgrade.await;
        let upgraded = upgraded.map_err(|error| HandshakeError::Lost(ConnectionError::transport(error)))?;
        Ok(start(upgrade::recover(upgraded), peer, &config.mux))
    }

    fn refuse(self: Box<Self>) {
        // If it cannot be told, the client is gone.
        let _ = self.asked.answer.send(overloaded());
    }
}

fn gone() -> HandshakeError {
    HandshakeError::Lost(ConnectionError::transport(io::Error::from(
        io::ErrorKind::ConnectionAborted,
    )))
}

impl fmt::Debug for WsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsAcceptor").finish_non_exhaustive()
    }
}

impl fmt::Debug for WsMounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsMounted")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MountedIncoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountedIncoming")
            .field("remote_addr", &self.asked.remote_addr)
            .finish_non_exhaustive()
    }
}
