//! Carriers at the seam, beside the bare protocols that they are made of.
//!
//! Two processes: an [agent](cell) that dials and measures, and a [server] of its own that it starts, on loopback
//! with TLS. Whatever moves the bytes is a [`Wire`]; what a stream is for is said by its first byte ([`Purpose`]).

pub mod bare;
pub mod cell;
pub mod fifo;
pub mod load;
pub mod report;
pub mod seam;
pub mod server;
mod tonic;

use std::{fmt, net::SocketAddr, str::FromStr, sync::Arc};

use anyhow::bail;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Serialize, Serializer};

use crate::credentials::Credentials;

/// The bytes of one message of bulk.
pub const CHUNK: usize = 64 * 1024;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The carrier over QUIC.
    Quic,
    /// The carrier over WebSocket.
    Ws,
    /// The carrier over gRPC.
    Grpc,
    /// The carrier over HTTP/2.
    H2,
    /// Streams over WebSocket that share one queue and have no credit: what the mux is without its scheduler.
    Fifo,
    /// One byte stream over TLS.
    BareTls,
    /// One exchange of messages by tungstenite over TLS.
    BareWs,
    /// One bidirectional call by tonic over TLS.
    BareGrpc,
}

impl Kind {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 8] = [
        Self::BareTls,
        Self::BareWs,
        Self::Ws,
        Self::Fifo,
        Self::BareGrpc,
        Self::Grpc,
        Self::H2,
        Self::Quic,
    ];

    /// Whether a connection of it has more than one stream.
    #[must_use]
    pub fn multiplexes(self) -> bool {
        !matches!(self, Self::BareTls | Self::BareWs | Self::BareGrpc)
    }

    /// What it is called on the command line and in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Ws => "ws",
            Self::Grpc => "grpc",
            Self::H2 => "h2",
            Self::Fifo => "fifo",
            Self::BareTls => "bare-tls",
            Self::BareWs => "bare-ws",
            Self::BareGrpc => "bare-grpc",
        }
    }

    /// Listens on a free port of loopback.
    pub async fn listen(self, credentials: &Credentials) -> anyhow::Result<Box<dyn Listen>> {
        match self {
            Self::Quic | Self::Ws | Self::Grpc | Self::H2 => seam::listen(self, credentials),
            Self::Fifo | Self::BareTls | Self::BareWs | Self::BareGrpc => bare::listen(self, credentials).await,
        }
    }

    /// Prepares to dial a server of the same kind.
    pub fn dialler(self, server: SocketAddr, credentials: &Credentials) -> anyhow::Result<Box<dyn Dial>> {
        match self {
            Self::Quic | Self::Ws | Self::Grpc | Self::H2 => seam::dialler(self, server, credentials),
            Self::Fifo | Self::BareTls | Self::BareWs | Self::BareGrpc => bare::dialler(self, server, credentials),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        match Self::ALL.into_iter().find(|kind| kind.name() == name) {
            Some(kind) => Ok(kind),
            None => bail!("{name} is none of {}", Self::ALL.map(Self::name).join(", ")),
        }
    }
}

/// What a server does with a stream; its first byte says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Send for ever.
    Download = b'd',
    /// Take for ever.
    Upload = b'u',
    /// Send back what comes.
    Echo = b'e',
    /// Hold it.
    Idle = b'i',
}

impl Purpose {
    /// The one of this byte.
    pub fn of(byte: u8) -> anyhow::Result<Self> {
        let all = [Self::Download, Self::Upload, Self::Echo, Self::Idle];
        match all.into_iter().find(|purpose| *purpose as u8 == byte) {
            Some(purpose) => Ok(purpose),
            None => bail!("a stream begins with {byte:#04x}"),
        }
    }
}

/// The sending half of a stream.
#[async_trait]
pub trait Tx: Send {
    /// Sends all of `data`, waiting while there is no room, and sees to it that it gets on the wire.
    async fn send(&mut self, data: Bytes) -> anyhow::Result<()>;
}

/// The receiving half of a stream.
#[async_trait]
pub trait Rx: Send {
    /// The next bytes; `None` at the end.
    async fn recv(&mut self) -> anyhow::Result<Option<Bytes>>;
}

/// Both halves of a stream.
pub type Pair = (Box<dyn Tx>, Box<dyn Rx>);

/// One connection.
#[async_trait]
pub trait Wire: Send + Sync {
    /// Opens a stream.
    async fn open(&self) -> anyhow::Result<Pair>;

    /// Waits for the peer to open one; `None` at the end of the connection.
    async fn accept(&self) -> anyhow::Result<Option<Pair>>;
}

/// Makes connections.
#[async_trait]
pub trait Dial: Send + Sync {
    /// Makes one.
    async fn dial(&self) -> anyhow::Result<Arc<dyn Wire>>;
}

/// A handshake under way.
pub type Handshake = BoxFuture<'static, anyhow::Result<Arc<dyn Wire>>>;

/// Takes connections.
#[async_trait]
pub trait Listen: Send {
    /// Where.
    fn addr(&self) -> anyhow::Result<SocketAddr>;

    /// Takes one, whose handshake is still to be made.
    async fn accept(&mut self) -> anyhow::Result<Handshake>;
}
