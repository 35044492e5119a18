//! One stream, as its halves and the driver see it.
//!
//! The halves never touch HTTP/2: they move bytes to and from two queues here, say how the stream is to end, and have
//! the driver look. So whatever HTTP/2 knows is in one task, in one order, and nobody waits for its lock.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Wake, Waker},
};

use bytes::Bytes;
use tokio::time::Instant;
use tunnel_core::{Refusal, StreamCode, StreamHead, proto::mux::Queue};

use super::hub::{Hub, Ticket};

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) hub: Arc<Hub>,
    state: Mutex<State>,
    /// Whether the driver is to look at it already.
    posted: AtomicBool,
    /// Its number on the wire, once it has one.
    key: AtomicU64,
}

/// What is known of a stream.
#[derive(Debug)]
pub(crate) struct State {
    /// What the driver is to do about the opening.
    pub(crate) plan: Plan,
    /// What came of an opening.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) tx: Tx,
    pub(crate) rx: Rx,
    /// Bytes that wait to be sent.
    pub(crate) outbox: Queue,
    /// Bytes that wait to be read.
    pub(crate) inbox: Queue,
    /// How many were read and not yet returned as credit.
    pub(crate) taken: usize,
    /// When the reader last took bytes, or the first of those came that wait.
    pub(crate) touched: Instant,
    /// The stream's window, for the reader to know how much is worth returning.
    pub(crate) window: usize,
    pub(crate) wakers: Wakers,
    /// While either half has not ended.
    pub(crate) ticket: Option<Ticket>,
}

/// What the driver is to do about the opening.
#[derive(Debug)]
pub(crate) enum Plan {
    Nothing,
    Open(Box<StreamHead>),
    Accept,
    Refuse(Refusal),
}

/// What came of an opening.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Accepted,
    Refused(Refusal),
    Ended(StreamCode),
    /// Not sent, because the connection was draining.
    Draining,
}

/// The half that this end sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tx {
    Open,
    /// By this end; what is queued still goes out.
    Finished,
    /// By this end.
    Reset(StreamCode),
    /// By the peer.
    Stopped(StreamCode),
}

/// The half that this end receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rx {
    Open,
    /// The clean end is behind what is queued.
    Ended,
    /// By the peer.
    Reset(StreamCode),
    /// By this end.
    Stopped(StreamCode),
}

/// Who waits for what.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    pub(crate) outcome: Option<Waker>,
    pub(crate) send: Option<Waker>,
    pub(crate) stopped: Option<Waker>,
    pub(crate) recv: Option<Waker>,
}

const NO_KEY: u64 = u64::MAX;

impl Stream {
    pub(crate) fn new(hub: &Arc<Hub>, ticket: Ticket, plan: Plan) -> Arc<Self> {
        Arc::new(Self {
            hub: Arc::clone(hub),
            state: Mutex::new(State {
                plan,
                outcome: None,
                tx: Tx::Open,
                rx: Rx::Open,
                outbox: Queue::default(),
                inbox: Queue::default(),
                taken: 0,
                touched: Instant::now(),
                window: 0,
                wakers: Wakers::default(),
                ticket: Some(ticket),
            }),
            posted: AtomicBool::new(false),
            key: AtomicU64::new(NO_KEY),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the driver look at it.
    pub(crate) fn post(self: &Arc<Self>) {
        if !self.posted.swap(true, Ordering::AcqRel) {
            self.hub.post(Arc::clone(self));
        }
    }

    /// The driver looks at it.
    pub(crate) fn visited(&self) {
        self.posted.store(false, Ordering::Release);
    }

    pub(crate) fn key(&self) -> Option<u64> {
        Some(self.key.load(Ordering::Acquire)).filter(|key| *key != NO_KEY)
    }

    pub(crate) fn set_key(&self, key: u64) {
        self.key.store(key, Ordering::Release);
    }

    /// Wakes everybody, because the connection has ended.
    pub(crate) fn wake_all(&self) {
        let wakers = mem::take(&mut self.lock().wakers);
        for waker in [wakers.outcome, wakers.send, wakers.stopped, wakers.recv]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }
}

/// HTTP/2 has something to tell about the stream.
impl Wake for Stream {
    fn wake(self: Arc<Self>) {
        self.post();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.post();
    }
}

impl State {
    pub(crate) fn resolve(&mut self, outcome: Outcome) {
        if self.outcome.is_none() {
            self.outcome = Some(outcome);
            wake(&mut self.wakers.outcome);
        }
    }

    /// Puts bytes where the reader finds them; those of a half that has ended are dropped. Says how many were kept.
    pub(crate) fn receive(&mut self, bytes: Bytes) -> usize {
        if self.rx != Rx::Open || bytes.is_empty() {
            return 0;
        }
        if self.inbox.is_empty() {
            self.touched = Instant::now();
        }
        let count = bytes.len();
        self.inbox.push(bytes);
        wake(&mut self.wakers.recv);
        count
    }

    /// The half that this end receives has ended. Gives how many unread bytes were dropped.
    pub(crate) fn end_rx(&mut self, end: Rx) -> usize {
        if self.rx != Rx::Open {
            return 0;
        }
        self.rx = end;
        let dropped = if end == Rx::Ended { 0 } else { self.inbox.clear() };
        wake(&mut self.wakers.recv);
        self.settle();
        dropped
    }

    /// The stream is given up for the memory that it holds, though its end may have come. Gives how much that was.
    pub(crate) fn take_back(&mut self) -> usize {
        if !matches!(self.rx, Rx::Open | Rx::Ended) {
            return 0;
        }
        self.rx = Rx::Stopped(StreamCode::MEMORY);
        wake(&mut self.wakers.recv);
        self.settle();
        self.inbox.clear()
    }

    /// The half that this end sends has ended; what was queued is dropped unless the end is clean.
    pub(crate) fn end_tx(&mut self, end: Tx) {
        let over = match self.tx {
            Tx::Open => false,
            // Nothing can be taken back that is on its way, but the rest need not follow.
            Tx::Finished => self.outbox.is_empty() || end == Tx::Finished,
            Tx::Reset(_) | Tx::Stopped(_) => true,
        };
        if over {
            return;
        }
        self.tx = end;
        if end != Tx::Finished {
            self.outbox.clear();
        }
        wake(&mut self.wakers.send);
        wake(&mut self.wakers.stopped);
        self.settle();
    }

    /// The stream counts no longer as open when both halves have ended and everything was read.
    pub(crate) fn settle(&mut self) {
        let rx_over = match self.rx {
            Rx::Open => false,
            Rx::Ended => self.inbox.is_empty(),
            Rx::Reset(_) | Rx::Stopped(_) => true,
        };
        if rx_over && self.tx != Tx::Open {
            self.ticket = None;
        }
    }
}

pub(crate) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
