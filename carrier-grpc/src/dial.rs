//! The agent's side: dialling a server.

use std::sync::Arc;

use async_trait::async_trait;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{CONTENT_TYPE, TE, USER_AGENT},
    uri::Authority,
};
use hyper::{client::conn::http2, rt::Executor};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tunnel_core::{Carrier, Claim, Connection, ConnectionError, DialError, HostPort, Peer, PeerRole, mux};
use tunnel_tcp::{ClientSecurity, Dial, Dialled, explain_tls};

use crate::{
    METHOD, NAME, PLAIN,
    body::GRPC,
    config::{GrpcConfig, MAX_FRAME, MAX_HEADERS},
    explain,
    inlet::Inlet,
    link::{GrpcLink, Http2},
    metadata,
    outlet::outlet,
    pipe::{Failure, Pipe},
    tasks::Tasks,
};

/// Dials one server by a call of `tunnel.v1.Tunnel/Connect`, each on a HTTP/2 connection of its own.
#[derive(Debug)]
pub struct GrpcCarrier {
    server: HostPort,
    security: ClientSecurity,
    uri: Uri,
    dial: Arc<dyn Dial>,
    config: GrpcConfig,
}

/// What the agent says it is; proxies log it.
const SOFTWARE: &str = concat!("tunnel-agent/", env!("CARGO_PKG_VERSION"));

impl GrpcCarrier {
    /// A carrier to `server` over byte pipes from `dial`. For TLS, `security` is to offer [`ALPN`](crate::ALPN); in clear
    /// text the server has to speak HTTP/2 without being asked (RFC 9113 §3.3), as gRPC servers do.
    ///
    /// Fails if the server's name cannot stand in a URL.
    pub fn new(
        server: HostPort,
        security: ClientSecurity,
        dial: Arc<dyn Dial>,
        config: GrpcConfig,
    ) -> Result<Self, DialError> {
        let authority = match &config.authority {
            Some(authority) => authority.clone(),
            None => Authority::try_from(server.to_string())
                .map_err(|error| DialError::Unusable(format!("{server} cannot be called: {error}")))?,
        };
        let uri = Uri::builder()
            .scheme(if security.is_tls() { "https" } else { "http" })
            .authority(authority)
            .path_and_query(METHOD)
            .build()
            .map_err(|error| DialError::Unusable(format!("{server} cannot be called: {error}")))?;
        Ok(Self {
            server,
            security,
            uri,
            dial,
            config,
        })
    }

    async fn connect(&self, claim: &Claim) -> Result<Arc<dyn Connection>, DialError> {
        let Dialled { io, remote_addr, via } = self.dial.dial(&self.server).await?;
        let remote = match via {
            Some(proxy) => format!("{} (through {proxy})", self.remote()),
            None => self.remote(),
        };
        let (io, identity) = self.security.secure(io, &remote).await?;

        let io = Pipe::new(io);
        let (broken, goaway) = (io.failure(), io.goaway());
        let tasks = Tasks::new();
        let window = self.config.stream_window();
        let mut builder = http2::Builder::new(tasks.spawner());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(window)
            .initial_connection_window_size(window)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(MAX_HEADERS)
            .max_send_buf_size(self.config.send_buffer);
        let handshake = builder.handshake(TokioIo::new(io)).await;
        let (mut http, connection) = handshake.map_err(|error| failure(error, &broken, &remote))?;
        let (ending, ended) = oneshot::channel();
        tasks.spawner().execute(async move {
            // Nobody listens once there is an answer.
            let _ = ending.send(connection.await.err());
        });

        let (outlet, body) = outlet();
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        put_headers(claim, request.headers_mut());
        let (head, body) = match http.send_request(request).await {
            Ok(response) => response.into_parts(),
            // If the connection has failed, that says more than what became of the request.
            Err(error) => {
                let cause = if error.is_canceled() {
                    ended.await.ok().flatten()
                } else {
                    None
                };
                return Err(failure(cause.unwrap_or(error), &broken, &remote));
            }
        };
        let welcome = match metadata::welcome(&head.headers) {
            Ok(welcome) if head.status == StatusCode::OK => welcome,
            Ok(_) | Err(metadata::MetadataError::Missing(_)) => {
                return Err(explain::answer(remote, head.status, &head.headers));
            }
            Err(problem) => {
                let detail = problem.to_string();
                return Err(DialError::Protocol { remote, detail });
            }
        };
        let peer = Peer {
            carrier: NAME,
            identity,
            role: PeerRole::Server(Box::new(welcome)),
            remote_addr,
        };
        let link = GrpcLink {
            inlet: Inlet::of_response(body),
            outlet,
            connection: Some(Http2 { _tasks: tasks, goaway }),
        };
        Ok(mux::start(Box::new(link), peer, self.config.mux.clone()))
    }
}

fn put_headers(claim: &Claim, headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, HeaderValue::from_static(SOFTWARE));
    metadata::put_claim(claim, headers);
}

/// What it means when there is no answer at all.
fn failure(error: hyper::Error, broken: &Failure, remote: &str) -> DialError {
    let remote = remote.to_owned();
    if let Some(error) = broken.get() {
        // With TLS 1.3 a server looks at the client's certificate when the client is through already.
        return match explain_tls(&**error) {
            Some(explanation) => DialError::Tls {
                remote,
                explanation,
                source: Arc::clone(error) as _,
            },
            None => DialError::Lost {
                remote,
                source: ConnectionError::Transport(Arc::clone(error) as _),
            },
        };
    }
    let cause = std::error::Error::source(&error);
    match cause.and_then(|cause| cause.downcast_ref::<h2::Error>()) {
        // Of its own, h2 finds fault only with bytes that are not HTTP/2.
        Some(http2) if http2.is_library() => {
            let hint = if remote.starts_with(PLAIN) {
                ": does it expect TLS, and so grpc://?"
            } else {
                ""
            };
            let detail = format!("its answer is not HTTP/2 ({http2}){hint}");
            DialError::Protocol { remote, detail }
        }
        _ => DialError::Lost {
            remote,
            source: ConnectionError::transport(error),
        },
    }
}

#[async_trait]
impl Carrier for GrpcCarrier {
    fn name(&self) -> &'static str {
        NAME
    }

    fn remote(&self) -> String {
        let scheme = if self.security.is_tls() { NAME } else { PLAIN };
        format!("{scheme}://{}", self.server)
    }

    async fn dial(&self, claim: &Claim, deadline: Instant) -> Result<Arc<dyn Connection>, DialError> {
        match timeout_at(deadline, self.connect(claim)).await {
            Ok(dialled) => dialled,
            Err(_) => Err(DialError::TimedOut { remote: self.remote() }),
        }
    }
}
