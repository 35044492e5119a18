//! A connection in the registry, and what routing must know of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};
use tokio_util::sync::CancellationToken;
use tunnel_proto::{AgentId, CloseCode};

use crate::{
    carrier::{Connection, ConnectionStats},
    error::ConnectionError,
};

/// How many dials in a row must stay without an answer before a connection is suspect. One alone may be a target that
/// swallows packets.
const SUSPECT_AFTER: u32 = 2;
/// How long a connection stays suspect; then it gets another chance.
const SUSPECT_FOR: Duration = Duration::from_secs(30);

/// One connection of an agent, as the server sees it.
#[derive(Debug)]
pub struct LiveConnection {
    id: u64,
    agent: AgentId,
    connection: Arc<dyn Connection>,
    /// Where it is served.
    home: Option<Handle>,
    since: Instant,
    /// Streams open, and dials that wait for their answer, in both directions.
    in_flight: AtomicU64,
    draining: AtomicBool,
    /// Dials in a row that ended without any answer.
    unanswered: AtomicU32,
    /// When the last of them ended, in milliseconds after `since`.
    unanswered_at: AtomicU64,
    ended: CancellationToken,
    end: OnceLock<ConnectionError>,
}

/// How fit something is to carry a stream; less is better. The order of the fields is the order of their weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load {
    /// No new streams are wanted: the last resort.
    pub draining: bool,
    /// The latest dials got no answer at all.
    pub suspect: bool,
    /// Streams in flight.
    pub streams: u64,
    /// Dials in a row that lately got no answer.
    pub unanswered: u32,
}

impl LiveConnection {
    pub(super) fn new(id: u64, agent: AgentId, connection: Arc<dyn Connection>) -> Self {
        Self {
            id,
            agent,
            connection,
            home: Handle::try_current().ok(),
            since: Instant::now(),
            in_flight: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            unanswered: AtomicU32::new(0),
            unanswered_at: AtomicU64::new(0),
            ended: CancellationToken::new(),
            end: OnceLock::new(),
        }
    }

    /// A number that no other connection of this server's life has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The name of the session that it belongs to.
    #[must_use]
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// The runtime that serves it: the one that registered it.
    pub(crate) fn home(&self) -> Option<&Handle> {
        self.home.as_ref()
    }

    /// The carrier's name.
    #[must_use]
    pub fn carrier(&self) -> &'static str {
        self.connection.peer().carrier
    }

    /// The agent's address when the connection was made.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        self.connection.peer().remote_addr
    }

    /// How long ago the connection was made.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether either side lets no new streams start.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The carrier's figures.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        self.connection.stats()
    }

    /// How fit the connection is to carry a stream.
    #[must_use]
    pub fn load(&self, now: Instant) -> Load {
        let at = self.since + Duration::from_millis(self.unanswered_at.load(Ordering::Relaxed));
        let unanswered = if now.saturating_duration_since(at) < SUSPECT_FOR {
            self.unanswered.load(Ordering::Relaxed)
        } else {
            0
        };
        Load {
            draining: self.is_draining(),
            suspect: unanswered >= SUSPECT_AFTER,
            streams: self.in_flight.load(Ordering::Relaxed),
            unanswered,
        }
    }

    /// Ends the connection and all its streams.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.connection.close(code, reason);
    }

    pub(crate) fn connection(&self) -> &Arc<dyn Connection> {
        &self.connection
    }

    /// Counts a stream for as long as the guard lives.
    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Notes that the agent has answered a dial, with whatever answer: it is alive.
    pub(crate) fn answered(&self) {
        self.unanswered.store(0, Ordering::Relaxed);
    }

    /// Notes that a dial ended without an answer.
    pub(crate) fn not_answered(&self) {
        let at = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.unanswered_at.store(at, Ordering::Relaxed);
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes the end and its cause, and wakes those who wait for it.
    pub(crate) fn set_ended(&self, cause: ConnectionError) {
        // The first cause is the true one.
        let _ = self.end.set(cause);
        self.ended.cancel();
    }

    /// Waits for the end; cancel safe.
    pub(crate) async fn ended(&self) -> ConnectionError {
        self.ended.cancelled().await;
        match self.end.get() {
            Some(cause) => cause.clone(),
            None => self.connection.closed().await,
        }
    }
}

/// Counts a stream as in flight on a connection until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<LiveConnection>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
