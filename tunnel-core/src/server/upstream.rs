//! Upstreams: proxies that the server dials itself, and that carry streams as agents do.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::info;
use tunnel_proto::{AgentId, Claim, CloseCode};

use super::{
    Inner,
    metrics::{UpstreamFailureLabels, UpstreamLabels},
    serve,
};
use crate::{
    carrier::{Carrier, Connection},
    error::DialError,
    keep::{self, Bundle, Current, Failure, LastError, NotConnected, Phase, Remote, Standing},
    registry::{DuplicateUpstream, LiveConnection, Origin},
};

/// How a server stands with one of its upstreams.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UpstreamStatus {
    /// Its name: that of the agent that it is to clients.
    pub name: AgentId,
    /// How it is reached: a URL.
    pub remote: String,
    /// Whether it is connected: the state of the connection that stands best.
    pub state: UpstreamState,
    /// The states of all connections that are kept with it.
    pub connections: Vec<UpstreamState>,
    /// What went wrong last.
    pub last_error: Option<LastError>,
}

/// How it stands with a connection with an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpstreamState {
    /// Another connection with the upstream is tried first.
    Queued,
    /// The server is trying to connect.
    Connecting,
    /// It is connected.
    #[non_exhaustive]
    Connected {
        /// For how long.
        since: Duration,
    },
    /// The server will try again.
    #[non_exhaustive]
    Waiting {
        /// In how long.
        next_try: Duration,
    },
    /// The server does not try any more, because it is draining or has ended.
    Ended,
}

/// The upstreams of a server.
#[derive(Debug, Default)]
pub(super) struct Upstreams(Mutex<Vec<Arc<Entry>>>);

/// One upstream.
#[derive(Debug)]
struct Entry {
    claim: Claim,
    carrier: Arc<dyn Carrier>,
    bundle: Bundle,
}

impl Upstreams {
    fn all(&self) -> Vec<Arc<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, entry: Arc<Entry>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    pub(super) fn status(&self) -> Vec<UpstreamStatus> {
        let now = Instant::now();
        self.all().iter().map(|entry| entry.status(now)).collect()
    }

    pub(super) fn redial(&self) {
        self.all().iter().for_each(|entry| entry.bundle.redial());
    }
}

impl Entry {
    fn status(&self, now: Instant) -> UpstreamStatus {
        let state = |phase: Phase| match phase {
            Phase::Queued => UpstreamState::Queued,
            Phase::Connecting => UpstreamState::Connecting,
            Phase::Connected(current) => UpstreamState::Connected {
                since: now.saturating_duration_since(current.since),
            },
            Phase::Waiting { until } => UpstreamState::Waiting {
                next_try: until.saturating_duration_since(now),
            },
            Phase::Unneeded | Phase::Ended => UpstreamState::Ended,
        };
        UpstreamStatus {
            name: self.claim.agent.clone(),
            remote: self.carrier.remote(),
            state: state(self.bundle.best()),
            connections: self.bundle.phases().map(state).collect(),
            last_error: self.bundle.last_error(now),
        }
    }
}

/// Keeps an upstream's name for it, and starts to dial it.
pub(super) fn start(
    server: &Arc<Inner>,
    claim: Claim,
    carrier: Arc<dyn Carrier>,
    connections: NonZeroU32,
) -> Result<(), DuplicateUpstream> {
    for displaced in server.registry.reserve(&claim.agent)? {
        displaced.close(
            CloseCode::CONFLICT,
            "the server dials this agent's name itself from now on",
        );
    }
    let entry = Arc::new(Entry {
        claim,
        carrier,
        bundle: Bundle::new(connections, connections),
    });
    server.upstreams.add(Arc::clone(&entry));
    for at in 0..entry.bundle.all().len() {
        let upstream = Upstream {
            server: Arc::clone(server),
            entry: Arc::clone(&entry),
            at,
        };
        server.threads.home().spawn(server.tasks.track_future(upstream.run()));
    }
    Ok(())
}

/// One of the connections with an upstream.
struct Upstream {
    server: Arc<Inner>,
    entry: Arc<Entry>,
    /// Which one of them.
    at: usize,
}

impl Upstream {
    /// Keeps the connection until the server drains or ends.
    async fn run(self) {
        tokio::select! {
            // Before the server's own drain is taken for the upstream's.
            biased;
            () = self.server.leaving() => {}
            () = self.server.stop.cancelled() => {}
            never = keep::keep(&self, self.server.config.upstreams.backoff) => match never {},
        }
        self.set(Phase::Ended);
    }

    async fn dial(&self) -> Result<Arc<dyn Connection>, DialError> {
        let Entry { claim, carrier, .. } = &*self.entry;
        let metrics = &self.server.metrics;
        let upstream = claim.agent.to_string();
        let labels = UpstreamLabels {
            upstream: upstream.clone(),
        };
        metrics.upstream_attempts.get_or_create(&labels).inc();
        let limit = self.server.config.upstreams.connect_timeout;
        let dialled = keep::dial(&**carrier, claim, limit).await;
        let dialled = dialled.and_then(|connection| match connection.peer().claim() {
            Some(claimed) if claimed.agent == claim.agent => Ok(connection),
            _ => Err(DialError::Protocol {
                remote: carrier.remote(),
                detail: "it is not the agent's end of a connection".to_owned(),
            }),
        });
        if let Err(error) = &dialled {
            let cause = error.label();
            let labels = UpstreamFailureLabels { upstream, cause };
            metrics.upstream_failures.get_or_create(&labels).inc();
        }
        dialled
    }
}

impl Remote for Upstream {
    fn name(&self) -> String {
        format!("upstream {}: ", self.entry.claim.agent)
    }

    fn bundle(&self) -> &Bundle {
        &self.entry.bundle
    }

    fn standing(&self) -> &Standing {
        &self.entry.bundle.all()[self.at]
    }

    async fn connect(&self) -> Result<Arc<Current>, NotConnected> {
        let connection = self.dial().await.map_err(|error| NotConnected::from(&error))?;
        let server = &self.server;
        let live = match server.join(&connection, Origin::Upstream) {
            Ok(live) => live,
            Err(rejection) => {
                connection.close(rejection.code, rejection.text.as_str());
                return Err(NotConnected {
                    failure: Failure::PLAIN,
                    is_overloaded: rejection.code == CloseCode::OVERLOADED,
                    text: rejection.to_string(),
                });
            }
        };
        let current = Current::new(Arc::clone(&connection), self.entry.carrier.remote());
        if !self.entry.bundle.is_up() {
            let (name, url, peer) = (self.name(), &current.remote, connection.peer());
            info!(
                "{name}connected with {url} at {}, which is {}",
                peer.remote_addr, peer.identity
            );
        }
        self.set(Phase::Connected(Arc::clone(&current)));
        server.tasks.spawn(attend(Arc::clone(server), live));
        Ok(current)
    }
}

async fn attend(server: Arc<Inner>, live: Arc<LiveConnection>) {
    serve::attend(&server, &live).await;
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entry.fmt(f)
    }
}
