//! Keeps a remote connected: an agent its servers, a server its upstreams.
//!
//! It dials, waits until the connection takes no new streams any more, and dials again: first quickly, then with
//! [`Backoff`]. What a connection is used for is its owner's.

mod backoff;
mod bundle;
mod demand;
mod report;
mod standing;

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tunnel_proto::{Claim, CloseCode};

use self::bundle::Turn;
pub use self::{
    backoff::{Backoff, BackoffConfig, Failure},
    standing::LastError,
};
pub(crate) use self::{
    bundle::Bundle,
    demand::Demand,
    report::Chain,
    standing::{Current, Phase, Standing},
};
use crate::{
    carrier::{self, Carrier, Connection},
    error::{ConnectionError, DialError, Initiator},
    time::after,
};

/// One of the connections with a remote, as its loop sees it.
pub(crate) trait Remote: Sync {
    /// How log lines about the remote begin: with nothing, or with its name, a colon and a space.
    fn name(&self) -> String;

    /// All connections with the remote.
    fn bundle(&self) -> &Bundle;

    /// Whether this one is kept only while the open streams call for it.
    fn is_extra(&self) -> bool {
        false
    }

    /// How it stands with this one, which is part of the bundle.
    fn standing(&self) -> &Standing;

    /// Notes how it stands.
    fn set(&self, phase: Phase) {
        self.standing().set(phase);
    }

    /// Dials once, and puts the connection to use, [`Phase::Connected`] included.
    fn connect(&self) -> impl Future<Output = Result<Arc<Current>, NotConnected>> + Send;
}

/// Why an attempt to connect came to nothing.
#[derive(Debug)]
pub(crate) struct NotConnected {
    pub(crate) failure: Failure,
    /// Whether the remote was there and takes no more connections at the moment.
    pub(crate) is_overloaded: bool,
    /// What went wrong, with the causes.
    pub(crate) text: String,
}

/// Keeps a connection with a remote until the future is dropped.
pub(crate) async fn keep(remote: &impl Remote, config: BackoffConfig) -> Infallible {
    let redialled = || remote.standing().redial.notified();
    let mut keeper = Keeper::new(remote, config);
    // The connection before, while it may still take streams.
    let mut old = None::<Leaving>;
    loop {
        keeper.take_turn().await;
        remote.set(Phase::Connecting);
        // Made before the attempt: what changes meanwhile may come too late for it.
        let mut redial = redialled();
        let wait = match remote.connect().await {
            Ok(current) => {
                drop(old.take());
                let cause = keeper.until_lost(&current).await;
                redial = redialled();
                let wait = keeper.lost(&current, cause);
                old = Some(Leaving(current));
                wait
            }
            Err(not_connected) => keeper.failed(not_connected),
        };
        let until = after(Instant::now(), wait);
        remote.set(Phase::Waiting { until });
        tokio::select! {
            () = sleep_until(until) => {}
            () = redial => {}
        }
    }
}

/// A connection that is drained when this is dropped: its end may only have been announced, and nobody has told the peer.
struct Leaving(Arc<Current>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.connection.drain();
    }
}

/// What is lost sooner than this was not wanted by the remote, although it was welcome.
const A_WHILE: Duration = Duration::from_secs(1);

/// What a loop remembers of its attempts.
struct Keeper<'a, R> {
    remote: &'a R,
    name: String,
    backoff: Backoff,
    turn: Option<Turn<'a>>,
    /// Whether the connection before has lasted for a while, if there was one.
    has_lasted: bool,
}

impl<'a, R: Remote> Keeper<'a, R> {
    fn new(remote: &'a R, config: BackoffConfig) -> Self {
        Self {
            remote,
            name: remote.name(),
            backoff: Backoff::new(config, fastrand::Rng::new()),
            turn: None,
            has_lasted: true,
        }
    }

    async fn take_turn(&mut self) {
        if self.turn.is_none() {
            self.remote.set(Phase::Queued);
            self.turn = self.remote.bundle().turn().await;
        }
    }

    /// Waits until a new connection takes no new streams any more; gives the cause if it was lost.
    async fn until_lost(&mut self, current: &Current) -> Option<ConnectionError> {
        let bundle = self.remote.bundle();
        let count = bundle.count();
        bundle.report.connected(&self.name, &current.remote, count);
        let is_first = count.up == 1;
        if is_first {
            // What has kept the others away may be over.
            bundle.redial();
        }
        let mut lost = pin!(until_lost(&*current.connection));
        if is_first && !self.has_lasted {
            // As long as connections do not last, one at a time is enough.
            if let Ok(cause) = timeout(A_WHILE, &mut lost).await {
                return cause;
            }
        }
        self.turn = None;
        lost.await
    }

    /// How long to wait after a connection that drains, or was lost for this cause.
    fn lost(&mut self, current: &Current, cause: Option<ConnectionError>) -> Duration {
        let Self { remote, backoff, .. } = self;
        let (bundle, now) = (remote.bundle(), Instant::now());
        remote.set(Phase::Queued);
        let lasted = now.saturating_duration_since(current.since);
        self.has_lasted = lasted >= A_WHILE;
        let failure = cause.as_ref().map_or(Failure::PLAIN, Failure::from);
        let count = bundle.count();
        if let Some(cause) = &cause
            && count.up > 0
            && cause.initiator() == Initiator::Remote
            && cause.code() == Some(CloseCode::OVERLOADED)
        {
            // Welcome at first, and one too many in the end.
            return self.surplus(failure, Chain(cause).to_string());
        }
        let wait = backoff.lost(now, lasted, failure);
        let text = cause.map(|cause| Chain(&cause).to_string());
        bundle
            .report
            .lost(&self.name, &current.remote, text.as_deref(), count, wait);
        if let Some(text) = text {
            remote.standing().set_error(now, text);
        }
        wait
    }

    /// How long to wait after an attempt that has failed.
    fn failed(&mut self, failed: NotConnected) -> Duration {
        let Self { remote, backoff, .. } = self;
        let (bundle, now) = (remote.bundle(), Instant::now());
        let count = bundle.count();
        if count.up > 0 {
            self.turn = None;
            if failed.is_overloaded {
                return self.surplus(failed.failure, failed.text);
            }
        }
        let wait = backoff.failed(now, failed.failure);
        bundle
            .report
            .failed(&self.name, &failed.text, count, wait, remote.is_extra());
        remote.standing().set_error(now, failed.text);
        wait
    }

    /// How long to wait when the remote takes no more connections than are up.
    fn surplus(&mut self, failure: Failure, text: String) -> Duration {
        let bundle = self.remote.bundle();
        let wait = self.backoff.surplus(failure);
        let is_extra = self.remote.is_extra();
        bundle.report.surplus(&self.name, &text, bundle.count(), wait, is_extra);
        if !is_extra {
            self.remote.standing().set_error(Instant::now(), text);
        }
        wait
    }
}

/// Dials within a limit. The carrier knows best why it takes so long, but is not relied upon to keep the deadline.
pub(crate) async fn dial(
    carrier: &dyn Carrier,
    claim: &Claim,
    limit: Duration,
) -> Result<Arc<dyn Connection>, DialError> {
    let deadline = after(Instant::now(), limit);
    match timeout_at(deadline, carrier.dial(claim, deadline)).await {
        Ok(dialled) => dialled,
        Err(_elapsed) => Err(DialError::TimedOut {
            remote: carrier.remote(),
        }),
    }
}

impl From<&DialError> for NotConnected {
    fn from(error: &DialError) -> Self {
        Self {
            failure: Failure::from(error),
            is_overloaded: is_overloaded(error),
            text: Chain(error).to_string(),
        }
    }
}

/// Whether the server is there and takes no more connections at the moment.
pub(crate) fn is_overloaded(error: &DialError) -> bool {
    matches!(error, DialError::Rejected { rejection, .. } if rejection.code == CloseCode::OVERLOADED)
}

/// Waits until a connection takes no new streams any more; gives the cause if it was lost.
async fn until_lost(connection: &dyn Connection) -> Option<ConnectionError> {
    connection.draining().await;
    // It may drain because it has ended, and may have ended because it has drained: without streams that is at once.
    let cause = carrier::ended(connection).await;
    cause.filter(|cause| cause.code() != Some(CloseCode::DRAINED))
}
