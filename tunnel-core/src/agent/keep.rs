//! Keeps one server connected.

use std::sync::Arc;

use tracing::{info, warn};
use tunnel_proto::Claim;

use super::{Inner, entry::Entry, metrics::CauseLabels, serve};
use crate::{
    carrier::{Carrier, Connection},
    error::DialError,
    keep::{self, Bundle, Chain, Current, Failure, NotConnected, Phase, Remote, Standing},
    metrics::CarrierLabels,
};

/// Keeps one of the connections with a server until the agent drains or ends.
pub(super) async fn run(agent: Arc<Inner>, entry: Arc<Entry>, at: usize) {
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

    fn standing(&self) -> &Standing {
        &self.entry.bundle.all()[self.at]
    }

    fn set(&self, phase: Phase) {
        self.agent.set_phase(self.standing(), phase);
    }

    async fn connect(&self) -> Result<Arc<Current>, NotConnected> {
        let (carrier, connection) = connect(&self.agent, &self.entry).await?;
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
        agent.tasks.spawn(serve::run(Arc::clone(agent), connection, served));
        current
    }
}
