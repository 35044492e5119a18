//! One configured server: how it is reached, and how the agent stands with it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::time::Instant;
use tunnel_proto::ServerId;

use super::status::{ServerState, ServerStatus};
use crate::{
    carrier::Carrier,
    keep::{Current, Phase, Standing},
};

/// One configured server.
#[derive(Debug)]
pub(super) struct Entry {
    /// Best first.
    pub(super) carriers: Vec<Arc<dyn Carrier>>,
    pub(super) standing: Standing,
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
    pub(super) fn new(carriers: Vec<Arc<dyn Carrier>>) -> Self {
        Self {
            carriers,
            standing: Standing::new(),
            served: AtomicUsize::new(0),
        }
    }

    /// Counts a connection as served until the guard is dropped.
    pub(super) fn serve(self: &Arc<Self>) -> Served {
        self.served.fetch_add(1, Ordering::Relaxed);
        Served(Arc::clone(self))
    }

    pub(super) fn status(&self, now: Instant) -> ServerStatus {
        let (phase, last_error) = self.standing.get(now);
        let state = match &phase {
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
            Phase::Ended => ServerState::Ended,
        };
        let current = usize::from(matches!(state, ServerState::Connected { .. }));
        ServerStatus {
            remotes: self.carriers.iter().map(|carrier| carrier.remote()).collect(),
            state,
            last_error,
            draining_connections: self.served.load(Ordering::Relaxed).saturating_sub(current),
            same_as: None,
        }
    }
}

/// One served connection.
pub(super) struct Served(Arc<Entry>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.served.fetch_sub(1, Ordering::Relaxed);
    }
}
