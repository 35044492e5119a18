//! What a mux says.

use std::{fmt, time::Duration};

use super::StreamId;
use crate::{Answer, CloseCode, StreamCode, StreamHead, Text};

/// Something that the application should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer's HELLO has come; from now on streams can be opened.
    Established,
    /// The peer opens a stream, which waits for [`Mux::answer`](super::Mux::answer).
    Opened {
        /// The stream.
        id: StreamId,
        /// What the peer wants.
        head: Box<StreamHead>,
    },
    /// The peer has given up a stream that it had opened and that was not answered yet.
    Cancelled {
        /// The stream.
        id: StreamId,
    },
    /// The peer has answered a stream that this end had opened. A refusal is its end.
    Answered {
        /// The stream.
        id: StreamId,
        /// The answer.
        answer: Answer,
    },
    /// The peer has ended a stream that this end had opened, without an answer.
    Unanswered {
        /// The stream.
        id: StreamId,
        /// Why.
        code: StreamCode,
    },
    /// [`Mux::open`](super::Mux::open) may succeed again after it was blocked by the limit.
    Available,
    /// Bytes or the clean end have come on a stream whose reader was blocked.
    Readable {
        /// The stream.
        id: StreamId,
    },
    /// There is room on a stream whose writer was blocked.
    Writable {
        /// The stream.
        id: StreamId,
    },
    /// The receiving half has ended badly: the peer has reset it, or this end has reclaimed its memory.
    RecvEnded {
        /// The stream.
        id: StreamId,
    },
    /// The peer has stopped the sending half.
    Stopped {
        /// The stream.
        id: StreamId,
    },
    /// Either end has begun to drain the connection.
    Draining,
    /// The connection has ended; [`Mux::closed`](super::Mux::closed) says why. The last event.
    Closed,
}

/// Why a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// This end has closed it, of its own accord or because the peer broke the protocol.
    Local {
        /// The code that the peer is told.
        code: CloseCode,
        /// More for people.
        text: Text,
    },
    /// The peer has closed it.
    Remote {
        /// Its code.
        code: CloseCode,
        /// More for people.
        text: Text,
    },
    /// The peer was silent for longer than keepalive allows.
    Silent {
        /// How long it may be silent.
        after: Duration,
    },
    /// The link has ended below the mux.
    Link,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { code, text } => write!(f, "closed by this end: {code}, {text}"),
            Self::Remote { code, text } => write!(f, "closed by the peer: {code}, {text}"),
            Self::Silent { after } => write!(f, "the peer has been silent for {after:?}"),
            Self::Link => f.write_str("the link has ended"),
        }
    }
}

/// Why no stream can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenBlocked {
    /// As many are open as the peer allows, or its HELLO has not come; [`Event::Available`] or
    /// [`Event::Established`] follows.
    #[error("the peer allows no further stream at the moment")]
    Limit,
    /// Either end has begun to drain.
    #[error("the connection is draining")]
    Draining,
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
}

/// Why bytes were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// No credit, or too much is queued; [`Event::Writable`] follows.
    #[error("no room at the moment")]
    Blocked,
    /// This half was finished before.
    #[error("the stream is finished")]
    Finished,
    /// This half was reset before.
    #[error("this end has reset the stream: {0}")]
    Reset(StreamCode),
    /// The peer has stopped it.
    #[error("the peer has stopped the stream: {0}")]
    Stopped(StreamCode),
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
}

/// Why there are no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// None have come; [`Event::Readable`] follows.
    #[error("nothing at the moment")]
    Blocked,
    /// The peer has reset its half.
    #[error("the peer has reset the stream: {0}")]
    Reset(StreamCode),
    /// This end has stopped it, or has reclaimed its memory with [`StreamCode::MEMORY`].
    #[error("this end has stopped the stream: {0}")]
    Stopped(StreamCode),
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
}

/// Figures of the moment; byte counts are of payload, from the start of the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MuxStats {
    /// Bytes taken from writers.
    pub bytes_sent: u64,
    /// Bytes given to readers.
    pub bytes_received: u64,
    /// Streams in flight: established, and not ended in both directions.
    pub streams_open: u64,
    /// Streams that this end opened and the peer accepted.
    pub streams_opened: u64,
    /// Streams that the peer opened and this end accepted.
    pub streams_accepted: u64,
    /// The smoothed round-trip time, once there is a sample.
    pub rtt: Option<Duration>,
    /// How many bytes the peer may still send without further credit, over all streams that are open.
    pub credit_outstanding: u64,
    /// Streams that this end has stopped to take their memory back.
    pub streams_reclaimed: u64,
    /// Bytes held: unread, queued to be sent, and heads that wait for their answer.
    pub buffered: u64,
}
