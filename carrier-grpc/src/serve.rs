//! One TCP connection of a server, and the calls on it.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::{body::Incoming as Body, server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    pin,
    runtime::Handle,
    select,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tunnel_core::{CloseCode, HandshakeError, Identity, Place, Rejection};
use tunnel_tcp::{Accepted, ServerSecurity, expect_http2};

use crate::{
    METHOD, NAME,
    body::{self, GRPC, ServerBody},
    config::{GrpcConfig, MAX_FRAME, MAX_HEADERS},
    deadline, health,
    incoming::{self, GrpcIncoming},
    inlet::Inlet,
    parked::Parked,
    pipe::Pipe,
    status,
};

/// How long a peer that was asked to go may take to close a connection without calls.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// What the connections of a listener share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: GrpcConfig,
    pub(crate) security: ServerSecurity,
    /// Calls that wait to be accepted.
    pub(crate) calls: mpsc::Sender<GrpcIncoming>,
    /// Cancelled when the listener is dropped.
    pub(crate) gone: CancellationToken,
}

/// A connection that has passed its handshake.
#[derive(Debug)]
struct Peer {
    shared: Arc<Shared>,
    remote_addr: SocketAddr,
    identity: Identity,
    calls: watch::Sender<Calls>,
    /// Held until a call is accepted: before, this may be anybody.
    place: Mutex<Option<Place>>,
}

/// The calls of a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    open: usize,
    /// There has been one.
    any: bool,
}

/// Counts a call for as long as it lives.
#[derive(Debug)]
pub(crate) struct OpenCall(Arc<Peer>);

impl OpenCall {
    fn new(peer: &Arc<Peer>) -> Self {
        peer.calls.send_modify(|calls| {
            calls.open += 1;
            calls.any = true;
        });
        Self(Arc::clone(peer))
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.calls.send_modify(|calls| calls.open -= 1);
    }
}

/// Serves a connection to its end, at its home.
pub(crate) async fn serve(accepted: Accepted, shared: Arc<Shared>, place: Place) {
    let remote_addr = accepted.remote_addr;
    let handshake = async {
        let (io, identity) = shared.security.secure(accepted.open()?).await?;
        let (begin, io) = expect_http2(io, "this port speaks gRPC, which needs HTTP/2").await?;
        Ok::<_, HandshakeError>((Pipe::begun(begin, io), identity))
    };
    let (io, identity) = match timeout(shared.config.handshake_timeout, handshake).await {
        Ok(Ok(begun)) => begun,
        Ok(Err(error @ HandshakeError::Lost(_))) => {
            return tracing::debug!(%remote_addr, error = &error as &dyn std::error::Error, "no HTTP/2 connection");
        }
        // It may be an agent that is set up wrongly, and no call will come that the server could speak of.
        Ok(Err(error)) => {
            let (carrier, error) = (NAME, &error as &dyn std::error::Error);
            return tracing::info!(carrier, remote = %remote_addr, error, "handshake failed");
        }
        Err(_) => return tracing::debug!(%remote_addr, "no HTTP/2 connection in time"),
    };
    let peer = Peer {
        shared,
        remote_addr,
        identity,
        calls: watch::Sender::default(),
        place: Mutex::new(Some(place)),
    };
    http2(io, Arc::new(peer)).await;
}

async fn http2(io: Pipe, peer: Arc<Peer>) {
    let config = &peer.shared.config;
    let silence = config.keepalive().bound();
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(config.stream_window())
        .initial_connection_window_size(config.shared_window())
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buf_size(config.send_buffer)
        .max_concurrent_streams(config.max_calls)
        // Behind the mux's own, which says more of what has happened.
        .keep_alive_interval(silence)
        .keep_alive_timeout(silence);
    let service = service_fn(|request| {
        let call = OpenCall::new(&peer);
        async move {
            let mut response = route(request, &call.0).await;
            response.body_mut().call = Some(call);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = builder.serve_connection(TokioIo::new(io), service);
    pin!(connection);
    let mut calls = peer.calls.subscribe();
    let mut is_leaving = false;
    loop {
        let patience = |calls: Calls| match calls.any {
            _ if is_leaving => CLOSE_GRACE,
            true => config.idle_timeout,
            false => config.handshake_timeout,
        };
        select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(remote_addr = %peer.remote_addr, error, "a HTTP/2 connection failed");
                }
                return;
            }
            () = idle(patience, &mut calls) => {
                if is_leaving {
                    return;
                }
            }
            () = peer.shared.gone.cancelled(), if !is_leaving => {}
        }
        is_leaving = true;
        connection.as_mut().graceful_shutdown();
    }
}

/// Waits until there has been no call for as long as `patience` says.
async fn idle(patience: impl Fn(Calls) -> Duration, calls: &mut watch::Receiver<Calls>) {
    loop {
        // The sender lives as long as the connection.
        let _ = calls.wait_for(|calls| calls.open == 0).await;
        let patience = patience(*calls.borrow());
        select! {
            () = sleep(patience) => return,
            _ = calls.wait_for(|calls| calls.open > 0) => {}
        }
    }
}

async fn route(request: Request<Body>, peer: &Arc<Peer>) -> Response<ServerBody> {
    if !request.headers().get(CONTENT_TYPE).is_some_and(is_grpc) {
        return body::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "this port speaks gRPC\n");
    }
    if request.method() != Method::POST {
        return body::text(StatusCode::METHOD_NOT_ALLOWED, "gRPC calls are made by POST\n");
    }
    let is_tunnel = request.uri().path() == METHOD;
    let refused = |rejection: Rejection| match is_tunnel {
        true => incoming::rejected(&rejection),
        false => body::status(Status::new(status::code(rejection.code), rejection.text.as_str())),
    };
    let deadline = match deadline::of(request.headers(), Instant::now()) {
        Ok(None) => return call(request, peer).await,
        Ok(Some(deadline)) => deadline,
        Err(problem) => return refused(Rejection::new(CloseCode::PROTOCOL, problem.to_string())),
    };
    match timeout_at(deadline, call(request, peer)).await {
        Ok(mut response) => {
            response.body_mut().end_at(deadline);
            response
        }
        Err(_) => refused(Rejection::new(CloseCode::TIMEOUT, deadline::exceeded().message())),
    }
}

async fn call(request: Request<Body>, peer: &Arc<Peer>) -> Response<ServerBody> {
    let gone = &peer.shared.gone;
    match request.uri().path() {
        METHOD => connect(request, peer).await,
        health::CHECK => health::check(request.into_body(), gone).await,
        health::WATCH => health::watch(request.into_body(), gone).await,
        _ => body::status(Status::unimplemented("there is no such method here")),
    }
}

/// Whether messages come as gRPC has them, and in protobuf. gRPC-Web is something else.
fn is_grpc(kind: &HeaderValue) -> bool {
    let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let kind = kind.trim_ascii().to_ascii_lowercase();
    kind == GRPC.as_bytes() || kind == PROTOBUF
}

const PROTOBUF: &[u8] = b"application/grpc+proto";

/// Hands a call to whoever accepts, and waits for the answer.
async fn connect(request: Request<Body>, peer: &Arc<Peer>) -> Response<ServerBody> {
    let (answer, answered) = oneshot::channel();
    let (head, body) = request.into_parts();
    let parked = Parked::new(Inlet::of_request(body));
    let incoming = GrpcIncoming {
        remote_addr: peer.remote_addr,
        identity: peer.identity.clone(),
        headers: head.headers,
        body: parked.clone(),
        answer,
        home: Handle::current(),
        config: peer.shared.config.clone(),
    };
    let response = async {
        let waiting = peer.shared.calls.send(incoming);
        match timeout(peer.shared.config.handshake_timeout, waiting).await {
            Ok(Ok(())) => answered.await.unwrap_or_else(|_| unavailable()),
            _ => unavailable(),
        }
    };
    let response = select! {
        biased;
        response = response => response,
        detail = poll_fn(|cx| parked.poll_early(cx)) => {
            return incoming::rejected(&Rejection::new(CloseCode::PROTOCOL, detail.as_str()));
        }
    };
    if response.body().is_link() {
        drop(peer.place.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
    response
}

fn unavailable() -> Response<ServerBody> {
    body::status(Status::unavailable(
        "this server takes no more connections at the moment",
    ))
}
