//! The HTTP CONNECT frontend: clients ask for a target with `CONNECT host:port`, and the connection becomes the
//! tunnel.
//!
//! ```text
//! client ── CONNECT host:port HTTP/1.1 ──▶ frontend ── Opener::open ──▶ agent ──▶ target
//!        ◀── 200 Connection established ──          ◀──── answer ─────
//!        ◀═══════════════════════ bytes, both ways ═══════════════════════▶
//! ```
//!
//! It listens on TCP, on TLS and on Unix sockets ([`Endpoint`]), speaks HTTP/1.1 and HTTP/1.0, and serves one request
//! on each connection: a CONNECT that succeeds turns the connection into a tunnel, and behind every other answer it is
//! closed, after the client has had a chance to read it.
//!
//! The small loop around `httparse` is our own, because an HTTP server library has other goals than a tunnel: the 200
//! has to wait for the agent's answer, with the client watched meanwhile; what the client sends early must be kept
//! apart, bounded, and never be forwarded before the target has agreed (request smuggling) nor be read as another
//! request; and nothing but the tunnel may be written behind the 200.
//!
//! | what happens | answer |
//! | --- | --- |
//! | the tunnel stands | 200, without any field |
//! | malformed request, target or content announced | 400 |
//! | policy of the server or the agent forbids it | 403 |
//! | unknown agent or target | 404 |
//! | another method | 405 with `Allow` |
//! | credentials are missing or wrong | 407 with `Proxy-Authenticate` |
//! | the head takes too long | 408 |
//! | too many pending dials of this client | 429 with `Retry-After` |
//! | the head is too large | 431 |
//! | an error in the server or the agent | 500 |
//! | the target refuses, is unroutable or unknown to DNS | 502 |
//! | no agent, or a limit is reached | 503 with `Retry-After` |
//! | the target or DNS takes too long | 504 |
//! | another HTTP version | 505 |
//!
//! Every answer but 200 has `Proxy-Status` (RFC 9209) and a body of one line that say who failed and why.

mod auth;
mod config;
mod connection;
mod head;
mod listen;
mod metrics;
mod pending;
mod request;
mod response;
mod serve;
mod status;

pub use self::{
    auth::{Challenge, ClientAuthenticator, Credentials, Unauthenticated},
    config::Config,
    listen::unix::{UnixBindError, UnixEndpoint},
    metrics::Metrics,
    request::{AGENT_HEADER, AGENT_LABELS_HEADER},
    serve::{BindError, ConnectFrontend, Endpoint, Shutdown},
};
