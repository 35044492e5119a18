//! The admin address: health, metrics and what is connected.

mod connections;

use std::{
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::connections::Connections;
use crate::{descriptors, logging};

/// How long to wait after a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What a program tells of itself on its admin address.
pub trait Status: Send + Sync + 'static {
    /// Whether new work should come here; otherwise why not, in one line.
    fn ready(&self) -> Result<(), String>;

    /// What is connected at the moment.
    fn sessions(&self) -> serde_json::Value;
}

/// A bound admin address that does not serve yet.
pub struct Admin {
    listener: TcpListener,
    addr: SocketAddr,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("addr", &self.addr).finish()
    }
}

impl Admin {
    /// Binds the address.
    pub async fn bind(addr: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(addr)
            .await
            .with_context(|| format!("cannot listen on the admin address {addr}; choose another with --admin"))?;
        let addr = listener.local_addr().context("the admin address is not known")?;
        Ok(Self { listener, addr })
    }

    /// The address, with the port that was chosen.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `stop` is cancelled. Requests that have begun are answered, within a second.
    pub async fn serve(self, status: impl Status, mut metrics: Registry, stop: CancellationToken) {
        logging::register(&mut metrics);
        info!("admin on http://{}: /livez /readyz /metrics /sessions", self.addr);
        let state = Arc::new(Shared {
            status: Box::new(status),
            metrics,
        });
        let router = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics_text))
            .route("/sessions", get(sessions))
            .with_state(state);
        let mut connections = Connections::new(router, descriptors::for_admin(), stop.clone());
        loop {
            let accepted = accept(|cx| poll_accept(&self.listener, cx), &mut connections);
            let Some(socket) = stop.run_until_cancelled(accepted).await else {
                break;
            };
            connections.admit(socket).await;
        }
        drop(self.listener);
        connections.end().await;
    }
}

/// Lets in whoever asks, also when no descriptors are left for anybody else. Somebody else may have taken one that was kept
/// back, while one could be had here: then a connection gives way that asks for nothing.
async fn accept(mut poll: impl FnMut(&mut Context<'_>) -> Accepted, connections: &mut Connections) -> TcpStream {
    loop {
        match poll_fn(&mut poll).await {
            Ok((socket, _)) => return socket,
            // The client is gone already, accept(2).
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) if connections.make_room().await => {}
            Err(error) => {
                warn!(%error, "cannot accept a client of the admin address at the moment");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

type Accepted = Poll<io::Result<(TcpStream, SocketAddr)>>;

fn poll_accept(listener: &TcpListener, cx: &mut Context<'_>) -> Accepted {
    match listener.poll_accept(cx) {
        Poll::Ready(Err(_)) => descriptors::with_reserve(|| listener.poll_accept(cx)),
        accepted => accepted,
    }
}

struct Shared {
    status: Box<dyn Status>,
    metrics: Registry,
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    match shared.status.ready() {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics_text(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &shared.metrics) {
        Ok(()) => (
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn sessions(State(shared): State<Arc<Shared>>) -> Response {
    let text = format!("{:#}\n", shared.status.sessions());
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    struct Sample(Arc<AtomicBool>);

    impl Status for Sample {
        fn ready(&self) -> Result<(), String> {
            let ready = self.0.load(Ordering::Relaxed);
            ready.then_some(()).ok_or_else(|| "draining".to_owned())
        }

        fn sessions(&self) -> serde_json::Value {
            serde_json::json!({ "agents": [] })
        }
    }

    async fn fetch(addr: SocketAddr, path: &str) -> String {
        let mut socket = tokio::net::TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_connection_gives_way_to_one_for_which_there_is_no_descriptor() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut connections = Connections::new(Router::new(), 10, CancellationToken::new());
        let mut quiet = TcpStream::connect(addr).await.unwrap();
        connections.admit(listener.accept().await.unwrap().0).await;

        let _next = TcpStream::connect(addr).await.unwrap();
        let since = tokio::time::Instant::now();
        let mut shortage = Some(io::Error::other("too many open files"));
        let poll = |cx: &mut Context<'_>| match shortage.take() {
            Some(error) => Poll::Ready(Err(error)),
            None => listener.poll_accept(cx),
        };
        accept(poll, &mut connections).await;
        assert_eq!(since.elapsed(), Duration::ZERO);
        assert_eq!(quiet.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn readiness_follows_the_program() {
        let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = admin.addr();
        let ready = Arc::new(AtomicBool::new(true));
        let stop = CancellationToken::new();
        let mut registry = Registry::default();
        let counter = prometheus_client::metrics::counter::Counter::<u64>::default();
        registry.register("things", "Things", counter.clone());
        counter.inc();
        let served = tokio::spawn(admin.serve(Sample(ready.clone()), registry, stop.clone()));

        assert!(fetch(addr, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(addr, "/readyz").await.starts_with("HTTP/1.1 200"));
        ready.store(false, Ordering::Relaxed);
        let answer = fetch(addr, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.ends_with("draining\n"),
            "{answer}"
        );
        let metrics = fetch(addr, "/metrics").await;
        assert!(
            metrics.contains("application/openmetrics-text") && metrics.contains("things_total 1"),
            "{metrics}"
        );
        assert!(metrics.trim_end().ends_with("# EOF"), "{metrics}");
        assert!(fetch(addr, "/sessions").await.contains("\"agents\": []"));
        assert!(fetch(addr, "/other").await.starts_with("HTTP/1.1 404"));

        stop.cancel();
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_sends_half_a_request_does_not_hold_up_the_end() {
        let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = admin.addr();
        let stop = CancellationToken::new();
        let status = Sample(Arc::new(AtomicBool::new(true)));
        let served = tokio::spawn(admin.serve(status, Registry::default(), stop.clone()));
        let mut client = tokio::net::TcpStream::connect(addr).await.unwrap();
        client.write_all(b"GET /livez HTTP/1.1\r\nHost:").await.unwrap();
        assert!(fetch(addr, "/livez").await.starts_with("HTTP/1.1 200"));

        stop.cancel();
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, served).await.unwrap().unwrap();
    }
}
