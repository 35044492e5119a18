//! Keeps one server connected.

use std::{future::ready, sync::Arc};

use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info, warn};
use tunnel_proto::Claim;

use super::{
    Inner,
    backoff::{Backoff, Failure},
    entry::{Current, Entry, Phase},
    metrics::{CarrierLabels, CauseLabels},
    report::{Chain, Novelty},
    serve,
};
use crate::{
    carrier::{Carrier, Connection},
    error::{ConnectionError, DialError},
    time::after,
};

/// Keeps one server connected until the agent drains or ends.
pub(super) async fn run(agent: Arc<Inner>, entry: Arc<Entry>) {
    tokio::select! {
        // Before the agent's own drain is taken for the server's.
        biased;
        () = agent.leaving() => {}
        () = agent.stop.cancelled() => {}
        () = keep(&agent, &entry) => {}
    }
    agent.set_phase(&entry, Phase::Ended);
}

async fn keep(agent: &Arc<Inner>, entry: &Arc<Entry>) {
    let mut backoff = Backoff::new(agent.config.backoff, fastrand::Rng::new());
    let mut novelty = Novelty::default();
    loop {
        agent.set_phase(entry, Phase::Connecting);
        // Made before the attempt: what changes meanwhile may come too late for it.
        let mut redial = entry.redial.notified();
        let wait = match connect(agent, entry).await {
            Ok((carrier, connection)) => {
                novelty.clear();
                let current = agent.connected(entry, &*carrier, connection);
                let cause = until_lost(&*current.connection).await;
                redial = entry.redial.notified();
                let now = Instant::now();
                let wait = backoff.lost(
                    now,
                    now.saturating_duration_since(current.since),
                    cause.as_ref().map_or(Failure::PLAIN, Failure::from),
                );
                let remote = &current.remote;
                match cause {
                    Some(cause) => {
                        let text = Chain(&cause).to_string();
                        warn!("connection with {remote} lost: {text}; connecting again in {wait:.0?}");
                        entry.set_error(now, text);
                    }
                    None => info!("{remote} is draining; connecting anew in {wait:.0?}, open streams go on"),
                }
                wait
            }
            Err(NotConnected { failure, text }) => {
                let now = Instant::now();
                let wait = backoff.failed(now, failure);
                if novelty.is_news(&text, now) {
                    warn!("not connected: {text}; trying again in {wait:.0?}");
                } else {
                    debug!("not connected: {text}; trying again in {wait:.0?}");
                }
                entry.set_error(now, text);
                wait
            }
        };
        let until = after(Instant::now(), wait);
        agent.set_phase(entry, Phase::Waiting { until });
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

/// Why an attempt to connect came to nothing.
struct NotConnected {
    failure: Failure,
    /// What went wrong with each carrier.
    text: String,
}

/// Dials a server by its carriers, best first.
async fn connect(agent: &Inner, entry: &Entry) -> Result<(Arc<dyn Carrier>, Arc<dyn Connection>), NotConnected> {
    let mut claim = agent.claim.clone();
    if let Some(source) = &agent.credential {
        let secret = source.get().await.map_err(|error| NotConnected {
            failure: Failure::PLAIN,
            text: format!("cannot get the credential: {}", Chain(&error)),
        })?;
        claim.credential = Some(secret);
    }
    let mut failed = NotConnected {
        failure: Failure {
            is_retryable: false,
            not_before: None,
        },
        text: String::new(),
    };
    for (at, carrier) in entry.carriers.iter().enumerate() {
        let is_last = at + 1 == entry.carriers.len();
        let error = match dial(agent, &**carrier, &claim, is_last).await {
            Ok(connection) => return Ok((Arc::clone(carrier), connection)),
            Err(error) => error,
        };
        if at > 0 {
            failed.text.push_str("; ");
        }
        failed.text.push_str(&Chain(&error).to_string());
        failed.failure.is_retryable |= error.is_retryable();
        failed.failure.not_before = failed.failure.not_before.max(error.not_before());
        if asks_for_patience(&error) {
            break;
        }
    }
    Err(failed)
}

async fn dial(
    agent: &Inner,
    carrier: &dyn Carrier,
    claim: &Claim,
    is_last: bool,
) -> Result<Arc<dyn Connection>, DialError> {
    let config = &agent.config;
    let limit = if is_last {
        config.connect_timeout
    } else {
        config.fallback_after.min(config.connect_timeout)
    };
    let name = carrier.name();
    agent
        .metrics
        .connect_attempts
        .get_or_create(&CarrierLabels { carrier: name })
        .inc();
    let deadline = after(Instant::now(), limit);
    // The carrier knows best why it takes so long, but is not relied upon to keep the deadline.
    let dialled = match timeout_at(deadline, carrier.dial(claim, deadline)).await {
        Ok(dialled) => dialled,
        Err(_elapsed) => Err(DialError::TimedOut {
            remote: carrier.remote(),
        }),
    };
    let dialled = dialled.and_then(|connection| match connection.peer().welcome() {
        Some(_) => Ok(connection),
        None => Err(DialError::Protocol {
            remote: carrier.remote(),
            detail: "there was no welcome".to_owned(),
        }),
    });
    if let Err(error) = &dialled {
        let labels = CauseLabels {
            carrier: name,
            cause: error.label(),
        };
        agent.metrics.connect_failures.get_or_create(&labels).inc();
    }
    dialled
}

/// Whether the server is there and would say the same by any other carrier.
fn asks_for_patience(error: &DialError) -> bool {
    matches!(error, DialError::Rejected { rejection, .. } if rejection.code.is_retryable())
}

impl Inner {
    /// Puts a new connection to use.
    fn connected(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        carrier: &dyn Carrier,
        connection: Arc<dyn Connection>,
    ) -> Arc<Current> {
        let remote = carrier.remote();
        let current = Arc::new(Current {
            connection: Arc::clone(&connection),
            remote,
            since: Instant::now(),
        });
        let remote = &current.remote;
        if let Some(server) = current.server() {
            info!("connected with server {server} at {remote}");
            if let Some(other) = self.twin(entry, server) {
                warn!("{remote} and {other} lead to the same server, {server}: losing it loses both");
            }
        }
        let served = entry.serve();
        self.set_phase(entry, Phase::Connected(Arc::clone(&current)));
        self.tasks.spawn(serve::run(Arc::clone(self), connection, served));
        current
    }
}
