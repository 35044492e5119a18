//! What a server answers to a claim that it accepts.

use std::{fmt, time::Duration};

use crate::ServerId;

/// What a server answers to a claim that it accepts (`docs/wire.md` §3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Welcome {
    /// The server's name; an agent that meets the same name twice has met one server.
    pub server: ServerId,
    /// How many servers an agent should keep connections with; 1 if the server does not know of others.
    pub server_count: u32,
    /// How many streams the agent may have open towards the server.
    pub limits: StreamLimits,
    /// How the server watches the connection; the agent takes the shorter of this and its own.
    pub keepalive: Keepalive,
    /// The version of the server's software, for people.
    pub software: String,
    /// Optional abilities of the server, by name; an unknown name is ignored.
    pub capabilities: Vec<String>,
}

impl Welcome {
    /// A welcome of a lone server with the default limits and keepalive.
    #[must_use]
    pub fn new(server: ServerId) -> Self {
        Self {
            server,
            server_count: 1,
            limits: StreamLimits::default(),
            keepalive: Keepalive::default(),
            software: String::new(),
            capabilities: Vec::new(),
        }
    }
}

/// Limits that one end announces to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamLimits {
    /// The largest number of streams open at once that the other end may have opened. Default 16,384: the bound is
    /// there against peers that lie; memory is bounded by windows and the process's budget.
    pub max_streams: u32,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self { max_streams: 16_384 }
    }
}

/// How a dead path is noticed: at the latest after `interval` + `timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How long a connection may be silent before it is probed. Default 10 s.
    pub interval: Duration,
    /// How long the answer to a probe may take. Default 5 s.
    pub timeout: Duration,
}

impl Keepalive {
    /// The longest time for which a dead path can go unnoticed.
    #[must_use]
    pub fn bound(&self) -> Duration {
        self.interval.saturating_add(self.timeout)
    }

    /// The shorter of each of the two values.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            interval: self.interval.min(other.interval),
            timeout: self.timeout.min(other.timeout),
        }
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
        }
    }
}

impl fmt::Display for Keepalive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} + {:?}", self.interval, self.timeout)
    }
}
