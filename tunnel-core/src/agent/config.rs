//! What can be set about an agent.

use std::{num::NonZeroU32, time::Duration};

use crate::{accept::AcceptConfig, keep::BackoffConfig};

/// What can be set about an agent; [`Default`] is meant to fit most.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AgentConfig {
    /// How many connections are kept with each server, at most [`MAX_CONNECTIONS`](Self::MAX_CONNECTIONS). New streams
    /// go to the one that has the fewest. Default 1, which costs both ends the least; more share the work where one
    /// core, one congestion window or the losses of one TCP connection are the limit. They are one session of one
    /// generation. A server that takes fewer keeps those that it has taken.
    pub connections: NonZeroU32,
    /// How long connecting to a server may take by the last of its carriers, up to the welcome, and before that how long
    /// the [source](super::CredentialSource) of the credential may take. Default 10 s.
    pub connect_timeout: Duration,
    /// How long it may take by a carrier that another one can stand in for. Default 4 s, so that a network that
    /// swallows UDP costs no more than that.
    pub fallback_after: Duration,
    /// How many streams may wait for their answer at once, over all servers; more are refused with
    /// [`ConnectionLimitReached`](tunnel_proto::RefusalKind::ConnectionLimitReached). Default 1,024: each holds a
    /// task and up to a few sockets.
    pub max_pending_dials: u32,
    /// Ends a stream on which no byte has moved for this long. Default: none.
    pub idle_timeout: Option<Duration>,
    /// When a server is dialled again.
    pub backoff: BackoffConfig,
    /// How many connections that came by listeners there may be at once; more are closed after their handshake. Default
    /// 1,024.
    pub max_accepted: u32,
    /// How connections are taken in by listeners.
    pub accept: AcceptConfig,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            connections: NonZeroU32::MIN,
            connect_timeout: Duration::from_secs(10),
            fallback_after: Duration::from_secs(4),
            max_pending_dials: 1024,
            idle_timeout: None,
            backoff: BackoffConfig::default(),
            max_accepted: 1024,
            accept: AcceptConfig::default(),
        }
    }
}

/// An agent that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAgentConfig {
    /// A setting must be more than zero.
    #[error("{0} must be more than zero")]
    Zero(&'static str),
    /// There are to be too many connections.
    #[error("{0} connections with each server are too many; the most is {max}", max = AgentConfig::MAX_CONNECTIONS)]
    TooManyConnections(NonZeroU32),
    /// There is no way to reach a server.
    #[error("server {0} has no carrier")]
    NoCarrier(usize),
}

impl AgentConfig {
    /// The largest number of connections with each server: what servers take by default
    /// ([`ServerConfig::max_connections_per_agent`](crate::ServerConfig::max_connections_per_agent)).
    pub const MAX_CONNECTIONS: u32 = 32;

    pub(super) fn validate(&self) -> Result<(), InvalidAgentConfig> {
        if self.connections.get() > Self::MAX_CONNECTIONS {
            return Err(InvalidAgentConfig::TooManyConnections(self.connections));
        }
        let settings = [
            ("connect_timeout", self.connect_timeout.is_zero()),
            ("fallback_after", self.fallback_after.is_zero()),
            ("max_pending_dials", self.max_pending_dials == 0),
            ("idle_timeout", self.idle_timeout.is_some_and(|limit| limit.is_zero())),
            ("backoff.base", self.backoff.base.is_zero()),
            ("backoff.cap", self.backoff.cap.is_zero()),
            ("max_accepted", self.max_accepted == 0),
        ];
        match settings.into_iter().chain(self.accept.zeros()).find(|(_, zero)| *zero) {
            Some((name, _)) => Err(InvalidAgentConfig::Zero(name)),
            None => Ok(()),
        }
    }
}
