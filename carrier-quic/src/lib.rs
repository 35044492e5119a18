//! The QUIC carrier: one QUIC stream for each tunnel stream (`docs/wire.md` §5).
//!
//! An agent dials with [`QuicCarrier`], a server listens with [`QuicListener`]; both take a [`QuicConfig`]. QUIC itself
//! gives streams, flow control, keepalive, address validation, migration and encryption. What this crate adds:
//!
//! * claim and welcome on the first stream, before any other (`handshake`);
//! * head and answer as the preamble of every stream, read beside one another so that a slow one delays nobody
//!   (`opening`, `inbound`);
//! * a sender that was dropped resets its stream; quinn would finish it (`stream`);
//! * streams take turns, and those with little under way go ahead of busy ones (`room`);
//! * a stream limit that is exact, and a connection window that stalled streams cannot exhaust (`limit`, `pressure`);
//! * drain (`control`);
//! * ears for the news that nobody has the peer's port any more (`reports`, `attend`, and `socket` on Linux).

mod attend;
mod config;
mod congestion;
mod connection;
mod control;
mod dial;
mod endpoint;
mod error;
mod handshake;
mod inbound;
mod limit;
mod listener;
mod opening;
mod preamble;
mod pressure;
mod reports;
mod room;
mod shared;
mod socket;
mod stream;
mod tls_alert;

pub use config::{Congestion, InvalidConfig, QuicConfig, QuicConfigBuilder};
pub use dial::QuicCarrier;
pub use endpoint::ClientEndpoint;
pub use listener::QuicListener;
pub use reports::PortReports;

/// The carrier's name, as on the command line and on metrics.
pub const NAME: &str = "quic";

/// The ALPN protocol (RFC 7301) that both ends insist on.
pub const ALPN: &[u8] = b"tunnel/1";
