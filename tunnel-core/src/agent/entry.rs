//! One configured server: how it is reached, and how the agent stands with it.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::time::Instant;
use tunnel_proto::ServerId;

use super::status::{ServerState, ServerStatus};
use crate::{
    carrier::Carrier,
    keep::{Bundle, Current, Phase},
};

/// One configured server.
#[derive(Debug)]
pub(super) struct Entry {
    /// Best first.
    pub(super) carriers: Vec<Arc<dyn Carrier>>,
    /// The connections with it that are kept. Behind a load balancer they may lead to different servers.
    pub(super) bundle: Bundle,
    /// How many connections with it are served.
    served: AtomicUsize,
}

impl Current {
    /// The server's name, which a carrier has verified to be there.
    pub(super) fn server(&self) -> Option<&ServerId> {
        self.connection.peer().welcome().map(|welcome| &welcome.server)
    }
}

impl Entry {
    /// A server with which at least and at most as many connections are kept.
    pub(super) fn new(carriers: Vec<Arc<dyn Carrier>>, least: NonZeroU32, most: NonZeroU32) -> Self {
        Self {
            carriers,
            bundle: Bundle::new(least, most),
            served: AtomicUsize::new(0),
        }
    }

    /// Whether a connection leads to this server.
    pub(super) fn is_connected_with(&self, server: &ServerId) -> bool {
        self.bundle.current().any(|current| current.server() == Some(server))
    }

    /// Counts a connection as served until the guard is dropped.
    pub(super) fn serve(self: &Arc<Self>) -> Served {
        self.served.fetch_add(1, Ordering::Relaxed);
        Served(Arc::clone(self))
    }

    /// The connections on which streams can be opened, the least busy one first.
    pub(super) fn least_busy_first(&self) -> Vec<Arc<Current>> {
        let mut current: Vec<_> = self.bundle.current().collect();
        current.sort_by_cached_key(|current| current.connection.stats().streams_open);
        current
    }

    pub(super) fn status(&self, now: Instant) -> ServerStatus {
        let connections: Vec<_> = self.bundle.phases().map(|phase| state(&phase, now)).collect();
        let is_up = |state: &&ServerState| matches!(state, ServerState::Connected { .. });
        let up = connections.iter().filter(is_up).count();
        ServerStatus {
            remotes: self.carriers.iter().map(|carrier| carrier.remote()).collect(),
            state: state(&self.bundle.best(), now),
            connections,
            last_error: self.bundle.last_error(now),
            draining_connections: self.served.load(Ordering::Relaxed).saturating_sub(up),
            same_as: None,
        }
    }
}

/// How it stands with one connection.
fn state(phase: &Phase, now: Instant) -> ServerState {
    match phase {
        Phase::Queued => ServerState::Queued,
        Phase::Connecting => ServerState::Connecting,
        Phase::Connected(current) => match current.server() {
            Some(server) => ServerState::Connected {
                server: server.clone(),
                carrier: current.connection.peer().carrier,
                remote: current.remote.clone(),
                addr: current.connection.peer().remote_addr,
                since: now.saturating_duration_since(current.since),
            },
            None => ServerState::Connecting,
        },
        Phase::Waiting { until } => ServerState::Waiting {
            next_try: until.saturating_duration_since(now),
        },
        Phase::Unneeded | Phase::Ended => ServerState::Ended,
    }
}

/// One served connection.
pub(super) struct Served(Arc<Entry>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.served.fetch_sub(1, Ordering::Relaxed);
    }
}
