//! What a relay says when it is over.

use std::{fmt, io, sync::Arc, time::Duration};

use tunnel_proto::StreamCode;

use crate::error::ConnectionError;

/// What a relay has moved, and why it is over. Its `Display` is one clause for logs that says who ended it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RelayReport {
    /// Bytes from the socket that the stream took.
    pub sent: u64,
    /// Bytes from the stream that the socket took.
    pub received: u64,
    /// Who is at the other end of the socket.
    pub party: Party,
    /// Why it is over.
    pub ended: End,
}

/// Who is at the other end of a relay's socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Party {
    /// A client, on the server.
    #[default]
    Client,
    /// A target, on the agent.
    Target,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "the client",
            Self::Target => "the target",
        })
    }
}

/// Why a relay is over: the first thing that went otherwise than well, if anything did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum End {
    /// Both directions ended cleanly, the one from the socket first.
    SocketFinished,
    /// Both directions ended cleanly, the one from the peer first.
    PeerFinished,
    /// The socket was closed at its other end while bytes were still to be written to it.
    SocketClosed,
    /// The socket was reset.
    SocketReset,
    /// The socket failed otherwise.
    SocketFailed(Arc<io::Error>),
    /// The peer reset the stream.
    PeerReset(StreamCode),
    /// The peer stopped the stream.
    PeerStopped(StreamCode),
    /// The connection under the stream ended.
    ConnectionLost(ConnectionError),
    /// No byte moved for this long.
    Idle(Duration),
    /// One direction had ended, and no byte moved in the other for this long.
    HalfClosed(Duration),
    /// This process ended it.
    Local(StreamCode),
}

impl End {
    /// A short name for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::SocketFinished => "socket_finished",
            Self::PeerFinished => "peer_finished",
            Self::SocketClosed => "socket_closed",
            Self::SocketReset => "socket_reset",
            Self::SocketFailed(_) => "socket_failed",
            Self::PeerReset(_) => "peer_reset",
            Self::PeerStopped(_) => "peer_stopped",
            Self::ConnectionLost(_) => "connection_lost",
            Self::Idle(_) => "idle",
            Self::HalfClosed(_) => "half_closed",
            Self::Local(_) => "local",
        }
    }

    /// Whether both directions ended cleanly.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::SocketFinished | Self::PeerFinished)
    }

    /// What an error of the socket means.
    pub(super) fn of_socket(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Self::SocketReset,
            io::ErrorKind::BrokenPipe => Self::SocketClosed,
            _ => Self::SocketFailed(Arc::new(error)),
        }
    }

    /// What the peer is told.
    pub(super) fn code(&self) -> StreamCode {
        match self {
            Self::SocketFinished | Self::PeerFinished | Self::ConnectionLost(_) => StreamCode::CANCELLED,
            Self::SocketClosed | Self::SocketReset => StreamCode::TARGET_RESET,
            Self::SocketFailed(_) => StreamCode::TARGET_ERROR,
            Self::PeerReset(code) | Self::PeerStopped(code) | Self::Local(code) => *code,
            Self::Idle(_) | Self::HalfClosed(_) => StreamCode::IDLE,
        }
    }
}

impl fmt::Display for RelayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let party = self.party;
        match &self.ended {
            End::SocketFinished => write!(f, "{party} finished, then the peer"),
            End::PeerFinished => write!(f, "the peer finished, then {party}"),
            End::SocketClosed => write!(f, "{party} closed before it had read everything"),
            End::SocketReset => write!(f, "{party} reset the connection"),
            End::SocketFailed(error) => write!(f, "the connection with {party} failed: {error}"),
            End::PeerReset(code) => write!(f, "the peer reset the stream: {}", code.meaning()),
            End::PeerStopped(code) => write!(f, "the peer stopped the stream: {}", code.meaning()),
            End::ConnectionLost(error) => write!(f, "the tunnel's connection was lost: {error}"),
            End::Idle(limit) => write!(f, "no byte moved for {limit:?}"),
            End::HalfClosed(limit) => write!(f, "half of it had ended and no byte moved for {limit:?}"),
            End::Local(code) => write!(f, "this side ended it: {}", code.meaning()),
        }
    }
}
