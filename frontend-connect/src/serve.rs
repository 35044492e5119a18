//! Binding, accepting and draining.

use std::{convert::Infallible, fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream, UnixStream},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};
use tunnel_core::{Opener, RefusalKind, Socket};
use tunnel_tls::ServerTls;

use crate::{
    config::Config,
    connection::{self, Caller, Shared},
    listen::{
        tcp,
        tls::{Handshake, Tls},
        unix::{self, UnixBindError, UnixEndpoint},
    },
    metrics::{FrontendLabels, Held, Metrics},
    pending::PendingDials,
    response::RefusalResponse,
};

/// How many connections beyond the limit are told so at once. Those after them wait to be accepted.
const TURNED_AWAY: usize = 64;
/// How long to wait after the first failure to accept, and at most after later ones.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// How often at most it is worth a line in the log that no client can be accepted.
const REMIND_AFTER: Duration = Duration::from_secs(60);

/// Where a frontend listens.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Endpoint {
    /// HTTP without TLS on TCP: `connect://ADDR`.
    Tcp(SocketAddr),
    /// HTTP under TLS on TCP: `connect+tls://ADDR`. A client's certificate is its identity.
    Tls(SocketAddr, Arc<ServerTls>),
    /// HTTP on a Unix socket: `connect+unix:///PATH`.
    Unix(UnixEndpoint),
}

impl Endpoint {
    /// The name of this kind of frontend, as on the command line and on metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "connect",
            Self::Tls(..) => "connect+tls",
            Self::Unix(_) => "connect+unix",
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) | Self::Tls(addr, _) => write!(f, "{}://{addr}", self.name()),
            Self::Unix(unix) => write!(f, "{}://{}", self.name(), unix.path.display()),
        }
    }
}

/// Why a frontend cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The TCP address cannot be listened on.
    #[error("cannot listen on {addr}")]
    Tcp {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The Unix socket cannot be listened on.
    #[error("cannot listen on the socket {}", path.display())]
    Unix {
        /// The path.
        path: PathBuf,
        /// Why.
        source: UnixBindError,
    },
}

/// When a frontend ends.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// No new connections; those that are open go on.
    pub drain: CancellationToken,
    /// Everything ends at once; tunnels are cut in a way that nobody takes for their proper end.
    pub kill: CancellationToken,
}

/// A frontend that listens and has not begun to accept.
#[derive(Debug)]
pub struct ConnectFrontend {
    acceptor: Acceptor,
    endpoint: Endpoint,
    config: Config,
    metrics: Metrics,
}

#[derive(Debug)]
enum Acceptor {
    Tcp(TcpListener),
    Tls(TcpListener, Tls),
    Unix(unix::Listener),
}

/// A client's socket as it was accepted.
#[derive(Debug)]
enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Tls(TcpStream, SocketAddr, Tls),
    Unix(UnixStream),
}

impl ConnectFrontend {
    /// Listens. Clients can connect from here on; they are served once [`serve`](Self::serve) runs.
    pub async fn bind(endpoint: Endpoint, config: Config) -> Result<Self, BindError> {
        let (acceptor, endpoint) = match endpoint {
            Endpoint::Tcp(addr) => {
                let (listener, addr) = bind_tcp(addr)?;
                (Acceptor::Tcp(listener), Endpoint::Tcp(addr))
            }
            Endpoint::Tls(addr, tls) => {
                let (listener, addr) = bind_tcp(addr)?;
                (Acceptor::Tls(listener, Tls::new(&tls)), Endpoint::Tls(addr, tls))
            }
            Endpoint::Unix(unix) => {
                let listener = bind_unix(&unix).await?;
                (Acceptor::Unix(listener), Endpoint::Unix(unix))
            }
        };
        Ok(Self {
            acceptor,
            endpoint,
            config,
            metrics: Metrics::default(),
        })
    }

    /// Counts into these metrics.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Where it listens; with port 0, the port that the system chose.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The TCP address on which it listens, if any.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.endpoint {
            Endpoint::Tcp(addr) | Endpoint::Tls(addr, _) => Some(*addr),
            Endpoint::Unix(_) => None,
        }
    }

    /// Serves clients until it is drained or killed, and every connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops accepting and leaves the connections that are open to themselves and to
    /// [`Shutdown::kill`].
    pub async fn serve(self, opener: Arc<dyn Opener>, shutdown: Shutdown) {
        let Self {
            acceptor,
            endpoint,
            config,
            metrics,
        } = self;
        let shared = Arc::new(Shared {
            name: endpoint.name(),
            pending: PendingDials::new(config.max_pending_dials_per_client, config.max_pending_dials),
            config,
            opener,
            meter: Arc::new(metrics.meter(endpoint.name())),
            metrics,
            tasks: TaskTracker::new(),
            kill: shutdown.kill.clone(),
        });
        info!(%endpoint, "listening for clients");
        tokio::select! {
            never = accept(&acceptor, &shared) => match never {},
            () = shutdown.drain.cancelled() => {}
            () = shutdown.kill.cancelled() => {}
        }
        drop(acceptor);
        shared.tasks.close();
        info!(%endpoint, open = shared.tasks.len(), "no longer listening for clients");
        shared.tasks.wait().await;
    }
}

fn bind_tcp(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    tcp::bind(addr)
        .and_then(|listener| {
            let addr = listener.local_addr()?;
            Ok((listener, addr))
        })
        .map_err(|source| BindError::Tcp { addr, source })
}

async fn bind_unix(endpoint: &UnixEndpoint) -> Result<unix::Listener, BindError> {
    let owned = endpoint.clone();
    // It waits for a lock on the directory.
    let bound = tokio::task::spawn_blocking(move || unix::Listener::bind(&owned)).await;
    bound
        .unwrap_or_else(|lost| Err(io::Error::other(lost).into()))
        .map_err(|source| BindError::Unix {
            path: endpoint.path.clone(),
            source,
        })
}

/// Accepts connections for ever and serves each in its own task.
async fn accept(acceptor: &impl Accept, shared: &Arc<Shared>) -> Infallible {
    let room = Room::new(shared.config.max_connections);
    let mut backoff = ACCEPT_BACKOFF.0;
    let mut told: Option<Instant> = None;
    loop {
        let place = room.wait().await;
        match acceptor.accept().await {
            Ok(socket) => {
                backoff = ACCEPT_BACKOFF.0;
                let place = room.improve(place);
                spawn(socket, Open::new(shared, place));
            }
            // The client is gone already, accept(2).
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if told.is_none_or(|at| at.elapsed() >= REMIND_AFTER) {
                    warn!(%error, frontend = shared.name, "cannot accept a client at the moment");
                    told = Some(Instant::now());
                }
                sleep(backoff).await;
                backoff = (backoff * 2).min(ACCEPT_BACKOFF.1);
            }
        }
    }
}

/// Serves a connection in a task of its own, on the thread that has the fewest.
fn spawn(mut socket: Accepted, open: Open) {
    let shared = Arc::clone(&open.shared);
    let thread = shared.config.threads.fewest_tasks();
    let is_elsewhere = thread.id() != Handle::current().id();
    let serve = async move {
        if is_elsewhere && let Err(error) = socket.settle() {
            debug!(%error, "a client's socket stays with another thread");
        }
        open.serve(socket).await;
    };
    shared.tasks.spawn_on(serve, &thread);
}

/// Where connections come from.
trait Accept {
    fn accept(&self) -> impl Future<Output = io::Result<Accepted>> + Send;
}

impl Accept for Acceptor {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => listener
                .accept()
                .await
                .map(|(socket, addr)| Accepted::Tcp(socket, addr)),
            Self::Tls(listener, tls) => {
                let (socket, addr) = listener.accept().await?;
                Ok(Accepted::Tls(socket, addr, tls.clone()))
            }
            Self::Unix(listener) => listener.accept().await.map(Accepted::Unix),
        }
    }
}

impl Accepted {
    /// Takes it to the runtime that calls.
    fn settle(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(socket, _) | Self::Tls(socket, ..) => socket.settle(),
            Self::Unix(socket) => socket.settle(),
        }
    }
}

/// A connection that is open.
struct Open {
    shared: Arc<Shared>,
    /// Its place, and its part of the count of connections.
    held: (Place, Held),
}

impl Open {
    fn new(shared: &Arc<Shared>, place: Place) -> Self {
        Self {
            shared: Arc::clone(shared),
            held: (place, Held::new(&shared.metrics.connections_open, shared.name)),
        }
    }

    /// Serves a connection, whatever it is on.
    async fn serve(self, socket: Accepted) {
        let unwelcome = self.held.0.crowded.then(|| {
            let limit = self.shared.config.max_connections;
            let text = format!("all {limit} connections that this frontend may have are in use");
            RefusalResponse::of_kind(RefusalKind::ConnectionLimitReached, text)
        });
        let mut caller = Caller {
            unwelcome,
            ..Caller::default()
        };
        match socket {
            Accepted::Tcp(socket, addr) => {
                caller.client.addr = Some(addr);
                self.prepare(&socket, addr);
                self.serve_http(socket, caller).await;
            }
            Accepted::Tls(socket, addr, tls) => {
                caller.client.addr = Some(addr);
                self.prepare(&socket, addr);
                // On the heap, so that the others need not have the room for TLS.
                Box::pin(self.serve_tls(socket, tls, caller)).await;
            }
            Accepted::Unix(socket) => {
                caller.user = socket.peer_cred().map(|peer| peer.uid()).ok();
                self.serve_http(socket, caller).await;
            }
        }
    }

    fn prepare(&self, socket: &TcpStream, client: SocketAddr) {
        if let Err(error) = tcp::prepare(socket, self.shared.config.tcp_keepalive) {
            // The client has gone meanwhile, or the system lacks an option, which is no reason not to serve.
            debug!(%client, %error, "cannot set the options of the client's socket");
        }
    }

    async fn serve_tls(self, socket: TcpStream, tls: Tls, mut caller: Caller) {
        let shared = &self.shared;
        // On the heap, so that its room is free afterwards.
        let shaking = Box::pin(tls.handshake(socket, shared.config.handshake_timeout));
        let handshake = tokio::select! {
            handshake = shaking => handshake,
            () = shared.kill.cancelled() => return,
        };
        if !matches!(handshake, Ok(Handshake::Done(..) | Handshake::Left)) {
            let frontend = FrontendLabels { frontend: shared.name };
            shared.metrics.failed_handshakes.get_or_create(&frontend).inc();
        }
        match handshake {
            Ok(Handshake::Done(socket, identity)) => {
                caller.client.identity = identity;
                self.serve_http(socket, caller).await;
            }
            Ok(Handshake::Left) => {}
            Ok(Handshake::Unidentified(socket, error)) => {
                let refusal = RefusalResponse::of_kind(RefusalKind::HttpRequestDenied, error.to_string());
                caller.unwelcome = Some(refusal);
                self.serve_http(socket, caller).await;
            }
            Ok(Handshake::Plain(socket)) => {
                let text = "this port speaks TLS, but the request came without it: use an https:// proxy URL";
                caller.unwelcome = Some(RefusalResponse::of_kind(RefusalKind::HttpRequestError, text));
                self.serve_http(socket, caller).await;
            }
            Err(error) => {
                let reason = tunnel_tls::explain(&error);
                info!(client = %caller, %reason, "the TLS handshake with a client failed");
            }
        }
    }

    /// Serves a client whose socket is ready for HTTP. The tunnel gets a task of its own, which is smaller than this one,
    /// and at home with the connection of its stream.
    async fn serve_http<S: Socket + 'static>(self, socket: S, caller: Caller) {
        let Self { shared, held } = self;
        let Some(tunnel) = connection::serve(socket, caller, &shared).await else {
            return;
        };
        let here = Handle::current();
        let home = tunnel.home().unwrap_or(&here).clone();
        let run = tunnel.run(Arc::clone(&shared), home.id() != here.id(), held);
        shared.tasks.spawn_on(run, &home);
    }
}

/// Room for connections, and a little more for those that are to be told that there is none.
struct Room {
    regular: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
}

/// A connection's place, free again when it is dropped.
struct Place {
    crowded: bool,
    _permit: OwnedSemaphorePermit,
}

impl Room {
    fn new(max: usize) -> Self {
        Self {
            regular: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY)),
        }
    }

    /// Waits for a place of either kind.
    async fn wait(&self) -> Place {
        tokio::select! {
            biased;
            Ok(permit) = Arc::clone(&self.regular).acquire_owned() => Place { crowded: false, _permit: permit },
            Ok(permit) = Arc::clone(&self.turned_away).acquire_owned() => Place { crowded: true, _permit: permit },
            // The semaphores are never closed.
            else => std::future::pending().await,
        }
    }

    /// Takes a regular place that became free while the connection was awaited.
    fn improve(&self, place: Place) -> Place {
        match Arc::clone(&self.regular).try_acquire_owned() {
            Ok(permit) if place.crowded => Place {
                crowded: false,
                _permit: permit,
            },
            _ => place,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::connection::{
        Tunnel,
        tests::{config, shared},
    };

    #[tokio::test(start_paused = true)]
    async fn a_failure_to_accept_is_not_tried_again_in_a_hurry() {
        let shared = Arc::new(shared(config()));
        let failing = Failing {
            started: Instant::now(),
            calls: Mutex::default(),
        };
        let accepting = accept(&failing, &shared);
        assert!(timeout(Duration::from_secs(60), accepting).await.is_err());
        let calls = failing.calls.into_inner().unwrap();
        let waits: Vec<_> = calls.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
        // The timer's millisecond is the finest there is.
        let expected = [0, 0, 5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000];
        assert_eq!(waits.len(), expected.len());
        for (wait, expected) in waits.into_iter().zip(expected) {
            assert!(
                (expected..=expected + 1).contains(&wait),
                "{wait} instead of {expected}"
            );
        }
    }

    #[test]
    fn ten_thousand_connections_are_small() {
        fn size<A, F>(_: impl FnOnce(A) -> F) -> usize {
            size_of::<F>()
        }

        let shared = Arc::new(shared(config()));
        let beginning = size(|(open, socket): (Open, Accepted)| open.serve(socket));
        let tunnel = size(|(tunnel, held): (Tunnel<TcpStream>, (Place, Held))| tunnel.run(shared, true, held));
        assert!(beginning <= 3072 && tunnel <= 1536, "{beginning}, {tunnel}");
    }

    /// Fails a few times, then has nobody to accept.
    struct Failing {
        started: Instant,
        /// When it was called.
        calls: Mutex<Vec<Duration>>,
    }

    impl Accept for Failing {
        async fn accept(&self) -> io::Result<Accepted> {
            let calls = {
                let mut calls = self.calls.lock().unwrap();
                calls.push(self.started.elapsed());
                calls.len()
            };
            match calls {
                // The client is gone: the next one may be there already.
                1 | 2 => Err(io::ErrorKind::ConnectionAborted.into()),
                3..=12 => Err(io::Error::other("no descriptors are left")),
                _ => std::future::pending().await,
            }
        }
    }

    #[tokio::test]
    async fn a_place_that_became_free_is_taken() {
        let room = Room::new(1);
        let first = room.wait().await;
        assert!(!first.crowded);
        let second = room.improve(room.wait().await);
        assert!(second.crowded);
        drop(first);
        assert!(!room.improve(second).crowded);
        assert!(!room.wait().await.crowded);
    }

    #[tokio::test]
    async fn those_that_are_turned_away_have_their_limit_too() {
        let room = Room::new(0);
        let mut places = Vec::new();
        for _ in 0..TURNED_AWAY {
            places.push(room.wait().await);
        }
        let mut next = std::pin::pin!(room.wait());
        tokio::select! {
            biased;
            _ = &mut next => panic!("there is no place"),
            () = std::future::ready(()) => {}
        }
        places.pop();
        assert!(next.await.crowded);
    }
}
