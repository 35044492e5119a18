//! What can be set about an agent.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use crate::{accept::AcceptConfig, carrier::Carrier, keep::BackoffConfig, threads::Threads};

/// What can be set about an agent; [`Default`] is meant to fit most.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AgentConfig {
    /// How many connections are kept with each server, at most [`MAX_CONNECTIONS`](Self::MAX_CONNECTIONS). New streams
    /// go to the one that has the fewest. Default 1, which costs both ends the least; more help where one congestion window
    /// or the losses of one TCP connection are the limit. They are one session of one generation. A server that takes fewer
    /// keeps those that it has taken.
    pub connections: NonZeroU32,
    /// How many connections are kept with each server while many streams are open, at most
    /// [`MAX_CONNECTIONS`](Self::MAX_CONNECTIONS): one for every eight streams that servers have opened. What is more than
    /// `connections` drains a minute or two after the streams that called for it have ended, unless it is the only one that
    /// is up or its predecessor still drains: however load comes and goes, there is one that drains for each of them at
    /// most. An extra connection that leads to another server than those that are up, as behind a load balancer, is closed
    /// again.
    ///
    /// Default `None`: as many as the agent has [threads](super::AgentBuilder::threads), where all carriers of the server
    /// [gain from it](Carrier::gains_from_several), and elsewhere no more than `connections`.
    pub max_connections: Option<NonZeroU32>,
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
            max_connections: None,
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
    /// There is to be at most less than at least.
    #[error("max_connections is {most}, less than connections, which is {least}")]
    TooFewConnections {
        /// [`AgentConfig::connections`].
        least: NonZeroU32,
        /// [`AgentConfig::max_connections`].
        most: NonZeroU32,
    },
    /// There is no way to reach a server.
    #[error("server {0} has no carrier")]
    NoCarrier(usize),
}

impl AgentConfig {
    /// The largest number of connections with each server: what servers take by default
    /// ([`ServerConfig::max_connections_per_agent`](crate::ServerConfig::max_connections_per_agent)).
    pub const MAX_CONNECTIONS: u32 = 32;

    pub(super) fn validate(&self) -> Result<(), InvalidAgentConfig> {
        let most = self.max_connections.unwrap_or(self.connections);
        if most < self.connections {
            let least = self.connections;
            return Err(InvalidAgentConfig::TooFewConnections { least, most });
        }
        if most.get() > Self::MAX_CONNECTIONS {
            return Err(InvalidAgentConfig::TooManyConnections(most));
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

    /// The most connections with a server that is reached by these carriers.
    pub(super) fn most_connections(&self, carriers: &[Arc<dyn Carrier>], threads: &Threads) -> NonZeroU32 {
        let by_default = || {
            let gains = carriers.iter().all(|carrier| carrier.gains_from_several());
            let threads = if gains { threads.len() } else { 0 };
            let threads = u32::try_from(threads).unwrap_or(u32::MAX).min(Self::MAX_CONNECTIONS);
            NonZeroU32::new(threads).map_or(self.connections, |threads| threads.max(self.connections))
        };
        self.max_connections.unwrap_or_else(by_default)
    }
}
