//! What an agent knows of its connections.

use std::{net::SocketAddr, time::Duration};

use tunnel_proto::{AgentId, Generation, ServerId};

use crate::keep::LastError;

/// How an agent is at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AgentStatus {
    /// The agent's name.
    pub agent: AgentId,
    /// Which life of it this is.
    pub generation: Generation,
    /// Whether it is draining: it connects no more and takes no new streams.
    pub draining: bool,
    /// Its servers, as they were configured.
    pub servers: Vec<ServerStatus>,
    /// Its listeners, in the order in which they were added.
    pub listeners: Vec<ListenerStatus>,
}

/// How one of an agent's listeners is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListenerStatus {
    /// By which carrier.
    pub carrier: &'static str,
    /// Where it listens.
    pub addr: SocketAddr,
    /// How many connections that came by it are served.
    pub connections: usize,
}

/// How an agent stands with one of its servers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerStatus {
    /// How the server is reached, best first: a URL for each carrier.
    pub remotes: Vec<String>,
    /// Whether it is connected: the state of the connection that stands best.
    pub state: ServerState,
    /// The states of the connections that are kept with it, as many as
    /// [`AgentConfig::connections`](super::AgentConfig::connections), or more while
    /// [many streams](super::AgentConfig::max_connections) are open. Behind a load balancer they may lead to different
    /// servers.
    pub connections: Vec<ServerState>,
    /// What went wrong last.
    pub last_error: Option<LastError>,
    /// How many older connections with the server only finish their streams.
    pub draining_connections: usize,
    /// The place in [`AgentStatus::servers`] of another one that has turned out to be the same server. The
    /// connections of both are kept, but they are no protection against the loss of that server.
    pub same_as: Option<usize>,
}

impl ServerStatus {
    /// Whether both are connected, and with the same server.
    pub(super) fn is_same_server(&self, other: &Self) -> bool {
        self.connected_servers()
            .any(|this| other.connected_servers().any(|that| this == that))
    }

    fn connected_servers(&self) -> impl Iterator<Item = &ServerId> {
        self.connections.iter().filter_map(|state| match state {
            ServerState::Connected { server, .. } => Some(server),
            _ => None,
        })
    }
}

/// How it stands with a connection with a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerState {
    /// Another connection with the server is tried first.
    Queued,
    /// The agent is trying to connect.
    Connecting,
    /// It is connected.
    #[non_exhaustive]
    Connected {
        /// The server's name.
        server: ServerId,
        /// By which carrier.
        carrier: &'static str,
        /// The URL that was dialled.
        remote: String,
        /// The server's address when the connection was made.
        addr: SocketAddr,
        /// For how long.
        since: Duration,
    },
    /// The agent will try again.
    #[non_exhaustive]
    Waiting {
        /// In how long.
        next_try: Duration,
    },
    /// The agent does not try any more, because it is draining or has ended.
    Ended,
}
