//! The connections that are kept with one remote.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use super::{
    report::Report,
    standing::{Current, LastError, Phase, Standing},
};

/// The connections that are kept with one remote, at least one, each by a loop of its own.
///
/// The loops dial one after the other. While no connection is up, the one whose turn it is keeps it until it has
/// succeeded, so that a remote which is down is dialled no more often than for one connection.
#[derive(Debug)]
pub(crate) struct Bundle {
    all: Vec<Standing>,
    turn: Semaphore,
    pub(super) report: Report,
}

/// The turn to dial, until it is dropped.
pub(super) type Turn<'a> = SemaphorePermit<'a>;

/// What is dialled again within this time is about to come.
const SOON: Duration = Duration::from_secs(1);

/// How many of a bundle's connections are up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) up: usize,
    /// How many are being dialled, wait for their turn, or are dialled again soon.
    pub(crate) coming: usize,
    /// How many there are to be.
    pub(crate) all: usize,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} connections", self.up, self.all)
    }
}

impl Bundle {
    /// As many connections, at least one, that are to be made.
    pub(crate) fn new(connections: NonZeroU32) -> Self {
        Self {
            all: (0..connections.get()).map(|_| Standing::new()).collect(),
            turn: Semaphore::new(1),
            report: Report::default(),
        }
    }

    /// How it stands with each connection.
    pub(crate) fn all(&self) -> &[Standing] {
        &self.all
    }

    /// The connections that are up.
    pub(crate) fn current(&self) -> impl Iterator<Item = Arc<Current>> {
        self.all.iter().filter_map(Standing::current)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.current().next().is_some()
    }

    /// How it stands with the connection that stands best: the one that has been up longest, or will be up next.
    pub(crate) fn best(&self) -> Phase {
        let rank = |phase: &Phase| match phase {
            Phase::Connected(current) => (0, Some(current.since)),
            Phase::Connecting => (1, None),
            Phase::Waiting { until } => (2, Some(*until)),
            Phase::Queued => (3, None),
            Phase::Ended => (4, None),
        };
        let phases = self.all.iter().map(Standing::phase);
        phases.min_by_key(rank).unwrap_or(Phase::Ended)
    }

    pub(crate) fn count(&self) -> Count {
        let now = Instant::now();
        let mut count = Count {
            up: 0,
            coming: 0,
            all: self.all.len(),
        };
        for standing in &self.all {
            match standing.phase() {
                Phase::Connected(_) => count.up += 1,
                Phase::Connecting | Phase::Queued => count.coming += 1,
                Phase::Waiting { until } if until.saturating_duration_since(now) < SOON => count.coming += 1,
                Phase::Waiting { .. } | Phase::Ended => {}
            }
        }
        count
    }

    /// What went wrong last with any of the connections.
    pub(crate) fn last_error(&self, at: Instant) -> Option<LastError> {
        let errors = self.all.iter().filter_map(|standing| standing.last_error(at));
        errors.min_by_key(|error| error.ago)
    }

    /// Cuts every wait before an attempt short.
    pub(crate) fn redial(&self) {
        self.all.iter().for_each(|standing| standing.redial.notify_waiters());
    }

    /// Waits for the turn to dial; who asks first has it first. Cancel safe.
    pub(super) async fn turn(&self) -> Option<Turn<'_>> {
        // It is never closed, so there always is one.
        self.turn.acquire().await.ok()
    }
}
