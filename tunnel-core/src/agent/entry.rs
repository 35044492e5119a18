//! One configured server: how it is reached, and how the agent stands with it.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{sync::Notify, time::Instant};
use tunnel_proto::ServerId;

use super::status::{LastError, ServerState, ServerStatus};
use crate::carrier::{Carrier, Connection};

/// One configured server.
#[derive(Debug)]
pub(super) struct Entry {
    /// Best first.
    pub(super) carriers: Vec<Arc<dyn Carrier>>,
    /// Cuts a wait short.
    pub(super) redial: Notify,
    /// How many connections with it are served.
    served: AtomicUsize,
    standing: Mutex<Standing>,
}

#[derive(Debug)]
struct Standing {
    phase: Phase,
    last_error: Option<(Instant, String)>,
}

#[derive(Clone, Debug)]
pub(super) enum Phase {
    Connecting,
    Connected(Arc<Current>),
    Waiting { until: Instant },
    Ended,
}

/// The connection on which new streams are opened.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) connection: Arc<dyn Connection>,
    pub(super) remote: String,
    pub(super) since: Instant,
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
            redial: Notify::new(),
            served: AtomicUsize::new(0),
            standing: Mutex::new(Standing {
                phase: Phase::Connecting,
                last_error: None,
            }),
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, phase: Phase) {
        self.standing().phase = phase;
    }

    pub(super) fn set_error(&self, now: Instant, text: String) {
        self.standing().last_error = Some((now, text));
    }

    pub(super) fn current(&self) -> Option<Arc<Current>> {
        match &self.standing().phase {
            Phase::Connected(current) => Some(Arc::clone(current)),
            Phase::Connecting | Phase::Waiting { .. } | Phase::Ended => None,
        }
    }

    /// Counts a connection as served until the guard is dropped.
    pub(super) fn serve(self: &Arc<Self>) -> Served {
        self.served.fetch_add(1, Ordering::Relaxed);
        Served(Arc::clone(self))
    }

    pub(super) fn status(&self, now: Instant) -> ServerStatus {
        let standing = self.standing();
        let state = match &standing.phase {
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
        let last_error = standing.last_error.as_ref().map(|(at, text)| LastError {
            text: text.clone(),
            ago: now.saturating_duration_since(*at),
        });
        drop(standing);
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
