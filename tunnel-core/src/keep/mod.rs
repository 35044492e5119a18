//! Keeps a remote connected: an agent its servers, a server its upstreams.
//!
//! It dials, waits until the connection takes no new streams any more, and dials again: first quickly, then with
//! [`Backoff`]. What a connection is used for is its owner's.

mod backoff;
mod report;
mod standing;

use std::{convert::Infallible, future::ready, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info, warn};
use tunnel_proto::Claim;

use self::report::Novelty;
pub use self::{
    backoff::{Backoff, BackoffConfig, Failure},
    standing::LastError,
};
pub(crate) use self::{
    report::Chain,
    standing::{Current, Phase, Standing},
};
use crate::{
    carrier::{Carrier, Connection},
    error::{ConnectionError, DialError},
    time::after,
};

/// A remote that is kept connected.
pub(crate) trait Remote: Sync {
    /// How log lines about it begin: with nothing, or with its name, a colon and a space.
    fn name(&self) -> String;

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
    /// What went wrong, with the causes.
    pub(crate) text: String,
}

/// Keeps a remote connected until the future is dropped.
pub(crate) async fn keep(remote: &impl Remote, config: BackoffConfig) -> Infallible {
    let (name, standing) = (remote.name(), remote.standing());
    let mut backoff = Backoff::new(config, fastrand::Rng::new());
    let mut novelty = Novelty::default();
    loop {
        remote.set(Phase::Connecting);
        // Made before the attempt: what changes meanwhile may come too late for it.
        let mut redial = standing.redial.notified();
        let wait = match remote.connect().await {
            Ok(current) => {
                novelty.clear();
                let cause = until_lost(&*current.connection).await;
                redial = standing.redial.notified();
                let now = Instant::now();
                let wait = backoff.lost(
                    now,
                    now.saturating_duration_since(current.since),
                    cause.as_ref().map_or(Failure::PLAIN, Failure::from),
                );
                let url = &current.remote;
                match cause {
                    Some(cause) => {
                        let text = Chain(&cause).to_string();
                        warn!("{name}connection with {url} lost: {text}; connecting again in {wait:.0?}");
                        standing.set_error(now, text);
                    }
                    None => info!("{name}{url} is draining; connecting anew in {wait:.0?}, open streams go on"),
                }
                wait
            }
            Err(NotConnected { failure, text }) => {
                let now = Instant::now();
                let wait = backoff.failed(now, failure);
                if novelty.is_news(&text, now) {
                    warn!("{name}not connected: {text}; trying again in {wait:.0?}");
                } else {
                    debug!("{name}not connected: {text}; trying again in {wait:.0?}");
                }
                standing.set_error(now, text);
                wait
            }
        };
        let until = after(Instant::now(), wait);
        remote.set(Phase::Waiting { until });
        tokio::select! {
            () = sleep_until(until) => {}
            () = redial => {}
        }
    }
}

/// Waits until a connection takes no new streams any more; gives the cause if it has ended.
async fn until_lost(connection: &dyn Connection) -> Option<ConnectionError> {
    connection.draining().await;
    // It may drain because it has ended.
    tokio::select! {
        biased;
        cause = connection.closed() => Some(cause),
        () = ready(()) => None,
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
            text: Chain(error).to_string(),
        }
    }
}
