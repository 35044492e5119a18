//! The connections that are kept with one remote.

use std::{fmt, num::NonZeroU32, ops::Range, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use super::{
    demand::Demand,
    report::Report,
    standing::{Current, LastError, Phase, Standing},
};

/// The connections that are kept with one remote, at least one, each by a loop of its own. Those beyond the first
/// [`Demand::least`] are extra: kept while the open streams call for them.
///
/// The loops dial one after the other. While no connection is up, the one whose turn it is keeps it until it has
/// succeeded, so that a remote which is down is dialled no more often than for one connection.
#[derive(Debug)]
pub(crate) struct Bundle {
    all: Vec<Standing>,
    demand: Arc<Demand>,
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
    /// How many there are to be at the moment.
    pub(crate) all: usize,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} connections", self.up, self.all)
    }
}

impl Bundle {
    /// At least and at most as many connections, that are to be made.
    pub(crate) fn new(least: NonZeroU32, most: NonZeroU32) -> Self {
        let demand = Demand::new(least, most);
        let standing = |at| match at < demand.least() {
            true => Standing::new(Phase::Queued),
            false => Standing::new(Phase::Unneeded),
        };
        Self {
            all: (0..demand.most()).map(standing).collect(),
            demand,
            turn: Semaphore::new(1),
            report: Report::default(),
        }
    }

    /// How it stands with each connection, extra ones included.
    pub(crate) fn all(&self) -> &[Standing] {
        &self.all
    }

    /// The places of the connections that are always kept.
    pub(crate) fn always(&self) -> Range<usize> {
        0..self.demand.least()
    }

    /// The places of those that are kept while the open streams call for them.
    pub(crate) fn extra(&self) -> Range<usize> {
        self.demand.least()..self.all.len()
    }

    /// How many connections the open streams call for.
    pub(crate) fn demand(&self) -> &Arc<Demand> {
        &self.demand
    }

    /// Notes that an extra connection drains, because the open streams no longer call for it.
    pub(crate) fn unneeded(&self, current: &Current) {
        self.report.unneeded(&current.remote, self.current().count());
    }

    /// The connections that are up.
    pub(crate) fn current(&self) -> impl Iterator<Item = Arc<Current>> {
        self.all.iter().filter_map(Standing::current)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.current().next().is_some()
    }

    /// How it stands with each connection that there is to be at the moment.
    pub(crate) fn phases(&self) -> impl Iterator<Item = Phase> {
        let phases = self.all.iter().map(Standing::phase);
        phases.filter(|phase| !matches!(phase, Phase::Unneeded))
    }

    /// How it stands with the connection that stands best: the one that has been up longest, or will be up next.
    pub(crate) fn best(&self) -> Phase {
        let rank = |phase: &Phase| match phase {
            Phase::Connected(current) => (0, Some(current.since)),
            Phase::Connecting => (1, None),
            Phase::Waiting { until } => (2, Some(*until)),
            Phase::Queued => (3, None),
            Phase::Unneeded | Phase::Ended => (4, None),
        };
        self.phases().min_by_key(rank).unwrap_or(Phase::Ended)
    }

    pub(crate) fn count(&self) -> Count {
        let now = Instant::now();
        let mut count = Count {
            up: 0,
            coming: 0,
            all: 0,
        };
        for phase in self.phases() {
            count.all += 1;
            match phase {
                Phase::Connected(_) => count.up += 1,
                Phase::Connecting | Phase::Queued => count.coming += 1,
                Phase::Waiting { until } if until.saturating_duration_since(now) < SOON => count.coming += 1,
                Phase::Waiting { .. } | Phase::Unneeded | Phase::Ended => {}
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
