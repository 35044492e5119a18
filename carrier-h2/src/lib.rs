//! The HTTP/2 carrier: one CONNECT stream (RFC 9113 §8.5) per stream of the tunnel (`docs/wire.md` §12).
//!
//! An agent dials with [`H2Carrier`], a server listens with [`H2Listener`]; both take a [`H2Config`], and their byte pipes
//! from `tunnel-tcp`, so that they work over proxies, TLS and a simulated network alike. A connection begins with an
//! upgrade of HTTP/1.1, which carries claim and welcome and passes what passes HTTP. Then the roles turn round: the
//! *server* is HTTP/2's client, because it is the one that opens most streams.
//!
//! - `upgrade`: claim and welcome.
//! - `http2`: HTTP/2 itself, and streams on it, whatever protocol opens them.
//! - `native`: the tunnel's own protocol on it.
//! - [`forward`]: plain CONNECT with proxies and clients of others, HBONE among them.
//!
//! # Streams that the agent opens
//!
//! HTTP/2 lets only its client open streams. So an agent asks for a stream on a control stream, and the server, when it
//! has accepted, opens it in the agent's stead. That takes no longer than to open one and to wait for the answer, and
//! everything stays on one connection: a second one, in the other direction, may end at another server when a balancer
//! is on the way, has to be tied to the first by a secret, and has a life and a death of its own.
//!
//! # Flow control
//!
//! HTTP/2 returns a connection's credit only with that of a stream, as bytes are read. So the connection's window is
//! larger by what readers have not taken, and memory is bounded by the budget of the [mux](H2ConfigBuilder::mux). See
//! [`H2ConfigBuilder::connection_window`].

mod config;
mod dial;
#[cfg(feature = "forward")]
pub mod forward;
mod http2;
mod listener;
mod native;
mod upgrade;

pub use config::{H2Config, H2ConfigBuilder};
pub use dial::H2Carrier;
pub use listener::H2Listener;
pub use tunnel_core::{mux::MuxConfig, proto::mux::InvalidConfig};

/// The carrier's name, as on the command line and on metrics.
pub const NAME: &str = "h2";

/// The scheme of servers in clear text.
pub const PLAIN: &str = "h2c";

/// The ALPN protocol (RFC 7301): the connection begins with HTTP/1.1.
pub const ALPN: &[u8] = b"http/1.1";

/// What the connection is upgraded to (RFC 9110 §7.8).
pub const PROTOCOL: &str = "tunnel-h2";

/// The path of the tunnel where none is named.
pub const DEFAULT_PATH: &str = "/tunnel";
