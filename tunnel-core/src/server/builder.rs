//! Putting a server together.

use std::{fmt, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tunnel_proto::ServerId;

use super::{
    Inner, InvalidServerConfig, RefuseInbound, Server, ServerConfig, ServerMetrics, streams::Streams,
    upstream::Upstreams,
};
use crate::{
    accept::{AcceptFilter, Gate},
    admission::{Authenticator, NoToken},
    inbound::InboundHandler,
    policy::Policy,
    registry::{Limits, Registry},
    route::{self, Strategy},
    threads::Threads,
};

/// Puts a [`Server`] together.
pub struct ServerBuilder {
    id: ServerId,
    config: ServerConfig,
    policy: Arc<Policy>,
    authenticator: Arc<dyn Authenticator>,
    strategies: Vec<Arc<dyn Strategy>>,
    inbound: Arc<dyn InboundHandler>,
    filter: Option<AcceptFilter>,
    threads: Threads,
}

impl ServerBuilder {
    pub(super) fn new(id: ServerId) -> Self {
        Self {
            id,
            config: ServerConfig::default(),
            policy: Arc::new(Policy::deny_all()),
            authenticator: Arc::new(NoToken),
            strategies: route::strategies(),
            inbound: Arc::new(RefuseInbound),
            filter: None,
            threads: Threads::default(),
        }
    }

    /// Verifies the credentials of agents. Default: [`NoToken`], so that only certificates count.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.authenticator = authenticator;
        self
    }

    /// Says which client may reach what through whom, and which identity may be which agent. Default:
    /// [`Policy::deny_all`], under which only the program itself can open streams.
    #[must_use]
    pub fn policy(mut self, policy: Arc<Policy>) -> Self {
        self.policy = policy;
        self
    }

    /// Sets what can be set.
    #[must_use]
    pub fn config(mut self, config: ServerConfig) -> Self {
        self.config = config;
        self
    }

    /// Finds the agents for a stream; asked in order. Default: [`route::strategies`].
    #[must_use]
    pub fn strategies(mut self, strategies: Vec<Arc<dyn Strategy>>) -> Self {
        self.strategies = strategies;
        self
    }

    /// Takes the streams that agents open towards the server. Default: [`RefuseInbound`].
    #[must_use]
    pub fn inbound(mut self, handler: Arc<dyn InboundHandler>) -> Self {
        self.inbound = handler;
        self
    }

    /// Turns connections away by their address alone, before any handshake, where `filter` says no. It runs in the
    /// accept loop and must not wait.
    #[must_use]
    pub fn accept_filter(mut self, filter: impl Fn(SocketAddr) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(Arc::new(filter));
        self
    }

    /// Divides connections among threads. Default: all stay in the runtime where the server listens.
    #[must_use]
    pub fn threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }

    /// Makes the server, which has no listener yet.
    pub fn build(self) -> Result<Server, InvalidServerConfig> {
        let config = self.config;
        config.validate()?;
        if self.strategies.is_empty() {
            return Err(InvalidServerConfig::NoStrategy);
        }
        let stop = CancellationToken::new();
        let metrics = ServerMetrics::default();
        let limits = Limits {
            max_agents: config.max_agents,
            max_connections_per_agent: config.max_connections_per_agent,
            not_before: config.keepalive.bound(),
        };
        let inner = Inner {
            id: self.id,
            config,
            policy: ArcSwap::new(self.policy),
            authenticator: self.authenticator,
            strategies: self.strategies,
            inbound: self.inbound,
            gate: Gate::new(&config.accept, self.filter, metrics.accept.clone()),
            threads: self.threads,
            registry: Registry::new(limits, metrics.sessions.clone()),
            upstreams: Upstreams::default(),
            dials: Semaphore::new(config.max_pending_dials as usize),
            streams: Streams::default(),
            metrics,
            draining: watch::Sender::new(false),
            running: TaskTracker::new(),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        };
        Ok(Server {
            inner: Arc::new(inner),
            _stop_with_last: Arc::new(stop.drop_guard()),
        })
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("id", &self.id)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
