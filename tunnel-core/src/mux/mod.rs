//! Carries streams over a link: the driver of [`tunnel_proto::mux`].
//!
//! A carrier that has an ordered pipe of messages implements [`Link`], settles claim and welcome in its own way or
//! with [`introduce`] and [`read_claim`], and gets its connection from [`start`].

mod connection;
mod handshake;
mod inbound;
mod link;
mod news;
mod recv;
mod send;
mod shared;
mod state;
mod task;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::Arc;

use tunnel_proto::mux::{Budget, Config, Mux, Side};

use self::{connection::LinkConnection, shared::Shared, state::now, task::Task};
pub use self::{
    handshake::{HandshakeFailure, introduce, read_claim, reject, welcome},
    link::{Link, LinkError},
};
use crate::carrier::{Connection, Peer, PeerRole};

/// What a connection over a link needs to know.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MuxConfig {
    /// Windows, limits and keepalive of each connection.
    pub proto: Config,
    /// The memory that all connections of the process may hold together. Every connection has to be given a clone of
    /// the same one; by default there is one for each `MuxConfig` and its clones.
    pub budget: Budget,
}

impl MuxConfig {
    /// Puts one together.
    #[must_use]
    pub fn new(proto: Config, budget: Budget) -> Self {
        Self { proto, budget }
    }
}

/// With a budget of its own.
impl From<Config> for MuxConfig {
    fn from(proto: Config) -> Self {
        Self::new(proto, Budget::default())
    }
}

/// Starts a connection over `link`, whose two ends have agreed on claim and welcome: this end is the agent if `peer` is
/// a server, and the server otherwise. Streams wait for the peer's first message, so nothing has to be waited for here.
///
/// A task of its own drives it, so this has to be called on a tokio runtime with time. It ends at most a second after
/// the connection, which ends at the latest when the handle is dropped.
#[must_use = "a connection ends when its handle is dropped"]
pub fn start(link: Box<dyn Link>, peer: Peer, config: MuxConfig) -> Arc<dyn Connection> {
    let side = match peer.role {
        PeerRole::Server(_) | PeerRole::Foreign => Side::Agent,
        PeerRole::Agent(_) => Side::Server,
    };
    let mux = Mux::new(side, config.proto, config.budget.account(), now());
    let shared = Shared::new(mux, link.ending());
    tokio::spawn(Task::new(link, Arc::clone(&shared), peer.clone()).run());
    Arc::new(LinkConnection { shared, peer })
}
