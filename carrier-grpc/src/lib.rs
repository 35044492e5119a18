//! The gRPC carrier: a mux in the messages of one bidirectional call (`docs/wire.md` §11).
//!
//! An agent dials with [`GrpcCarrier`], a server listens with [`GrpcListener`]; both take a [`GrpcConfig`], and their
//! byte pipes from `tunnel-tcp`, so that they work over proxies, TLS and a simulated network alike. To load balancers
//! and meshes a connection is an ordinary call of an ordinary service; [`tunnel_core::mux`] carries its streams.
//!
//! # Copies
//!
//! Going out none: hyper is given the mux's message in its chunks, behind nine bytes of prefixes, and HTTP/2 writes
//! them to the socket, or to TLS, where they are. Coming in none for a long packet in one HTTP/2 frame, which has a buffer
//! for itself, and one for others: their frames are joined in memory of their own, because they are cut anywhere and share
//! their buffer. Payload is sliced off that.
//!
//! # Flow control
//!
//! A call is one HTTP/2 stream. Its window is twice the connection window of the
//! [mux](GrpcConfigBuilder::mux), and that of a server's HTTP/2 connection four times as large, because
//! balancers put several calls on one. What arrives is given to the mux at once, so HTTP/2 returns credit at once, too,
//! and the mux's credit for each stream is what slows a sender down.
//!
//! # Identity
//!
//! The certificate of the TLS connection counts. Behind a proxy that ends TLS there is none, and only the credential
//! tells who the agent is.

mod body;
mod config;
mod deadline;
mod dial;
mod explain;
mod health;
mod incoming;
mod inlet;
mod join;
mod link;
mod listener;
mod metadata;
mod outlet;
mod packet;
mod parked;
mod pipe;
mod serve;
mod status;
mod tasks;

pub use config::{GrpcConfig, GrpcConfigBuilder};
pub use dial::GrpcCarrier;
pub use listener::GrpcListener;
pub use tunnel_core::{mux::MuxConfig, proto::mux::InvalidConfig};

/// The carrier's name, as on the command line and on metrics.
pub const NAME: &str = "grpc";

/// The scheme of servers in clear text.
pub const PLAIN: &str = "grpc+plain";

/// The ALPN protocol (RFC 7301): HTTP/2.
pub const ALPN: &[u8] = b"h2";

/// The service that agents call.
pub const SERVICE: &str = "tunnel.v1.Tunnel";

/// The path of its one method.
pub const METHOD: &str = "/tunnel.v1.Tunnel/Connect";
