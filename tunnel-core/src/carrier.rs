//! The seam: what a carrier implements.
//!
//! Accepting is apart from the handshake, a connection is not tied to a direction, and a stream is a pair of plain
//! halves. What every implementation must hold to is written down as laws in `tunnel-testkit`, which runs them
//! against each carrier.

use std::{fmt, future::ready, io, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{runtime::Handle, time::Instant};
use tunnel_proto::{Claim, CloseCode, Identity, Refusal, Rejection, StreamHead, Welcome};

use crate::{
    error::{AcceptError, ConnectionError, DialError, HandshakeError, OpenError},
    stream::Duplex,
    threads::Threads,
};

/// The agent's side of a carrier: dials one server.
#[async_trait]
pub trait Carrier: fmt::Debug + Send + Sync {
    /// The carrier's name, as on the command line and on metrics.
    fn name(&self) -> &'static str;

    /// The server that it dials, for people: a URL such as `quic://gw.example:8091`.
    fn remote(&self) -> String;

    /// Connects, proves the claim and waits for the welcome.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt; the server sees the connection end.
    async fn dial(&self, claim: &Claim, deadline: Instant) -> Result<Arc<dyn Connection>, DialError>;

    /// Whether several connections on threads of their own move more than one, so that an agent adds some while many streams
    /// are open ([`AgentConfig::max_connections`](crate::AgentConfig::max_connections)). Default: they do.
    fn gains_from_several(&self) -> bool {
        true
    }
}

/// The server's side of a carrier: yields connections that have not been looked at yet.
#[async_trait]
pub trait Listener: fmt::Debug + Send {
    /// The carrier's name, as on the command line and on metrics.
    fn name(&self) -> &'static str;

    /// The address that it listens on.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Waits for the next attempt to connect. It performs no handshake, so that a peer stuck in one delays nobody.
    ///
    /// # Cancel safety
    ///
    /// No attempt is lost when the future is dropped.
    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError>;

    /// Tells it among which threads its connections are divided, before the first is accepted. It matters to a listener
    /// that serves something below a connection before there is one; the default does nothing.
    fn divide(&mut self, threads: &Threads) {
        let _ = threads;
    }
}

/// An attempt to connect of which nothing is known but its address.
///
/// Dropping it refuses it.
#[async_trait]
pub trait Incoming: fmt::Debug + Send {
    /// Where it comes from.
    fn remote_addr(&self) -> SocketAddr;

    /// Performs the carrier's handshake, reads the claim and asks `admission` about it. There is no connection unless
    /// `admission` agrees; a rejection reaches the agent with its code and text.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the attempt.
    async fn handshake(self: Box<Self>, admission: &dyn Admission) -> Result<Arc<dyn Connection>, HandshakeError>;

    /// Turns it away at the least cost.
    fn refuse(self: Box<Self>);

    /// The runtime that serves it already, where everything of it is to run; by default none, and whoever accepts it
    /// chooses one.
    fn home(&self) -> Option<Handle> {
        None
    }
}

/// What is known of a peer when its claim is to be judged.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Arrival {
    /// The name of the carrier.
    pub carrier: &'static str,
    /// Where it comes from.
    pub remote_addr: SocketAddr,
    /// What its certificate proves.
    pub identity: Identity,
    /// What it says of itself; nothing if the protocol has no room for that ([`Messages::Foreign`]).
    pub claim: Option<Claim>,
}

impl Arrival {
    /// Puts together what a carrier has learned of an agent.
    #[must_use]
    pub fn new(carrier: &'static str, remote_addr: SocketAddr, identity: Identity, claim: Claim) -> Self {
        Self {
            claim: Some(claim),
            ..Self::foreign(carrier, remote_addr, identity)
        }
    }

    /// Puts together what is known of a peer that speaks a foreign protocol, and so makes no claim.
    #[must_use]
    pub fn foreign(carrier: &'static str, remote_addr: SocketAddr, identity: Identity) -> Self {
        Self {
            carrier,
            remote_addr,
            identity,
            claim: None,
        }
    }

    /// The peer as its connection knows it once it was accepted, with the identity of [`Admitted`]. A credential has
    /// done its work and is dropped.
    #[must_use]
    pub fn into_peer(self, identity: Identity) -> Peer {
        let role = self.claim.map_or(PeerRole::Foreign, |mut claim| {
            claim.credential = None;
            PeerRole::Agent(Box::new(claim))
        });
        Peer {
            carrier: self.carrier,
            identity,
            role,
            remote_addr: self.remote_addr,
        }
    }
}

/// A claim that was accepted.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The identity, with what the credential proved added to it.
    pub identity: Identity,
    /// What to tell the agent.
    pub welcome: Welcome,
}

/// Judges claims, before a connection counts as an agent's.
#[async_trait]
pub trait Admission: fmt::Debug + Send + Sync {
    /// Accepts or rejects a claim.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future decides nothing.
    async fn admit(&self, arrival: &Arrival) -> Result<Admitted, Rejection>;
}

/// One authenticated association of an agent and a server on one carrier.
///
/// Dropping the last handle closes it with [`CloseCode::DONE`]; streams do not keep it alive.
#[async_trait]
pub trait Connection: fmt::Debug + Send + Sync {
    /// Opens a stream; resolves after the peer's answer. Waits while the peer's stream limit is reached, in order of
    /// the calls.
    ///
    /// `early` is the beginning of the payload, as far as the caller has it. Bytes are taken off its front and go out
    /// right behind the head, without a wait for the answer: as many as there is credit and room for, and none where
    /// the wire has no place for them before the answer. What is left when the stream is open is the caller's to send,
    /// before anything else.
    ///
    /// The peer hands payload to nobody before it accepts the stream ([`Inbound`]), so a stream that was refused has
    /// delivered none. When opening fails, what is left of `early` says nothing: who tries elsewhere
    /// ([`OpenError::is_undelivered`]) begins with the whole again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the stream and what was sent of it; a peer that has seen it sees a reset.
    async fn open_with(&self, head: StreamHead, early: &mut Bytes) -> Result<Duplex, OpenError>;

    /// Waits for the next stream that the peer opens. Not calling it is the back-pressure on new streams.
    ///
    /// # Cancel safety
    ///
    /// No stream is lost when the future is dropped. Any number of calls may wait at once.
    async fn accept(&self) -> Result<Box<dyn Inbound>, ConnectionError>;

    /// Waits until either side has begun to drain the connection, or something on the way has announced that it will
    /// end it; or until it is closed. In that case it is over no earlier than [`closed`](Self::closed), so that whoever
    /// asks both can tell the end from a drain.
    ///
    /// Streams can still be opened where the end was only announced. Whoever has another connection by then
    /// [drains](Self::drain) this one.
    async fn draining(&self);

    /// Waits for the end and says why; at once if it is over.
    async fn closed(&self) -> ConnectionError;

    /// Ends the connection and every stream in it at once. Only the first call counts.
    fn close(&self, code: CloseCode, reason: &str);

    /// Lets no new streams start, in either direction, and tells the peer so. Those that are open go on; when the last
    /// has ended, the connection is closed with [`CloseCode::DRAINED`]. One that drains already goes on as it did.
    fn drain(&self);

    /// Who is at the other end.
    fn peer(&self) -> &Peer;

    /// Facts about the wire.
    fn capabilities(&self) -> Capabilities;

    /// Figures of the moment.
    fn stats(&self) -> ConnectionStats;
}

/// Why a connection has ended, if it has by now.
pub(crate) async fn ended(connection: &dyn Connection) -> Option<ConnectionError> {
    tokio::select! {
        biased;
        cause = connection.closed() => Some(cause),
        () = ready(()) => None,
    }
}

impl dyn Connection + '_ {
    /// [`open_with`](Connection::open_with) without early bytes; as cancel safe.
    pub async fn open(&self, head: StreamHead) -> Result<Duplex, OpenError> {
        self.open_with(head, &mut Bytes::new()).await
    }
}

/// A stream that the peer has opened and that waits for an answer. What the peer sends meanwhile waits, too, within the
/// stream's window: it is there to be read when the stream was accepted, and dropped when it is not.
///
/// Dropping it refuses it with [`RefusalKind::ProxyInternalError`](tunnel_proto::RefusalKind::ProxyInternalError).
#[async_trait]
pub trait Inbound: fmt::Debug + Send {
    /// What the peer wants.
    fn head(&self) -> &StreamHead;

    /// Resolves when the peer has given the stream up or the connection has ended, while no answer was given.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    async fn cancelled(&mut self);

    /// Answers that the target was reached.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future resets the stream.
    async fn accept(self: Box<Self>) -> Result<Duplex, OpenError>;

    /// Answers that the stream is not opened, and why.
    fn refuse(self: Box<Self>, refusal: Refusal);
}

/// The other end of a connection, as verified in the handshake.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The carrier's name.
    pub carrier: &'static str,
    /// What its certificate and its credential prove.
    pub identity: Identity,
    /// What it is.
    pub role: PeerRole,
    /// Its address when the connection was made; QUIC connections may migrate.
    pub remote_addr: SocketAddr,
}

impl Peer {
    /// The claim, if the peer is an agent.
    #[must_use]
    pub fn claim(&self) -> Option<&Claim> {
        match &self.role {
            PeerRole::Agent(claim) => Some(claim),
            PeerRole::Server(_) | PeerRole::Foreign => None,
        }
    }

    /// The welcome, if the peer is a server.
    #[must_use]
    pub fn welcome(&self) -> Option<&Welcome> {
        match &self.role {
            PeerRole::Server(welcome) => Some(welcome),
            PeerRole::Agent(_) | PeerRole::Foreign => None,
        }
    }
}

/// What a peer is.
#[derive(Clone, Debug)]
pub enum PeerRole {
    /// An agent with its claim, less the credential.
    Agent(Box<Claim>),
    /// A server with its welcome.
    Server(Box<Welcome>),
    /// A program of another kind that opens streams, as servers do, and says nothing of itself: all that is known of it
    /// is its identity.
    Foreign,
}

/// Facts about a connection's wire, never options. A native carrier has all of [`Capabilities::NATIVE`]; a dialect
/// declares less and is held to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// How a receiver slows a sender down.
    pub backpressure: Backpressure,
    /// Who may open streams.
    pub openers: Openers,
    /// What a resolved `open` means.
    pub confirmation: Confirmation,
    /// Whether one half can end while the other goes on.
    pub half_close: bool,
    /// Whether one half can be reset or stopped while the other goes on. If not, a reset and a stop end both halves of a
    /// stream at both ends.
    pub half_reset: bool,
    /// Whether a reset and a stop carry their code.
    pub reset_codes: bool,
    /// Whose messages are on the wire.
    pub messages: Messages,
    /// Whether unreliable datagrams can be carried.
    pub datagrams: bool,
}

impl Capabilities {
    /// What every native carrier has.
    pub const NATIVE: Self = Self {
        backpressure: Backpressure::Credit,
        openers: Openers::Both,
        confirmation: Confirmation::Confirmed,
        half_close: true,
        half_reset: true,
        reset_codes: true,
        messages: Messages::Own,
        datagrams: false,
    };
}

/// How a receiver slows a sender down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backpressure {
    /// By credit for each stream.
    Credit,
    /// By pausing and resuming a stream, with what is on the way still arriving.
    PauseResume,
    /// Not at all.
    None,
}

/// Who may open streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Openers {
    /// Either end.
    Both,
    /// The server only, or what stands in for it ([`PeerRole::Foreign`]). At the other end `open` fails with
    /// [`OpenError::Unsupported`].
    ServerOnly,
}

/// Whose messages are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Messages {
    /// The tunnel's own: claim and welcome, whole heads, refusals word for word, and the codes with which connections
    /// are closed.
    Own,
    /// Those of another protocol, which has room for less. Claim and welcome do not travel: who accepts a connection
    /// judges the identity alone, and its peer is [`PeerRole::Foreign`]. Of a head, the target arrives if it is TCP, the
    /// client and the trace context. Of a refusal, the kind arrives, and what ASCII can say of its text, in a longer
    /// one. An orderly close arrives as [`CloseCode::DONE`] or [`CloseCode::DRAINED`], whatever its code was, and an end
    /// that opens no streams need not hear that the other one drains.
    Foreign,
}

/// What a resolved `open` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// The peer has reached the target.
    Confirmed,
    /// Nothing yet: a failure arrives later, as a reset.
    Optimistic,
}

/// Figures of a connection. Byte counts are of stream payload, from the start of the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Payload bytes taken from this side's senders.
    pub bytes_sent: u64,
    /// Payload bytes given to this side's receivers.
    pub bytes_received: u64,
    /// Streams in flight: opened by either side, and not ended in both directions.
    pub streams_open: u64,
    /// Streams that this side has opened and the peer has accepted.
    pub streams_opened: u64,
    /// Streams that the peer has opened and this side has accepted.
    pub streams_accepted: u64,
    /// The carrier's estimate of the round-trip time, if it has one.
    pub rtt: Option<Duration>,
    /// The upper bound of payload bytes that the peer may still send without further credit, over all streams, if the
    /// carrier can tell.
    pub credit_outstanding: Option<u64>,
}
