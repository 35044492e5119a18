//! What can go wrong at the seam, one type for each operation.
//!
//! Every error says who ended the matter ([`Initiator`]) and whether to try again. `Display` prints one level; the
//! cause, where there is one, is in `source()`.

use std::{fmt, io, sync::Arc, time::Duration};

use tunnel_proto::{CloseCode, Refusal, Rejection, StreamCode, Text};

/// A cause that several errors can share.
pub type SharedError = Arc<dyn std::error::Error + Send + Sync>;

/// Who ended a stream or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Initiator {
    /// This process.
    Local,
    /// The peer, by saying so.
    Remote,
    /// Neither: the path between them failed.
    Network,
}

impl fmt::Display for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "this side",
            Self::Remote => "the peer",
            Self::Network => "the network",
        })
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// One of the two ends closed it with a code.
    #[error("{initiator} closed the connection: {code}{}", and_text(.reason))]
    Closed {
        /// Who closed it: [`Initiator::Local`] or [`Initiator::Remote`].
        initiator: Initiator,
        /// Why.
        code: CloseCode,
        /// More for people; may be empty.
        reason: Text,
    },
    /// The peer was silent for longer than keepalive allows.
    #[error("the peer has been silent for {after:?}")]
    TimedOut {
        /// How long the peer may be silent.
        after: Duration,
    },
    /// The transport below failed.
    #[error("the transport of the connection failed")]
    Transport(#[source] SharedError),
}

impl ConnectionError {
    /// Makes one for a connection that this side closed.
    #[must_use]
    pub fn local(code: CloseCode, reason: impl Into<Text>) -> Self {
        Self::Closed {
            initiator: Initiator::Local,
            code,
            reason: reason.into(),
        }
    }

    /// Makes one for a connection that the peer closed.
    #[must_use]
    pub fn remote(code: CloseCode, reason: impl Into<Text>) -> Self {
        Self::Closed {
            initiator: Initiator::Remote,
            code,
            reason: reason.into(),
        }
    }

    /// Makes one of an error of the transport below.
    #[must_use]
    pub fn transport(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Transport(Arc::new(cause))
    }

    /// Who ended the connection.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Closed { initiator, .. } => *initiator,
            Self::TimedOut { .. } | Self::Transport(_) => Initiator::Network,
        }
    }

    /// The code with which it was closed, if somebody closed it.
    #[must_use]
    pub fn code(&self) -> Option<CloseCode> {
        match self {
            Self::Closed { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// A short name for metrics: `silent`, `transport`, or the code with which it was closed.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Closed { code, .. } => code.label(),
            Self::TimedOut { .. } => "silent",
            Self::Transport(_) => "transport",
        }
    }

    /// Whether a new connection can succeed without somebody changing a configuration first.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.code().is_none_or(CloseCode::is_retryable)
    }
}

/// Why an agent could not make a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The server's name could not be resolved.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's error.
        source: io::Error,
    },
    /// The server could not be reached.
    #[error("cannot reach {remote}")]
    Unreachable {
        /// The address or name that was tried.
        remote: String,
        /// What the network said.
        source: SharedError,
    },
    /// A proxy on the way did not make the connection.
    #[error("the proxy {proxy} {explanation}")]
    Proxy {
        /// The proxy, without its credentials.
        proxy: String,
        /// What it did not do and why, for people.
        explanation: String,
        /// Whether it may do so later without somebody changing a configuration first.
        is_retryable: bool,
    },
    /// The TLS handshake failed; the text says which side did not accept what.
    #[error("the TLS handshake with {remote} failed: {explanation}")]
    Tls {
        /// The address or name of the server.
        remote: String,
        /// One clause for people.
        explanation: String,
        /// The TLS library's error.
        source: SharedError,
    },
    /// The server does not accept the claim.
    #[error("{remote} rejected this agent: {rejection}")]
    Rejected {
        /// The address or name of the server.
        remote: String,
        /// The server's words.
        rejection: Rejection,
    },
    /// The server does not speak our protocol, or broke it.
    #[error("{remote} does not speak the tunnel protocol: {detail}")]
    Protocol {
        /// The address or name of the server.
        remote: String,
        /// What was wrong.
        detail: String,
    },
    /// The connection ended before the welcome.
    #[error("the connection to {remote} ended before the welcome")]
    Lost {
        /// The address or name of the server.
        remote: String,
        /// Why it ended.
        source: ConnectionError,
    },
    /// No welcome came before the deadline.
    #[error("{remote} did not answer in time")]
    TimedOut {
        /// The address or name of the server.
        remote: String,
    },
    /// This carrier cannot be used here at all, for example QUIC behind an HTTP proxy.
    #[error("the carrier cannot be used: {0}")]
    Unusable(String),
}

impl DialError {
    /// A short name for metrics: `resolve`, `unreachable`, `proxy`, `tls`, `protocol`, `lost`, `timeout`,
    /// `unusable`, or the code of a rejection.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "resolve",
            Self::Unreachable { .. } => "unreachable",
            Self::Proxy { .. } => "proxy",
            Self::Tls { .. } => "tls",
            Self::Rejected { rejection, .. } => rejection.code.label(),
            Self::Protocol { .. } => "protocol",
            Self::Lost { .. } => "lost",
            Self::TimedOut { .. } => "timeout",
            Self::Unusable(_) => "unusable",
        }
    }

    /// How long the server asked this agent to stay away.
    #[must_use]
    pub fn not_before(&self) -> Option<Duration> {
        match self {
            Self::Rejected { rejection, .. } => rejection.not_before,
            _ => None,
        }
    }

    /// Whether dialling again can succeed without somebody changing a configuration first.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Rejected { rejection, .. } => rejection.code.is_retryable(),
            Self::Lost { source, .. } => source.is_retryable(),
            Self::Proxy { is_retryable, .. } => *is_retryable,
            Self::Unusable(_) => false,
            _ => true,
        }
    }
}

/// Why a listener could not take the next connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// This attempt failed, for example for want of file descriptors; the next one may succeed.
    #[error("cannot accept a connection at the moment")]
    Transient(#[source] io::Error),
    /// The listener is closed and yields no more connections.
    #[error("the listener is closed")]
    Closed,
}

/// Why an incoming connection did not become an agent's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The TLS handshake failed; the text says which side did not accept what.
    #[error("the TLS handshake failed: {explanation}")]
    Tls {
        /// One clause for people.
        explanation: String,
        /// The TLS library's error.
        source: SharedError,
    },
    /// The claim was rejected, and the agent was told so.
    #[error("rejected: {0}")]
    Rejected(Rejection),
    /// The peer does not speak our protocol, or broke it.
    #[error("the peer does not speak the tunnel protocol: {detail}")]
    Protocol {
        /// What was wrong.
        detail: String,
    },
    /// The connection ended before the welcome.
    #[error("the connection ended before the welcome")]
    Lost(#[source] ConnectionError),
}

impl HandshakeError {
    /// A short name for metrics: `tls`, `rejected`, `protocol` or `lost`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Tls { .. } => "tls",
            Self::Rejected(_) => "rejected",
            Self::Protocol { .. } => "protocol",
            Self::Lost(_) => "lost",
        }
    }
}

/// Why a stream was not opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer refused it.
    #[error("the peer refused the stream: {0}")]
    Refused(Refusal),
    /// The peer ended the stream without an answer.
    #[error("the peer ended the stream without an answer: {0}")]
    Reset(StreamCode),
    /// The connection is draining, by either side, and takes no new streams; the stream was certainly not delivered.
    #[error("the connection is draining and takes no new streams")]
    Draining,
    /// The peer broke the stream protocol while answering.
    #[error("the peer broke the stream protocol: {0}")]
    Protocol(Text),
    /// This end cannot open streams at all ([`Openers::ServerOnly`](crate::Openers::ServerOnly)).
    #[error("this end of the connection opens no streams: on {0} only the other one does")]
    Unsupported(&'static str),
    /// The connection ended first.
    #[error("the connection ended before the stream was answered")]
    Connection(#[source] ConnectionError),
}

impl OpenError {
    /// Who prevented the stream.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Draining | Self::Unsupported(_) => Initiator::Local,
            Self::Connection(error) => error.initiator(),
            _ => Initiator::Remote,
        }
    }

    /// Whether the stream was certainly not delivered to its target, so that another agent may be tried. That holds for
    /// bytes that were sent with the head, too: whoever refuses a stream has handed on none of them.
    #[must_use]
    pub fn is_undelivered(&self) -> bool {
        match self {
            Self::Draining | Self::Unsupported(_) => true,
            Self::Refused(refusal) => refusal.kind.is_retryable_elsewhere(),
            // A connection is drained when its last stream has ended: this one had not begun.
            Self::Connection(error) => error.code() == Some(CloseCode::DRAINED),
            Self::Reset(_) | Self::Protocol(_) => false,
        }
    }
}

/// Why bytes could not be sent.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The peer's receiver stopped the stream.
    #[error("the peer stopped the stream: {0}")]
    Stopped(StreamCode),
    /// The connection ended.
    #[error("the connection ended")]
    Connection(#[source] ConnectionError),
    /// This side has finished the stream already.
    #[error("the stream is finished")]
    Finished,
    /// This side has reset the stream, for example because a change of policy no longer allows it.
    #[error("this side reset the stream: {0}")]
    Reset(StreamCode),
}

impl SendError {
    /// Who ended the stream.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Stopped(_) => Initiator::Remote,
            Self::Connection(error) => error.initiator(),
            Self::Finished | Self::Reset(_) => Initiator::Local,
        }
    }
}

impl From<SendError> for io::Error {
    fn from(error: SendError) -> Self {
        let kind = match &error {
            SendError::Stopped(_) => io::ErrorKind::BrokenPipe,
            SendError::Connection(_) => io::ErrorKind::ConnectionAborted,
            SendError::Finished | SendError::Reset(_) => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

/// Why bytes could not be received.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The peer's sender reset the stream: the bytes received so far are not the whole.
    #[error("the peer reset the stream: {0}")]
    Reset(StreamCode),
    /// The connection ended.
    #[error("the connection ended")]
    Connection(#[source] ConnectionError),
    /// This side has stopped the stream already, or its memory was reclaimed.
    #[error("this side stopped the stream: {0}")]
    Stopped(StreamCode),
}

impl RecvError {
    /// Who ended the stream.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Reset(_) => Initiator::Remote,
            Self::Connection(error) => error.initiator(),
            Self::Stopped(_) => Initiator::Local,
        }
    }
}

impl From<RecvError> for io::Error {
    fn from(error: RecvError) -> Self {
        let kind = match &error {
            RecvError::Reset(_) => io::ErrorKind::ConnectionReset,
            RecvError::Connection(_) => io::ErrorKind::ConnectionAborted,
            RecvError::Stopped(_) => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

/// The reason as the end of a sentence, or nothing.
fn and_text(reason: &Text) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(", {reason}")
    }
}
