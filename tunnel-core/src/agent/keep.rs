//! Keeps one server connected.

use std::sync::Arc;

use tracing::{info, warn};
use tunnel_proto::Claim;

use super::{Inner, entry::Entry, metrics::CauseLabels, serve};
use crate::{
    carrier::{Carrier, Connection},
    error::DialError,
    keep::{self, Chain, Current, Failure, NotConnected, Phase, Remote, Standing},
    metrics::CarrierLabels,
};

/// Keeps one server connected until the agent drains or ends.
pub(super) async fn run(agent: Arc<Inner>, entry: Arc<Entry>) {
    let server = Server { agent, entry };
    let agent = &server.agent;
    tokio::select! {
        // Before the agent's own drain is taken for the server's.
        biased;
        () = agent.closing() => {}
        never = keep::keep(&server, agent.config.backoff) => match never {},
    }
    server.set(Phase::Ended);
}

/// One configured server, as its agent keeps it.
struct Server {
    agent: Arc<Inner>,
    entry: Arc<Entry>,
}

impl Remote for Server {
    fn name(&self) -> String {
        String::new()
    }

    fn standing(&self) -> &Standing {
        &self.entry.standing
    }

    fn set(&self, phase: Phase) {
        self.agent.set_phase(&self.entry, phase);
    }

    async fn connect(&self) -> Result<Arc<Current>, NotConnected> {
        let (agent, entry) = (&self.agent, &self.entry);
        let (carrier, connection) = connect(agent, entry).await?;
        Ok(agent.connected(entry, &*carrier, connection))
    }
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

impl Inner {
    /// Puts a new connection to use.
    fn connected(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        carrier: &dyn Carrier,
        connection: Arc<dyn Connection>,
    ) -> Arc<Current> {
        let current = Current::new(Arc::clone(&connection), carrier.remote());
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
