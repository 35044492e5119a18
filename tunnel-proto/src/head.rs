//! What opens a stream.

use std::{net::SocketAddr, str::FromStr, time::Duration};

use crate::Target;

/// What opens a stream: where it should end, for whom, and what travels with it (`docs/wire.md` §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamHead {
    /// Where the stream should end.
    pub target: Target,
    /// The address of the client on whose behalf the stream is opened, if it has one and may be told.
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
/// At most [`Metadata::MAX_ENTRIES`] entries, with names of 1 to [`Metadata::MAX_NAME`] bytes of visible ASCII and
/// values of at most [`Metadata::MAX_VALUE`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(Vec<(String, String)>);

impl Metadata {
    /// The largest number of entries.
    pub const MAX_ENTRIES: usize = 64;
    /// The longest name, in bytes.
    pub const MAX_NAME: usize = 128;
    /// The longest value, in bytes.
    pub const MAX_VALUE: usize = 4096;

    /// Adds an entry; gives `false` and leaves the list as it is when a limit would be passed.
    #[must_use]
    pub fn push(&mut self, name: &str, value: &str) -> bool {
        let fits = self.0.len() < Self::MAX_ENTRIES
            && (1..=Self::MAX_NAME).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_graphic())
            && value.len() <= Self::MAX_VALUE;
        if fits {
            self.0.push((name.to_owned(), value.to_owned()));
        }
        fits
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
