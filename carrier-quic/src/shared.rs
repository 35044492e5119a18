//! What the parts of one connection share.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Mutex, Notify, OwnedSemaphorePermit, watch},
    time::sleep,
};
use tunnel_core::{CloseCode, ConnectionError, OpenError, Text};

use crate::{
    attend::{Awaited, Gone},
    config::{QuicConfig, var_int},
    congestion,
    error::{connection_error, quic_close_code},
    pressure::Readers,
    room::Room,
};

/// How often, and how many times at most, is looked whether a close has been sent. It is sent within microseconds,
/// unless the machine is busy or the socket's buffer is full.
const TOLD_INTERVAL: Duration = Duration::from_millis(1);
const TOLD_CHECKS: u32 = 50;

/// What the parts of one connection share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) quic: quinn::Connection,
    pub(crate) config: Arc<QuicConfig>,
    pub(crate) counters: Counters,
    /// The receiving halves, where stalled ones could exhaust the connection's window.
    pub(crate) readers: Option<Readers>,
    pub(crate) room: Arc<Room>,
    /// Whoever holds it is the next to open a stream.
    pub(crate) turn: Mutex<()>,
    /// To finish small writes of calls that may not wait.
    pub(crate) runtime: Handle,
    draining: watch::Sender<Draining>,
    /// Streams of which quinn keeps something until the connection ends.
    remains: AtomicU64,
    /// Streams that wait for the peer's answer.
    pub(crate) awaited: Awaited,
    /// Notified when somebody reports that nobody has the peer's port any more.
    pub(crate) reported: Notify,
    /// Why this side has given the peer up, if it has.
    gone: OnceLock<Gone>,
    /// Notified when no stream is open any more.
    idle: Notify,
    local_close: OnceLock<(CloseCode, Text)>,
    /// How many datagrams had been sent when this side closed the connection.
    sent_at_close: OnceLock<u64>,
}

/// Who has begun to drain the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Draining {
    pub(crate) local: bool,
    pub(crate) remote: bool,
}

/// Figures of a connection.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) open: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) accepted: AtomicU64,
}

impl Draining {
    pub(crate) fn any(self) -> bool {
        self.local || self.remote
    }
}

impl Shared {
    pub(crate) fn new(quic: quinn::Connection, config: Arc<QuicConfig>) -> Arc<Self> {
        let (_, exhaustible) = config.receive_window();
        let room = Arc::new(Room::new(config.send_window));
        Arc::new(Self {
            quic,
            config,
            counters: Counters::default(),
            readers: exhaustible.then(Readers::default),
            room,
            turn: Mutex::new(()),
            runtime: Handle::current(),
            draining: watch::Sender::new(Draining::default()),
            remains: AtomicU64::new(0),
            awaited: Awaited::default(),
            reported: Notify::new(),
            gone: OnceLock::new(),
            idle: Notify::new(),
            local_close: OnceLock::new(),
            sent_at_close: OnceLock::new(),
        })
    }

    /// quinn's error in the words of the seam.
    pub(crate) fn error(&self, error: quinn::ConnectionError) -> ConnectionError {
        match (&error, self.gone.get()) {
            (quinn::ConnectionError::LocallyClosed, Some(gone)) => ConnectionError::transport(*gone),
            _ => connection_error(error, self.local_close.get(), self.silence()),
        }
    }

    /// How long the peer may be silent.
    fn silence(&self) -> Duration {
        self.config.keepalive.bound()
    }

    /// Why the connection has ended, if it has.
    pub(crate) fn ended(&self) -> Option<ConnectionError> {
        self.quic.close_reason().map(|error| self.error(error))
    }

    pub(crate) async fn closed(&self) -> ConnectionError {
        let error = self.quic.closed().await;
        if self.local_close.get().is_some() && self.gone.get().is_none() {
            self.told().await;
        }
        self.error(error)
    }

    /// Waits until the peer has been told that this side has closed the connection: a process that ended before would
    /// leave it to the peer's keepalive to find out. quinn has no event for that, but after a close it sends nothing
    /// else, so that one datagram more is it.
    async fn told(&self) {
        for _ in 0..TOLD_CHECKS {
            let sent = self.quic.stats().udp_tx.datagrams;
            if self.sent_at_close.get().is_some_and(|&before| sent > before) {
                return;
            }
            sleep(TOLD_INTERVAL).await;
        }
    }

    /// Closes the connection unless it is over. quinn would let the last call win.
    pub(crate) fn close(&self, code: CloseCode, reason: impl Into<Text>) {
        let reason = reason.into();
        if self.quic.close_reason().is_none() && self.local_close.set((code, reason.clone())).is_ok() {
            tracing::debug!(remote = %self.quic.remote_address(), %code, %reason, "closing the connection");
            congestion::open(&self.quic);
            self.quic.close(quic_close_code(code), reason.as_str().as_bytes());
            let _ = self.sent_at_close.set(self.quic.stats().udp_tx.datagrams);
        }
    }

    /// Closes the connection, unless it is over, because the peer is gone. If it is not, for all the evidence, it may
    /// as well be told.
    pub(crate) fn give_up(&self, gone: Gone) {
        if self.local_close.get().is_none() && self.gone.set(gone).is_ok() {
            self.close(CloseCode::TIMEOUT, gone.to_string());
        }
    }

    /// Has quinn send something at once that the peer must acknowledge.
    pub(crate) fn probe(&self) {
        self.announce_credit();
    }

    /// Has quinn announce the connection's credit, however little has gathered: it does so at once when the window
    /// grows.
    pub(crate) fn announce_credit(&self) {
        let (window, _) = self.config.receive_window();
        self.quic.set_receive_window(var_int(window + 1));
        self.quic.set_receive_window(var_int(window));
    }

    /// How many UDP datagrams have come from the peer.
    pub(crate) fn datagrams_received(&self) -> u64 {
        self.quic.stats().udp_rx.datagrams
    }

    pub(crate) fn drain(&self, change: impl FnOnce(&mut Draining)) {
        self.draining.send_modify(change);
    }

    /// Counts a stream that was reset while somebody waited for its stop. quinn 0.11 keeps about 90 bytes of each
    /// until the connection ends, so a connection that has left many behind makes way for a new one.
    pub(crate) fn leave_remains(&self) {
        let resets = self.config.renew_after;
        if self.remains.fetch_add(1, Ordering::Relaxed) + 1 == resets {
            tracing::debug!(remote = %self.quic.remote_address(), resets, "draining the connection after many resets");
            self.drain(|draining| draining.local = true);
        }
    }

    pub(crate) fn draining(&self) -> Draining {
        *self.draining.borrow()
    }

    /// Waits until what is known of draining fulfils `condition`.
    pub(crate) async fn drained_so_that(&self, condition: impl FnMut(&Draining) -> bool) {
        // The sender is in `self`, so waiting cannot fail.
        let _ = self.draining.subscribe().wait_for(condition).await;
    }

    /// Why no stream can be opened while the connection is draining.
    pub(crate) fn draining_or_ended(&self) -> OpenError {
        self.ended().map_or(OpenError::Draining, OpenError::Connection)
    }

    /// Counts a stream as open, until the ticket is dropped.
    pub(crate) fn ticket(self: &Arc<Self>, permit: Option<OwnedSemaphorePermit>) -> Ticket {
        // Sequentially consistent, so that whoever opens a stream and whoever closes a drained connection cannot
        // both miss the other.
        self.counters.open.fetch_add(1, Ordering::SeqCst);
        Ticket {
            shared: Arc::clone(self),
            _permit: permit,
        }
    }

    /// Waits until no stream is open.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.counters.open.load(Ordering::SeqCst) == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// A stream that counts as open while either of its halves has not ended.
#[derive(Debug)]
pub(crate) struct Ticket {
    shared: Arc<Shared>,
    /// The stream's place under the limit, if the peer has opened it.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.shared.counters.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shared.idle.notify_waiters();
        }
    }
}
