//! The agent: connects to servers and takes the streams that they open.

mod builder;
mod config;
mod credential;
mod entry;
mod forward;
mod keep;
mod listen;
mod metrics;
mod serve;
mod status;
mod streams;
mod targets;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::info;
use tunnel_proto::{AgentId, Claim, ServerId, StreamHead};

pub use self::{
    builder::AgentBuilder,
    config::{AgentConfig, InvalidAgentConfig},
    credential::CredentialSource,
    listen::Callers,
    metrics::AgentMetrics,
    status::{AgentStatus, ListenerStatus, ServerState, ServerStatus},
};
use self::{entry::Entry, listen::Port, targets::Targets};
pub use crate::keep::{Backoff, BackoffConfig, Failure, LastError};
use crate::{
    accept::Gate,
    carrier::{self, Connection, Listener},
    error::OpenError,
    inbound::InboundHandler,
    keep::{Phase, Standing},
    policy::AgentPolicy,
    stream::Duplex,
    threads::Threads,
};

/// An agent that has not been started.
///
/// It keeps a connection with each of its servers, or [several](AgentConfig::connections), and more
/// [while many streams are open](AgentConfig::max_connections): dials again when one is lost,
/// first quickly, then with [`Backoff`]; and dials the next one as soon as a server begins to drain, while the old one
/// finishes its streams.
pub struct Agent(Arc<Inner>);

/// An agent at work. Clones are the same agent.
///
/// It runs until [`shutdown`](Self::shutdown), or until its last clone is dropped, which ends everything at once.
#[derive(Clone)]
pub struct RunningAgent {
    inner: Arc<Inner>,
    _stop_with_last: Arc<DropGuard>,
}

/// What the agent and its tasks share.
struct Inner {
    /// Without the credential.
    claim: Claim,
    credential: Option<CredentialSource>,
    handler: Arc<dyn InboundHandler>,
    /// For streams that wait for their answer.
    pending: Arc<Semaphore>,
    /// For connections that came by listeners.
    accepted: Semaphore,
    gate: Gate,
    threads: Threads,
    ports: Mutex<Vec<Arc<Port>>>,
    config: AgentConfig,
    targets: Arc<Targets>,
    metrics: AgentMetrics,
    entries: Vec<Arc<Entry>>,
    /// How many servers are connected.
    connected: watch::Sender<usize>,
    draining: watch::Sender<bool>,
    /// Every task of the agent, other than those for streams, which their connection's task holds.
    tasks: TaskTracker,
    /// Ends every task.
    stop: CancellationToken,
}

/// Why an agent could not open a stream towards a server.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentOpenError {
    /// No server is connected.
    #[error("no server is connected")]
    NotConnected,
    /// The server did not take it.
    #[error(transparent)]
    Open(OpenError),
}

impl Agent {
    /// Begins to put an agent together.
    #[must_use]
    pub fn builder(id: AgentId) -> AgentBuilder {
        AgentBuilder::new(id)
    }

    /// Starts to connect, in tasks of its own. Must be called in a tokio runtime.
    #[must_use = "the agent ends when this is dropped"]
    pub fn start(self) -> RunningAgent {
        let inner = self.0;
        for entry in &inner.entries {
            for at in entry.bundle.always() {
                let kept = keep::always(Arc::clone(&inner), Arc::clone(entry), at);
                inner.threads.home().spawn(inner.tasks.track_future(kept));
            }
            for at in entry.bundle.extra() {
                inner
                    .tasks
                    .spawn(keep::while_needed(Arc::clone(&inner), Arc::clone(entry), at));
            }
        }
        RunningAgent {
            _stop_with_last: Arc::new(inner.stop.clone().drop_guard()),
            inner,
        }
    }

    /// Runs until the future is dropped, which ends everything at once.
    pub async fn run(self) {
        let running = self.start();
        running.inner.stop.cancelled().await;
    }
}

impl RunningAgent {
    /// The agent's name.
    #[must_use]
    pub fn id(&self) -> &AgentId {
        &self.inner.claim.agent
    }

    /// Takes in connections of others, which then open streams as a server does, in a task of its own; gives the address
    /// that it listens on. `callers` says who may connect. Must be called in a tokio runtime.
    ///
    /// The listener is closed when the agent drains.
    pub fn listen(&self, listener: Box<dyn Listener>, callers: Callers) -> io::Result<SocketAddr> {
        listen::start(&self.inner, listener, callers)
    }

    /// How the agent stands with its servers.
    #[must_use]
    pub fn status(&self) -> AgentStatus {
        self.inner.status()
    }

    /// What the agent counts.
    #[must_use]
    pub fn metrics(&self) -> &AgentMetrics {
        &self.inner.metrics
    }

    /// Whether a server is connected at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        *self.inner.connected.borrow() > 0
    }

    /// Waits until a server is connected; cancel safe.
    pub async fn connected(&self) {
        let mut connected = self.inner.connected.subscribe();
        // The sender is part of the agent, so it cannot be gone.
        let _ = connected.wait_for(|&connected| connected > 0).await;
    }

    /// Opens a stream towards a server, the first configured one that is connected and not draining, on the one of the
    /// connections with it that has the fewest streams, and waits for its answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the stream.
    pub async fn open(&self, head: StreamHead) -> Result<Duplex, AgentOpenError> {
        let mut last = AgentOpenError::NotConnected;
        for current in self.inner.entries.iter().flat_map(|entry| entry.least_busy_first()) {
            let connection = &*current.connection;
            if let Some(cause) = carrier::ended(connection).await {
                last = AgentOpenError::Open(OpenError::Connection(cause));
                continue;
            }
            match connection.open(head.clone()).await {
                Ok(stream) => return Ok(streams::counted(&self.inner.metrics, "agent", stream)),
                Err(error @ (OpenError::Draining | OpenError::Connection(_))) if error.is_undelivered() => {
                    last = AgentOpenError::Open(error);
                }
                Err(error) => return Err(AgentOpenError::Open(error)),
            }
        }
        Err(last)
    }

    /// The connections on which new streams are opened, in the order of the configured servers. For embedders that
    /// choose the server themselves; what they open is not counted.
    #[must_use]
    pub fn connections(&self) -> Vec<Arc<dyn Connection>> {
        let current = self.inner.entries.iter().flat_map(|entry| entry.bundle.current());
        current.map(|current| Arc::clone(&current.connection)).collect()
    }

    /// Cuts short what is left of every wait before a new attempt to connect, and the whole wait after an attempt that
    /// is under way: something has changed, such as a certificate or the network.
    pub fn redial(&self) {
        self.inner.entries.iter().for_each(|entry| entry.bundle.redial());
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Arc<AgentPolicy> {
        self.inner.targets.policy()
    }

    /// Puts another policy in force, for what is open, too: streams to targets that it does not allow are reset with
    /// [`StreamCode::POLICY`](tunnel_proto::StreamCode::POLICY).
    pub fn set_policy(&self, policy: Arc<AgentPolicy>) {
        let streams = self.inner.targets.set_policy(policy);
        info!(streams, "policy changed; what it no longer allows was ended");
    }

    /// Connects no more, closes the listeners, and tells whoever is connected to open no more streams; those that are open
    /// go on. It cannot be undone.
    pub fn drain(&self) {
        if !self.inner.draining.send_replace(true) {
            info!(streams = self.inner.metrics.traffic.open_streams(), "draining");
        }
    }

    /// Whether the agent is draining.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.inner.draining.borrow()
    }

    /// Drains, waits for the open streams, and ends everything that is left after `grace`: connections are closed with
    /// [`CloseCode::SHUTDOWN`](tunnel_proto::CloseCode::SHUTDOWN), with their streams. When it returns, no task of the
    /// agent runs any more. Gives the number of streams that did not end in time.
    ///
    /// It may be called again while it waits: the shortest grace counts, so that `Duration::ZERO` ends at once.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the agent goes on draining; call it again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        let inner = &self.inner;
        self.drain();
        inner.tasks.close();
        let finished = tokio::select! {
            biased;
            () = inner.stop.cancelled() => false,
            finished = timeout(grace, inner.tasks.wait()) => finished.is_ok(),
        };
        let cut = if finished {
            0
        } else {
            inner.metrics.traffic.open_streams()
        };
        inner.stop.cancel();
        inner.tasks.wait().await;
        info!(cut, "the agent has ended");
        cut
    }
}

impl Inner {
    /// Waits until the agent is draining.
    async fn leaving(&self) {
        // The sender is part of the agent, so it cannot be gone.
        let _ = self.draining.subscribe().wait_for(|&draining| draining).await;
    }

    fn ports(&self) -> MutexGuard<'_, Vec<Arc<Port>>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the agent makes and takes no more connections.
    async fn closing(&self) {
        tokio::select! {
            () = self.leaving() => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn is_closing(&self) -> bool {
        *self.draining.borrow() || self.stop.is_cancelled()
    }

    fn set_phase(&self, standing: &Standing, phase: Phase) {
        standing.set(phase);
        // Counted under the lock of the watch, so that the last to change something has the last word.
        self.connected.send_if_modified(|connected| {
            let before = *connected;
            *connected = self
                .entries
                .iter()
                .filter(|entry| entry.bundle.current().next().is_some())
                .count();
            *connected != before
        });
    }

    /// The remote of another entry that is connected with the same server.
    fn twin(&self, entry: &Arc<Entry>, server: &ServerId) -> Option<String> {
        let others = self.entries.iter().filter(|other| !Arc::ptr_eq(other, entry));
        let mut connected = others.flat_map(|other| other.bundle.current());
        let twin = connected.find(|current| current.server() == Some(server))?;
        Some(twin.remote.clone())
    }

    fn status(&self) -> AgentStatus {
        let now = Instant::now();
        let mut servers: Vec<_> = self.entries.iter().map(|entry| entry.status(now)).collect();
        for at in 1..servers.len() {
            let (before, rest) = servers.split_at_mut(at);
            if let Some(this) = rest.first_mut() {
                this.same_as = before.iter().position(|other| other.is_same_server(this));
            }
        }
        AgentStatus {
            agent: self.claim.agent.clone(),
            generation: self.claim.generation,
            draining: *self.draining.borrow(),
            servers,
            listeners: self.ports().iter().map(|port| port.status()).collect(),
        }
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RunningAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("id", &self.claim.agent)
            .field("servers", &self.entries.len())
            .field("listeners", &self.ports().len())
            .field("connected", &*self.connected.borrow())
            .field("draining", &*self.draining.borrow())
            .finish_non_exhaustive()
    }
}
