//! Keeps one server connected.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};
use tunnel_proto::{Claim, CloseCode, ServerId};

use super::{Inner, entry::Entry, metrics::CauseLabels, serve};
use crate::{
    carrier::{Carrier, Connection},
    error::DialError,
    keep::{self, Bundle, Chain, Current, Failure, NotConnected, Phase, Remote, Standing},
    metrics::CarrierLabels,
};

/// Keeps one of the connections with a server until the agent drains or ends.
pub(super) async fn always(agent: Arc<Inner>, entry: Arc<Entry>, at: usize) {
    let server = Server { agent, entry, at };
    let agent = &server.agent;
    tokio::select! {
        // Before the agent's own drain is taken for the server's.
        biased;
        () = agent.closing() => {}
        never = keep::keep(&server, agent.config.backoff) => match never {},
    }
    server.set(Phase::Ended);
}

/// Keeps an extra connection with a server while it is needed, on a thread of its own if there is one, until the agent
/// drains or ends.
pub(super) async fn while_needed(agent: Arc<Inner>, entry: Arc<Entry>, at: usize) {
    let demand = Arc::clone(entry.bundle.demand());
    // What was to be waited for when it was no longer needed.
    let mut not_before = Instant::now();
    // The one that was kept before, if it drained because it was no longer needed.
    let mut predecessor = None;
    loop {
        tokio::select! {
            biased;
            () = agent.closing() => return,
            () = demand.exceeds(at) => {}
        }
        let siblings: Vec<_> = entry.bundle.current().filter_map(|current| current.home).collect();
        let home = agent.threads.home_apart_from(&siblings);
        let server = Arc::new(Server {
            agent: Arc::clone(&agent),
            entry: Arc::clone(&entry),
            at,
        });
        let kept = Arc::clone(&server).keep_while_needed(not_before, predecessor);
        predecessor = match home.spawn(agent.tasks.track_future(kept)).await {
            Ok(drains) => drains,
            // It has panicked, and would again.
            Err(_) => return server.set(Phase::Ended),
        };
        if let Phase::Waiting { until } = server.standing().phase() {
            not_before = until;
        }
        server.set(if agent.is_closing() {
            Phase::Ended
        } else {
            Phase::Unneeded
        });
    }
}

/// How often an extra connection that is no longer needed, but the only one that is up, looks for another.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One of the connections with a configured server.
struct Server {
    agent: Arc<Inner>,
    entry: Arc<Entry>,
    /// Which one of them.
    at: usize,
}

impl Remote for Server {
    fn name(&self) -> String {
        String::new()
    }

    fn bundle(&self) -> &Bundle {
        &self.entry.bundle
    }

    fn is_extra(&self) -> bool {
        self.bundle().extra().contains(&self.at)
    }

    fn standing(&self) -> &Standing {
        &self.entry.bundle.all()[self.at]
    }

    fn set(&self, phase: Phase) {
        self.agent.set_phase(self.standing(), phase);
    }

    async fn connect(&self) -> Result<Arc<Current>, NotConnected> {
        let (carrier, connection) = connect(&self.agent, &self.entry).await?;
        if let Some(server) = self.astray(&*connection) {
            debug!("{} leads to {server} now", carrier.remote());
            connection.close(CloseCode::DRAINED, "this extra connection was meant for another server");
            return Err(NotConnected {
                failure: Failure::PLAIN,
                is_overloaded: true,
                text: format!("{} leads to another server now", carrier.remote()),
            });
        }
        Ok(self.connected(&*carrier, connection))
    }
}

/// Dials a server by its carriers, best first.
async fn connect(agent: &Inner, entry: &Entry) -> Result<(Arc<dyn Carrier>, Arc<dyn Connection>), NotConnected> {
    let mut claim = agent.claim.clone();
    if let Some(source) = &agent.credential {
        let limit = agent.config.connect_timeout;
        let secret = source.get(limit).await.map_err(|error| NotConnected {
            failure: Failure::PLAIN,
            is_overloaded: false,
            text: Chain(&error).to_string(),
        })?;
        claim.credential = Some(secret);
    }
    let mut failed = NotConnected {
        failure: Failure {
            is_retryable: false,
            not_before: None,
        },
        is_overloaded: false,
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
        failed.is_overloaded |= keep::is_overloaded(&error);
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
    let dialled = keep::dial(carrier, claim, limit).await;
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

impl Server {
    /// Keeps the connection from then on, until it is no longer needed or the agent drains or ends. Gives the one that
    /// drains then.
    async fn keep_while_needed(
        self: Arc<Self>,
        not_before: Instant,
        predecessor: Option<Arc<Current>>,
    ) -> Option<Arc<Current>> {
        let kept = async {
            if not_before > Instant::now() {
                self.set(Phase::Waiting { until: not_before });
                tokio::select! {
                    () = sleep_until(not_before) => {}
                    () = self.standing().redial.notified() => {}
                }
            }
            keep::keep(&*self, self.agent.config.backoff).await
        };
        tokio::select! {
            biased;
            () = self.agent.closing() => return None,
            never = kept => match never {},
            () = self.unneeded(predecessor) => {}
        }
        let current = self.standing().current()?;
        self.set(Phase::Unneeded);
        current.connection.drain();
        self.bundle().unneeded(&current);
        Some(current)
    }

    /// Waits until the streams no longer call for this extra connection, and another one is up that is needed more: one
    /// that is always kept may have to wait for long before it is dialled again. While its predecessor has streams, it
    /// stays, too: were each wave of load to leave a connection behind that drains, the server would take no more some time.
    async fn unneeded(&self, predecessor: Option<Arc<Current>>) {
        let (bundle, demand) = (self.bundle(), self.bundle().demand());
        if let Some(predecessor) = predecessor {
            predecessor.connection.closed().await;
        }
        let is_last = || {
            let before = bundle.all().iter().take(self.at);
            self.standing().current().is_some() && before.filter_map(Standing::current).next().is_none()
        };
        demand.has_fallen_to(self.at).await;
        while is_last() {
            sleep(LOOK_AGAIN).await;
            demand.has_fallen_to(self.at).await;
        }
    }

    /// Where this connection leads, if it is an extra one that leads elsewhere than those that are up: it takes none of
    /// their load.
    fn astray<'a>(&self, connection: &'a dyn Connection) -> Option<&'a ServerId> {
        let server = &connection.peer().welcome()?.server;
        let is_astray = self.is_extra() && self.bundle().is_up() && !self.entry.is_connected_with(server);
        is_astray.then_some(server)
    }

    /// Puts a new connection to use.
    fn connected(&self, carrier: &dyn Carrier, connection: Arc<dyn Connection>) -> Arc<Current> {
        let Self { agent, entry, .. } = self;
        let current = Current::new(Arc::clone(&connection), carrier.remote());
        let remote = &current.remote;
        // Once for each server, however many connections there are with it.
        if let Some(server) = current.server().filter(|server| !entry.is_connected_with(server)) {
            info!("connected with server {server} at {remote}");
            if let Some(other) = agent.twin(entry, server) {
                warn!("{remote} and {other} lead to the same server, {server}: losing it loses both");
            }
        }
        let served = entry.serve();
        self.set(Phase::Connected(Arc::clone(&current)));
        let demand = Arc::clone(entry.bundle.demand());
        agent
            .tasks
            .spawn(serve::run(Arc::clone(agent), connection, served, Some(demand)));
        current
    }
}
