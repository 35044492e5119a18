//! Putting an agent together.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tunnel_proto::{AgentId, Claim, Generation, Labels, Text};

use super::{
    Agent, AgentConfig, AgentMetrics, CredentialSource, Inner, InvalidAgentConfig, entry::Entry, forward::Forward,
    targets::Targets,
};
use crate::{
    accept::Gate, carrier::Carrier, dial::TargetDialer, inbound::InboundHandler, policy::AgentPolicy, threads::Threads,
};

/// Puts an [`Agent`] together.
pub struct AgentBuilder {
    claim: Claim,
    credential: Option<CredentialSource>,
    servers: Vec<Vec<Arc<dyn Carrier>>>,
    policy: Arc<AgentPolicy>,
    dialer: TargetDialer,
    handler: Option<Arc<dyn InboundHandler>>,
    config: AgentConfig,
    threads: Threads,
}

impl AgentBuilder {
    pub(super) fn new(id: AgentId) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let generation = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let mut claim = Claim::new(id, Generation(generation));
        claim.software = Text::new(concat!("tunnel/", env!("CARGO_PKG_VERSION")));
        Self {
            claim,
            credential: None,
            servers: Vec::new(),
            policy: Arc::default(),
            dialer: TargetDialer::default(),
            handler: None,
            config: AgentConfig::default(),
            threads: Threads::default(),
        }
    }

    /// Says which life of the agent this is: a higher one takes over from a lower one at every server. Default: the
    /// milliseconds since the Unix epoch.
    #[must_use]
    pub fn generation(mut self, generation: Generation) -> Self {
        self.claim.generation = generation;
        self
    }

    /// Sets the labels by which clients and routes may choose the agent. Default: none.
    #[must_use]
    pub fn labels(mut self, labels: Labels) -> Self {
        self.claim.labels = labels;
        self
    }

    /// Names the software and its version, for people. Default: this library's.
    #[must_use]
    pub fn software(mut self, software: impl Into<Text>) -> Self {
        self.claim.software = software.into();
        self
    }

    /// Shows servers a credential, a [`Secret`](tunnel_proto::Secret) or a [`CredentialSource`] that is asked before
    /// every dial. Default: none, so that the certificate alone counts.
    #[must_use]
    pub fn credential(mut self, source: impl Into<CredentialSource>) -> Self {
        self.credential = Some(source.into());
        self
    }

    /// Adds a server by the carriers that reach it, best first. The agent keeps a connection with every server that
    /// is added. Without any, it has only the connections that come by [`listen`](super::RunningAgent::listen).
    #[must_use]
    pub fn server(mut self, carriers: Vec<Arc<dyn Carrier>>) -> Self {
        self.servers.push(carriers);
        self
    }

    /// Says which targets the agent dials. Default: all but the special ones, see [`AgentPolicy`].
    #[must_use]
    pub fn policy(mut self, policy: Arc<AgentPolicy>) -> Self {
        self.policy = policy;
        self
    }

    /// Dials the targets.
    #[must_use]
    pub fn dialer(mut self, dialer: TargetDialer) -> Self {
        self.dialer = dialer;
        self
    }

    /// Takes the streams that servers open, instead of dialling their targets. The agent's policy and dialer are about
    /// what it dials and are not asked then.
    #[must_use]
    pub fn handler(mut self, handler: Arc<dyn InboundHandler>) -> Self {
        self.handler = Some(handler);
        self
    }

    /// Sets what can be set.
    #[must_use]
    pub fn config(mut self, config: AgentConfig) -> Self {
        self.config = config;
        self
    }

    /// Divides connections among threads. Default: all stay in the runtime where the agent is started.
    #[must_use]
    pub fn threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }

    /// Makes the agent, which connects once it is started.
    pub fn build(self) -> Result<Agent, InvalidAgentConfig> {
        let config = self.config;
        config.validate()?;
        if let Some(at) = self.servers.iter().position(Vec::is_empty) {
            return Err(InvalidAgentConfig::NoCarrier(at + 1));
        }
        let entry = |carriers: Vec<Arc<dyn Carrier>>| {
            let most = config.most_connections(&carriers, &self.threads);
            Arc::new(Entry::new(carriers, config.connections, most))
        };
        let entries = self.servers.into_iter().map(entry).collect();
        let metrics = AgentMetrics::default();
        let targets = Arc::new(Targets::new(self.policy));
        let forward = || {
            Arc::new(Forward::new(
                self.dialer,
                Arc::clone(&targets),
                config.idle_timeout,
                metrics.clone(),
            )) as _
        };
        Ok(Agent(Arc::new(Inner {
            claim: self.claim,
            credential: self.credential,
            handler: self.handler.unwrap_or_else(forward),
            pending: Arc::new(Semaphore::new(config.max_pending_dials as usize)),
            accepted: Semaphore::new(config.max_accepted as usize),
            gate: Gate::new(&config.accept, None, metrics.accept.clone()),
            threads: self.threads,
            ports: Mutex::default(),
            config,
            targets,
            metrics,
            entries,
            connected: watch::Sender::new(0),
            draining: watch::Sender::new(false),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })))
    }
}

impl fmt::Debug for AgentBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentBuilder")
            .field("claim", &self.claim)
            .field("servers", &self.servers)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
