//! What a server answers to a claim that it accepts.

use std::{fmt, time::Duration};

use crate::{
    CapabilityNames, FrameKind, PROTOCOL_VERSIONS, ServerId, Text, VarInt,
    field::{FieldWriter, Fields, Problem, once, required},
    message::{Body, BodyError, offered_versions},
};

/// What a server answers to a claim that it accepts (`docs/wire.md` §3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Welcome {
    /// The server's name; an agent that meets the same name twice has met one server.
    pub server: ServerId,
    /// How many servers an agent should keep connections with; 1 if the server does not know of others. 0 is sent
    /// as 1.
    pub server_count: u32,
    /// How many streams the agent may have open towards the server.
    pub limits: StreamLimits,
    /// How the server watches the connection; the agent takes the shorter of this and its own.
    pub keepalive: Keepalive,
    /// The version of the server's software, for people.
    pub software: Text,
    /// Optional abilities of the server.
    pub capabilities: CapabilityNames,
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
            software: Text::default(),
            capabilities: CapabilityNames::default(),
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

/// How a dead path is noticed: at the latest after `interval` + `timeout`. Both are kept to milliseconds; less than
/// one is sent as one.
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

const VERSION: u64 = 1;
const SERVER: u64 = 2;
const SERVER_COUNT: u64 = 3;
const MAX_STREAMS: u64 = 4;
const KEEPALIVE_INTERVAL: u64 = 5;
const KEEPALIVE_TIMEOUT: u64 = 6;
const SOFTWARE: u64 = 7;
const CAPABILITY: u64 = 8;

impl Body for Welcome {
    const KIND: FrameKind = FrameKind::Welcome;
    const FIELDS: &'static [(u64, &'static str)] = &[
        (VERSION, "version"),
        (SERVER, "server"),
        (SERVER_COUNT, "server_count"),
        (MAX_STREAMS, "max_streams"),
        (KEEPALIVE_INTERVAL, "keepalive_interval"),
        (KEEPALIVE_TIMEOUT, "keepalive_timeout"),
        (SOFTWARE, "software"),
        (CAPABILITY, "capability"),
    ];

    fn write(&self, out: &mut FieldWriter) {
        let at_least_one = |value: VarInt| value.max(VarInt::from_u32(1));
        let millis = |duration| at_least_one(VarInt::from_millis(duration));
        out.integers(VERSION, &PROTOCOL_VERSIONS[..1]);
        out.text(SERVER, self.server.as_str());
        out.integer(SERVER_COUNT, at_least_one(self.server_count.into()));
        out.integer(MAX_STREAMS, self.limits.max_streams.into());
        out.integer(KEEPALIVE_INTERVAL, millis(self.keepalive.interval));
        out.integer(KEEPALIVE_TIMEOUT, millis(self.keepalive.timeout));
        out.text_if_any(SOFTWARE, self.software.as_str());
        for name in self.capabilities.iter() {
            out.text(CAPABILITY, name);
        }
    }

    fn read(fields: Fields<'_>) -> Result<Self, BodyError> {
        offered_versions(fields, VERSION)?;
        let (mut version, mut server, mut server_count, mut max_streams) = (None, None, None, None);
        let (mut interval, mut timeout, mut software) = (None, None, None);
        let mut capabilities = CapabilityNames::default();
        fields.each(|id, value| match id {
            VERSION => once(&mut version, value.integer()?),
            SERVER => once(&mut server, value.text(ServerId::MAX)?.parse()?),
            SERVER_COUNT => once(&mut server_count, not_zero(value.integer_u32()?)?),
            MAX_STREAMS => once(&mut max_streams, value.integer_u32()?),
            KEEPALIVE_INTERVAL => once(&mut interval, not_zero(value.integer()?)?),
            KEEPALIVE_TIMEOUT => once(&mut timeout, not_zero(value.integer()?)?),
            SOFTWARE => once(&mut software, Text::new(value.text(Text::MAX)?)),
            CAPABILITY => capabilities.add(value.text(CapabilityNames::MAX_NAME)?),
            _ => Ok(()),
        })?;
        Ok(Self {
            server: required(SERVER, server)?,
            server_count: required(SERVER_COUNT, server_count)?,
            limits: StreamLimits {
                max_streams: required(MAX_STREAMS, max_streams)?,
            },
            keepalive: Keepalive {
                interval: required(KEEPALIVE_INTERVAL, interval)?.into_millis(),
                timeout: required(KEEPALIVE_TIMEOUT, timeout)?.into_millis(),
            },
            software: software.unwrap_or_default(),
            capabilities,
        })
    }
}

fn not_zero<T: Default + PartialEq>(value: T) -> Result<T, Problem> {
    if value == T::default() {
        return Err(Problem::OutOfRange(0));
    }
    Ok(value)
}
