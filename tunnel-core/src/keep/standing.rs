//! How it stands with a connection.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::{self, Handle},
    sync::Notify,
    time::Instant,
};

use crate::carrier::Connection;

/// How it stands with a connection that is kept with a remote.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Cuts a wait short.
    pub(crate) redial: Notify,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    phase: Phase,
    last_error: Option<(Instant, String)>,
}

/// Something that went wrong.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LastError {
    /// What, with its causes.
    pub text: String,
    /// How long ago.
    pub ago: Duration,
}

#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// An extra connection that the open streams do not call for.
    Unneeded,
    /// Another connection with the remote is dialled first.
    Queued,
    Connecting,
    Connected(Arc<Current>),
    Waiting {
        until: Instant,
    },
    Ended,
}

/// The connection on which new streams are opened.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) remote: String,
    pub(crate) since: Instant,
    /// The runtime of the loop that keeps it, where it is served.
    pub(crate) home: Option<runtime::Id>,
}

impl Current {
    /// A connection that was just made.
    pub(crate) fn new(connection: Arc<dyn Connection>, remote: String) -> Arc<Self> {
        let since = Instant::now();
        Arc::new(Self {
            connection,
            remote,
            since,
            home: Handle::try_current().ok().map(|home| home.id()),
        })
    }
}

impl Standing {
    pub(crate) fn new(phase: Phase) -> Self {
        Self {
            redial: Notify::new(),
            now: Mutex::new(Now {
                phase,
                last_error: None,
            }),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, phase: Phase) {
        self.now().phase = phase;
    }

    pub(super) fn set_error(&self, at: Instant, text: String) {
        self.now().last_error = Some((at, text));
    }

    pub(crate) fn phase(&self) -> Phase {
        self.now().phase.clone()
    }

    /// What went wrong last.
    pub(crate) fn last_error(&self, at: Instant) -> Option<LastError> {
        let error = self.now().last_error.clone();
        error.map(|(failed, text)| LastError {
            text,
            ago: at.saturating_duration_since(failed),
        })
    }

    pub(crate) fn current(&self) -> Option<Arc<Current>> {
        match &self.now().phase {
            Phase::Connected(current) => Some(Arc::clone(current)),
            Phase::Unneeded | Phase::Queued | Phase::Connecting | Phase::Waiting { .. } | Phase::Ended => None,
        }
    }
}
