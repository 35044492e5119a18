//! What opens a stream.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use crate::{
    FrameKind, Target, VarInt,
    field::{FieldError, FieldWriter, Fields, Problem, Value, once, required},
    message::{Body, BodyError},
};

/// What opens a stream: where it should end, for whom, and what travels with it (`docs/wire.md` §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamHead {
    /// Where the stream should end.
    pub target: Target,
    /// The address of the client on whose behalf the stream is opened, if it has one and may be told. An
    /// IPv4-mapped address travels as the IPv4 address that it means; zone and flow label stay behind.
    pub client: Option<SocketAddr>,
    /// How much time was left for the answer when the head was sent; kept to milliseconds. A duration, because
    /// the two ends' clocks need not agree.
    pub deadline: Option<Duration>,
    /// The W3C trace context that the stream belongs to.
    pub trace: Option<TraceContext>,
    /// Further facts, in order; names may repeat.
    pub metadata: Metadata,
}

impl StreamHead {
    /// A head with nothing but a target.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            client: None,
            deadline: None,
            trace: None,
            metadata: Metadata::default(),
        }
    }
}

/// Names and values that travel with a stream, in order. The names are the sender's; a receiver passes on what it
/// does not know.
///
/// At most [`Metadata::MAX_ENTRIES`] entries and [`Metadata::MAX_BYTES`], with names of 1 to [`Metadata::MAX_NAME`]
/// bytes of visible ASCII and values of at most [`Metadata::MAX_VALUE`] bytes of UTF-8 without control characters,
/// so that entries fit into header fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(Vec<(String, String)>);

impl Metadata {
    /// The largest number of entries.
    pub const MAX_ENTRIES: usize = 64;
    /// The most bytes of all names and values together.
    pub const MAX_BYTES: usize = 12 * 1024;
    /// The longest name, in bytes.
    pub const MAX_NAME: usize = 128;
    /// The longest value, in bytes.
    pub const MAX_VALUE: usize = 4096;

    /// Adds an entry; gives `false` and leaves the list as it is when a limit would be passed or a character is not
    /// allowed.
    #[must_use]
    pub fn push(&mut self, name: &str, value: &str) -> bool {
        self.add(name, value).is_ok()
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        let valid = (1..=Self::MAX_NAME).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_graphic())
            && value.len() <= Self::MAX_VALUE
            && !value.contains(char::is_control);
        if !valid {
            return Err(Problem::NotA("a metadata entry"));
        }
        if self.0.len() == Self::MAX_ENTRIES || self.bytes() + name.len() + value.len() > Self::MAX_BYTES {
            return Err(Problem::TooMany);
        }
        self.0.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// The entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of the first entry with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(entry, _)| *entry == name).map(|(_, value)| value)
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A W3C trace context: the `traceparent` header's value, validated, and `tracestate` as it came
/// (Trace Context, Level 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    parent: String,
    state: String,
}

/// The text is not a `traceparent` value of version 00, or the state is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a trace context: traceparent is 00-<32 hex>-<16 hex>-<2 hex>, tracestate at most 512 bytes")]
pub struct InvalidTraceContext;

impl TraceContext {
    /// The length of a `traceparent` of version 00.
    const PARENT: usize = 55;
    /// The longest `tracestate` kept (Trace Context §3.3.1.5 asks for at least 512 characters).
    pub const MAX_STATE: usize = 512;

    /// Validates a `traceparent` and a `tracestate`, which may be empty.
    pub fn new(parent: &str, state: &str) -> Result<Self, InvalidTraceContext> {
        let hex = |part: &str, len: usize| {
            part.len() == len && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut parts = parent.split('-');
        let (version, trace, span, flags) = (parts.next(), parts.next(), parts.next(), parts.next());
        let valid = parts.next().is_none()
            && version == Some("00")
            && trace.is_some_and(|id| hex(id, 32) && id.bytes().any(|byte| byte != b'0'))
            && span.is_some_and(|id| hex(id, 16) && id.bytes().any(|byte| byte != b'0'))
            && flags.is_some_and(|flags| hex(flags, 2))
            && state.len() <= Self::MAX_STATE
            && state
                .bytes()
                .all(|byte| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t');
        if !valid {
            return Err(InvalidTraceContext);
        }
        Ok(Self {
            parent: parent.to_owned(),
            state: state.to_owned(),
        })
    }

    /// The `traceparent` value.
    #[must_use]
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// The `tracestate` value, empty if there was none.
    #[must_use]
    pub fn state(&self) -> &str {
        &self.state
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceContext;

    /// Parses a `traceparent` without a `tracestate`.
    fn from_str(parent: &str) -> Result<Self, InvalidTraceContext> {
        Self::new(parent, "")
    }
}

const TARGET: u64 = 1;
const CLIENT: u64 = 2;
const DEADLINE: u64 = 3;
const TRACEPARENT: u64 = 4;
const TRACESTATE: u64 = 5;
const METADATA: u64 = 6;

impl Body for StreamHead {
    const KIND: FrameKind = FrameKind::Head;
    const FIELDS: &'static [(u64, &'static str)] = &[
        (TARGET, "target"),
        (CLIENT, "client"),
        (DEADLINE, "deadline"),
        (TRACEPARENT, "traceparent"),
        (TRACESTATE, "tracestate"),
        (METADATA, "metadata"),
    ];

    fn write(&self, out: &mut FieldWriter) {
        out.text(TARGET, &self.target.to_string());
        if let Some(client) = self.client {
            write_client(out, client);
        }
        if let Some(deadline) = self.deadline {
            out.integer(DEADLINE, VarInt::from_millis(deadline));
        }
        if let Some(trace) = &self.trace {
            out.text(TRACEPARENT, trace.parent());
            out.text_if_any(TRACESTATE, trace.state());
        }
        for (name, value) in self.metadata.iter() {
            out.pair(METADATA, name, value);
        }
    }

    fn read(fields: Fields<'_>) -> Result<Self, BodyError> {
        let (mut target, mut client, mut deadline) = (None, None, None);
        let (mut parent, mut state) = (None, None);
        let mut metadata = Metadata::default();
        fields.each(|id, value| match id {
            TARGET => once(&mut target, value.text(Target::MAX)?.parse()?),
            CLIENT => once(&mut client, read_client(value)?),
            DEADLINE => once(&mut deadline, value.integer()?.into_millis()),
            TRACEPARENT => once(&mut parent, value.text(TraceContext::PARENT)?),
            TRACESTATE => once(&mut state, value.text(TraceContext::MAX_STATE)?),
            METADATA => {
                let (name, value) = value.pair(Metadata::MAX_NAME, Metadata::MAX_VALUE)?;
                metadata.add(name, value)
            }
            _ => Ok(()),
        })?;
        let trace = match (parent, state) {
            (None, None) => None,
            (parent, state) => {
                let parent = required(TRACEPARENT, parent)?;
                let trace = TraceContext::new(parent, state.unwrap_or_default());
                Some(trace.map_err(|error| FieldError::new(TRACEPARENT, error.into()))?)
            }
        };
        Ok(Self {
            target: required(TARGET, target)?,
            client,
            deadline,
            trace,
            metadata,
        })
    }
}

/// Four or sixteen bytes of address, then the port.
fn write_client(out: &mut FieldWriter, client: SocketAddr) {
    let port = client.port().to_be_bytes();
    match client.ip().to_canonical() {
        IpAddr::V4(ip) => out.bytes(CLIENT, &[&ip.octets()[..], &port].concat()),
        IpAddr::V6(ip) => out.bytes(CLIENT, &[&ip.octets()[..], &port].concat()),
    }
}

fn read_client(value: Value<'_>) -> Result<SocketAddr, Problem> {
    let bytes = value.bytes(18)?;
    let (ip, port) = bytes.split_last_chunk().ok_or(NOT_AN_ADDRESS)?;
    let ip = if let Ok(ip) = <[u8; 4]>::try_from(ip) {
        IpAddr::from(ip)
    } else if let Ok(ip) = <[u8; 16]>::try_from(ip) {
        IpAddr::from(ip).to_canonical()
    } else {
        return Err(NOT_AN_ADDRESS);
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

const NOT_AN_ADDRESS: Problem = Problem::NotA("an address and a port");
