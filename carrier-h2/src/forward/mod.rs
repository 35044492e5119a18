//! Plain CONNECT of HTTP/2 (RFC 9113 §8.5) with programs of others, and HBONE.
//!
//! Both ends are here, and neither needs anything of ours at the other one:
//!
//! - [`ForwardListener`] is an agent's: proxies and clients of others connect to it, and every CONNECT is a stream that
//!   the agent serves as it serves those of a tunnel-server.
//! - [`ForwardCarrier`] is a server's: it dials a proxy of others, which then stands for an agent.
//!
//! # What it can and cannot do
//!
//! Its [`CAPABILITIES`] are less than those of the tunnel's own protocol:
//!
//! - The end that has dialled opens all streams.
//! - END_STREAM is the clean end of one half, as FIN is of TCP. RST_STREAM is the only other end, and ends both halves.
//!   So a reset, or the drop of a sender that has not finished, resets the stream in both directions; so does a stop, or
//!   the drop of a receiver before the clean end, except that what a finished sender has queued goes out first. To go on
//!   reading for nobody would keep the peer sending for ever, and nothing but RST_STREAM tells it to stop.
//! - RST_STREAM has the codes of HTTP/2: CONNECT_ERROR for a target whose socket was reset or has failed
//!   (RFC 9113 §8.5), CANCEL for what was given up.
//! - GOAWAY of the end that has accepted is a drain. The other end drains by opening no more streams; it says GOAWAY when
//!   it closes the connection.
//! - The codes with which connections are closed do not arrive: GOAWAY without an error is
//!   [`CloseCode::DRAINED`](tunnel_core::CloseCode::DRAINED) if it cut no stream, else
//!   [`CloseCode::DONE`](tunnel_core::CloseCode::DONE).
//!
//! Trailers mean nothing. Targets are TCP, as CONNECT has them: others are refused before anything is sent.

mod carrier;
mod config;
mod connection;
mod fields;
mod listener;
mod protocol;
mod request;
mod response;

use tunnel_core::{Capabilities, Messages, Openers};

pub use self::{
    carrier::ForwardCarrier,
    config::{Dialect, ForwardConfig, ForwardConfigBuilder},
    listener::ForwardListener,
};

/// The name of carriers of [`Dialect::Connect`], as on metrics. Proxies that speak it have the schemes of the carrier's
/// servers, for they speak HTTP/2 alike: [`NAME`](crate::NAME) and [`PLAIN`](crate::PLAIN).
pub const CONNECT: &str = "forward";

/// The name of carriers of [`Dialect::Hbone`], and the scheme of proxies that speak it over TLS.
pub const HBONE: &str = "hbone";

/// The scheme of such proxies in clear text, for tests.
pub const HBONE_PLAIN: &str = "hbone+plain";

/// The port of HBONE.
pub const HBONE_PORT: u16 = 15008;

/// The ALPN protocol (RFC 7301): HTTP/2.
pub const ALPN: &[u8] = b"h2";

/// What connections of both ends can do.
pub const CAPABILITIES: Capabilities = Capabilities {
    openers: Openers::ServerOnly,
    half_reset: false,
    reset_codes: false,
    messages: Messages::Foreign,
    ..Capabilities::NATIVE
};
