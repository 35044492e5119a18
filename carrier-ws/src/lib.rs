//! The WebSocket carrier: the mux in the binary messages of a WebSocket (`docs/wire.md` §10).
//!
//! An agent dials with [`WsCarrier`], by `ws://` or `wss://`; a server listens with [`WsListener`], or takes the tunnel
//! into an HTTP server that it has already with [`WsAcceptor`]. Both ends take a [`WsConfig`]. WebSockets get through
//! nearly everything that passes HTTP; `docs/websocket.md` says how to set up nginx and HAProxy before a server.
//!
//! * HTTP: the upgrade, with the claim and the welcome in its headers (`request`, `offer`; [`tunnel_tcp::upgrade`] has what
//!   other upgrades share, and explains what else answers at a URL).
//! * Messages: tungstenite reads frames, this crate writes them (`link`).
//! * Streams, credit and keepalive: [`tunnel_core::mux`].

mod accept;
mod config;
mod dial;
mod link;
mod listener;
mod mounted;
mod offer;
mod request;
mod url;

pub use self::{
    config::{WsConfig, WsConfigBuilder},
    dial::WsCarrier,
    listener::{Fallback, WsListener},
    mounted::{WsAcceptor, WsMounted},
    url::{InvalidUrl, WsUrl},
};
pub use tunnel_core::{mux::MuxConfig, proto::mux::InvalidConfig};

/// The carrier's name, as on the command line and on metrics.
pub const NAME: &str = "ws";

/// The ALPN protocol (RFC 7301) of `wss`: a WebSocket begins with HTTP/1.1.
pub const ALPN: &[u8] = b"http/1.1";

/// The WebSocket subprotocol (RFC 6455 §1.9). The number changes only if the mux or the headers could no longer be told
/// apart from within; the protocol's own versions are in the claim.
pub const SUBPROTOCOL: &str = "tunnel.v1";

/// What an agent upgrades to (RFC 6455 §4.1).
pub(crate) const PROTOCOL: &str = "websocket";

/// The path of the tunnel where none is named.
pub const DEFAULT_PATH: &str = "/tunnel";
