//! What can be set about a server.

use std::time::Duration;

use tunnel_proto::{Keepalive, StreamLimits};

use crate::{accept::AcceptConfig, admission::Require, keep::BackoffConfig};

/// What can be set about a server; [`Default`] is meant to fit most.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// How many servers an agent should keep connections with. Default 1.
    pub server_count: u32,
    /// How many streams an agent may have open towards the server. See [`StreamLimits`].
    pub limits: StreamLimits,
    /// How dead connections are noticed. Default: within 15 s.
    pub keepalive: Keepalive,
    /// What agents must prove themselves with. Default: a certificate or a token.
    pub require: Require,
    /// How long opening a stream may take in all, tries elsewhere included; a client's own deadline shortens it.
    /// Default 30 s: longer than an agent's attempt to connect to a target that does not answer.
    pub dial_timeout: Duration,
    /// Through how many agents one stream is tried, if it was certainly not delivered. Default 3. Connections on which
    /// no agent has seen it, because they had ended or were draining, do not count.
    pub max_tries: u32,
    /// How many streams may wait for their answer at once, over all agents. Default 16,384; each holds some kilobytes.
    pub max_pending_dials: u32,
    /// The largest number of agents. Default 65,536.
    pub max_agents: usize,
    /// The largest number of connections of one agent. Default 32, which leaves room for those whose death was
    /// not noticed yet, and for those that drain: an agent connects anew before.
    pub max_connections_per_agent: usize,
    /// How many streams that one connection's agent opened are handled at once; more wait. Default 256.
    pub max_inbound_per_connection: u32,
    /// How connections are taken in.
    pub accept: AcceptConfig,
    /// How the server keeps connected with its upstreams.
    pub upstreams: UpstreamConfig,
}

/// How a server keeps connected with the proxies that it dials itself.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct UpstreamConfig {
    /// How long connecting may take, the TLS handshake included. Default 10 s.
    pub connect_timeout: Duration,
    /// When one is dialled again.
    pub backoff: BackoffConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            server_count: 1,
            limits: StreamLimits::default(),
            keepalive: Keepalive::default(),
            require: Require::default(),
            dial_timeout: Duration::from_secs(30),
            max_tries: 3,
            max_pending_dials: 16_384,
            max_agents: 65_536,
            max_connections_per_agent: 32,
            max_inbound_per_connection: 256,
            accept: AcceptConfig::default(),
            upstreams: UpstreamConfig::default(),
        }
    }
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            backoff: BackoffConfig::default(),
        }
    }
}

impl UpstreamConfig {
    fn zeros(&self) -> [(&'static str, bool); 3] {
        [
            ("upstreams.connect_timeout", self.connect_timeout.is_zero()),
            ("upstreams.backoff.base", self.backoff.base.is_zero()),
            ("upstreams.backoff.cap", self.backoff.cap.is_zero()),
        ]
    }
}

/// A setting that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidServerConfig {
    /// It must be more than zero.
    #[error("{0} must be more than zero")]
    Zero(&'static str),
    /// There is no strategy, so that no stream could be routed.
    #[error("a server needs at least one routing strategy")]
    NoStrategy,
}

impl ServerConfig {
    pub(super) fn validate(&self) -> Result<(), InvalidServerConfig> {
        let settings = [
            ("server_count", self.server_count == 0),
            ("dial_timeout", self.dial_timeout.is_zero()),
            ("max_tries", self.max_tries == 0),
            ("max_pending_dials", self.max_pending_dials == 0),
            ("max_agents", self.max_agents == 0),
            ("max_connections_per_agent", self.max_connections_per_agent == 0),
            ("max_inbound_per_connection", self.max_inbound_per_connection == 0),
        ];
        let mut all = settings
            .into_iter()
            .chain(self.accept.zeros())
            .chain(self.upstreams.zeros());
        match all.find(|(_, zero)| *zero) {
            Some((name, _)) => Err(InvalidServerConfig::Zero(name)),
            None => Ok(()),
        }
    }
}
