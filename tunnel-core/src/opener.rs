//! What frontends ask of a server.

use std::{fmt, net::SocketAddr};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Handle;
use tunnel_proto::{AgentId, Identity, Labels, Refusal, StreamHead};

use crate::stream::Duplex;

/// Opens streams through agents on behalf of clients. A server is one; a frontend's tests may bring their own.
#[async_trait]
pub trait Opener: fmt::Debug + Send + Sync {
    /// Chooses an agent by policy and routing, opens a stream through it and waits for the answer. The deadline in
    /// the request's head bounds the wait; without one the opener's own does.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the dial, on the agent's side, too.
    async fn open(&self, request: OpenRequest) -> Result<Opened, OpenFailure>;
}

/// A client's wish for a stream.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// Who asks.
    pub client: Client,
    /// Through which agent.
    pub selector: Selector,
    /// What the agent is told.
    pub head: StreamHead,
    /// What the client has said already, for the target. The first of it goes out with the head where the wire allows
    /// that, and is sent again to another agent if the first one has certainly handed it to nobody; so the target
    /// sees it at most once, and only if the agent has accepted the stream.
    pub early: Bytes,
}

/// Who asks for a stream.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// What the client has proven to be.
    pub identity: Identity,
    /// Its address, if it has one; a client on a Unix socket has none.
    pub addr: Option<SocketAddr>,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            Some(addr) => write!(f, "{} at {addr}", self.identity),
            None => write!(f, "{}", self.identity),
        }
    }
}

/// Which agents may carry a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selector {
    /// Any that the routing strategies choose.
    #[default]
    Any,
    /// This one.
    Agent(AgentId),
    /// Any that has all of these labels.
    Labels(Labels),
}

impl From<AgentId> for Selector {
    fn from(agent: AgentId) -> Self {
        Self::Agent(agent)
    }
}

impl From<Labels> for Selector {
    fn from(labels: Labels) -> Self {
        Self::Labels(labels)
    }
}

/// A stream that was opened, and through whom.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened {
    /// The stream. Its connection counts as in use until both halves are dropped.
    pub stream: Duplex,
    /// The agent that dialled the target.
    pub agent: AgentId,
    /// What is left of [`OpenRequest::early`]: it is to be sent before anything else.
    pub early: Bytes,
    /// The runtime that serves the stream's connection, where a relay of it costs least: [`Threads`](crate::Threads). None
    /// if that is not known.
    pub home: Option<Handle>,
}

impl Opened {
    /// Puts an opened stream together, with what is left of the early bytes.
    #[must_use]
    pub fn new(stream: Duplex, agent: AgentId, early: Bytes) -> Self {
        Self {
            stream,
            agent,
            early,
            home: None,
        }
    }

    /// Says which runtime serves the stream's connection.
    #[must_use]
    pub fn at_home(mut self, home: Option<Handle>) -> Self {
        self.home = home;
        self
    }
}

/// Why no stream was opened, and who says so.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}{refusal}", by(.agent))]
pub struct OpenFailure {
    /// The reason.
    pub refusal: Refusal,
    /// The agent that refused or failed; the server itself if there is none.
    pub agent: Option<AgentId>,
}

/// Who refused, as the beginning of a sentence.
fn by(agent: &Option<AgentId>) -> String {
    agent
        .as_ref()
        .map(|agent| format!("agent {agent}: "))
        .unwrap_or_default()
}
