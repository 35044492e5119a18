//! Faults in what streams share: credit, places, figures.

use std::{
    collections::HashMap,
    mem::forget,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};
use tunnel_core::{
    Admission, Admitted, Arrival, Connection, ConnectionStats, Duplex, HandshakeError, Incoming, OpenError, RecvError,
    RecvStream, Rejection, SendError, SendStream, StreamCode, StreamHead,
};
use tunnel_testkit::conformance::Setup;

use crate::{
    fault::Fault,
    halves::{FaultyRx, FaultyTx, RxFault, TxFault},
};

/// The window of the memory carrier.
const WINDOW: usize = 64 * 1024;

/// One window for the whole connection, which returns when the application reads.
#[derive(Debug, Default)]
pub(crate) struct SharedCredit(Arc<Mutex<Account>>);

#[derive(Debug, Default)]
struct Account {
    unread: usize,
    waiting: Vec<Waker>,
}

impl Fault for SharedCredit {
    fn stream(&self, Duplex { tx, rx }: Duplex) -> Duplex {
        Duplex {
            tx: FaultyTx::wrap(tx, Debit(Arc::clone(&self.0))),
            rx: FaultyRx::wrap(rx, Debit(Arc::clone(&self.0))),
        }
    }
}

#[derive(Debug)]
struct Debit(Arc<Mutex<Account>>);

impl TxFault for Debit {
    fn poll_send(
        &mut self,
        tx: &mut dyn SendStream,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, SendError>> {
        let mut account = self.0.lock().unwrap();
        if account.unread + data.len() > 8 * WINDOW {
            account.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        let sent = ready!(tx.poll_send(cx, data))?;
        account.unread += sent;
        Poll::Ready(Ok(sent))
    }
}

impl RxFault for Debit {
    fn poll_recv(
        &mut self,
        rx: &mut dyn RecvStream,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, RecvError>> {
        let received = ready!(rx.poll_recv(cx, max))?;
        let mut account = self.0.lock().unwrap();
        account.unread -= received.as_ref().map_or(0, Bytes::len);
        account.waiting.drain(..).for_each(Waker::wake);
        Poll::Ready(Ok(received))
    }
}

/// Who asks for room when there is none is never told of any.
#[derive(Debug)]
pub(crate) struct RoomWakesNobody;

impl Fault for RoomWakesNobody {
    fn stream(&self, Duplex { tx, rx }: Duplex) -> Duplex {
        let tx = FaultyTx::wrap(tx, Deaf { is_full: false });
        Duplex { tx, rx }
    }
}

#[derive(Debug)]
struct Deaf {
    is_full: bool,
}

impl TxFault for Deaf {
    fn poll_send(
        &mut self,
        tx: &mut dyn SendStream,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, SendError>> {
        let sent = tx.poll_send(cx, data);
        self.is_full = sent.is_pending();
        sent
    }

    fn poll_room(&mut self, tx: &mut dyn SendStream, cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        if self.is_full {
            return Poll::Pending;
        }
        tx.poll_room(cx)
    }
}

/// Room that was promised is kept for who has asked, until it is used.
#[derive(Debug, Default)]
pub(crate) struct RoomIsKept(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    promised: usize,
    waiting: Vec<Waker>,
}

impl Fault for RoomIsKept {
    fn stream(&self, Duplex { tx, rx }: Duplex) -> Duplex {
        let keeper = Keeper {
            kept: Arc::clone(&self.0),
            has_place: false,
        };
        let tx = FaultyTx::wrap(tx, keeper);
        Duplex { tx, rx }
    }
}

#[derive(Debug)]
struct Keeper {
    kept: Arc<Mutex<Kept>>,
    has_place: bool,
}

impl TxFault for Keeper {
    fn poll_send(
        &mut self,
        tx: &mut dyn SendStream,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, SendError>> {
        let mut kept = self.kept.lock().unwrap();
        if std::mem::take(&mut self.has_place) {
            kept.promised -= 1;
            kept.waiting.drain(..).for_each(Waker::wake);
        } else if kept.promised >= 8 {
            kept.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        tx.poll_send(cx, data)
    }

    fn poll_room(&mut self, tx: &mut dyn SendStream, cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        let room = ready!(tx.poll_room(cx))?;
        if !std::mem::replace(&mut self.has_place, true) {
            self.kept.lock().unwrap().promised += 1;
        }
        Poll::Ready(Ok(room))
    }
}

/// While a stream is stalled, every so many sends of the others are followed by a pause.
#[derive(Debug)]
pub(crate) struct StalledStreamsCost {
    stalled: Arc<Mutex<HashMap<u64, Instant>>>,
    next: AtomicU64,
    /// Sends of up to this many bytes are slowed.
    largest: usize,
    every: usize,
    delay: Duration,
}

impl StalledStreamsCost {
    /// A quarter more time: on the slow wire four sends are a window and take a millisecond, for which the sender
    /// waits anyway.
    pub(crate) fn throughput() -> Self {
        Self::new(usize::MAX, 16, Duration::from_millis(2))
    }

    /// A few milliseconds for small messages.
    pub(crate) fn latency() -> Self {
        Self::new(64, 1, Duration::from_millis(4))
    }

    fn new(largest: usize, every: usize, delay: Duration) -> Self {
        Self {
            stalled: Arc::default(),
            next: AtomicU64::new(0),
            largest,
            every,
            delay,
        }
    }
}

impl Fault for StalledStreamsCost {
    fn stream(&self, Duplex { tx, rx }: Duplex) -> Duplex {
        let fault = Slowed {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            stalled: Arc::clone(&self.stalled),
            largest: self.largest,
            every: self.every,
            delay: self.delay,
            sends: 0,
            pause: None,
        };
        let tx = FaultyTx::wrap(tx, fault);
        Duplex { tx, rx }
    }
}

#[derive(Debug)]
struct Slowed {
    id: u64,
    stalled: Arc<Mutex<HashMap<u64, Instant>>>,
    largest: usize,
    every: usize,
    delay: Duration,
    sends: usize,
    pause: Option<Pin<Box<Sleep>>>,
}

impl TxFault for Slowed {
    fn poll_send(
        &mut self,
        tx: &mut dyn SendStream,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, SendError>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let is_slowed = data.len() <= self.largest;
        let sent = tx.poll_send(cx, data);
        let mut stalled = self.stalled.lock().unwrap();
        if sent.is_pending() {
            stalled.entry(self.id).or_insert_with(Instant::now);
            return sent;
        }
        stalled.remove(&self.id);
        let stalls = stalled
            .values()
            .any(|since| since.elapsed() > Duration::from_millis(100));
        self.sends += 1;
        if stalls && is_slowed && self.sends.is_multiple_of(self.every) {
            self.pause = Some(Box::pin(sleep(self.delay)));
        }
        sent
    }

    fn poll_flush(&mut self, tx: &mut dyn SendStream, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        tx.poll_flush(cx)
    }
}

/// Announces one limit and allows another.
#[derive(Debug)]
pub(crate) struct NoStreamLimit;

#[async_trait]
impl Fault for NoStreamLimit {
    fn setup(&self, mut setup: Setup) -> Setup {
        setup.max_streams = 1024;
        setup
    }

    async fn handshake(
        &self,
        incoming: Box<dyn Incoming>,
        admission: &dyn Admission,
    ) -> Result<Arc<dyn Connection>, HandshakeError> {
        incoming.handshake(&Generous(admission)).await
    }
}

#[derive(Debug)]
struct Generous<'a>(&'a dyn Admission);

#[async_trait]
impl Admission for Generous<'_> {
    async fn admit(&self, arrival: &Arrival) -> Result<Admitted, Rejection> {
        let mut admitted = self.0.admit(arrival).await?;
        admitted.welcome.limits.max_streams = 1024;
        Ok(admitted)
    }
}

/// Has those who wait for a place on a stack.
#[derive(Debug, Default)]
pub(crate) struct LastComeFirstServed(Mutex<Vec<u64>>);

#[async_trait]
impl Fault for LastComeFirstServed {
    async fn open(
        &self,
        connection: &Arc<dyn Connection>,
        head: StreamHead,
        early: &mut Bytes,
    ) -> Result<Duplex, OpenError> {
        let ticket = {
            let mut stack = self.0.lock().unwrap();
            let ticket = stack.last().map_or(0, |last| last + 1);
            stack.push(ticket);
            ticket
        };
        loop {
            let is_last = self.0.lock().unwrap().last() == Some(&ticket);
            // The limit of the law.
            if is_last && connection.stats().streams_open < 4 {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        let opened = connection.open_with(head, early).await;
        self.0.lock().unwrap().retain(|waiting| *waiting != ticket);
        opened
    }
}

/// Small messages go when nothing else has gone for a while.
#[derive(Debug, Default)]
pub(crate) struct SmallStreamsStarve(Arc<AtomicUsize>);

impl Fault for SmallStreamsStarve {
    fn stream(&self, Duplex { tx, rx }: Duplex) -> Duplex {
        let fault = Starving {
            large: Arc::clone(&self.0),
            seen: usize::MAX,
            pause: Box::pin(sleep(Duration::ZERO)),
        };
        let tx = FaultyTx::wrap(tx, fault);
        Duplex { tx, rx }
    }
}

#[derive(Debug)]
struct Starving {
    large: Arc<AtomicUsize>,
    seen: usize,
    pause: Pin<Box<Sleep>>,
}

impl TxFault for Starving {
    fn poll_send(
        &mut self,
        tx: &mut dyn SendStream,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, SendError>> {
        if data.len() > 64 {
            self.large.fetch_add(1, Ordering::Relaxed);
            return tx.poll_send(cx, data);
        }
        while self.seen != self.large.load(Ordering::Relaxed) {
            ready!(self.pause.as_mut().poll(cx));
            self.seen = self.large.load(Ordering::Relaxed);
            self.pause = Box::pin(sleep(Duration::from_millis(10)));
            ready!(self.pause.as_mut().poll(cx));
        }
        tx.poll_send(cx, data)
    }
}

#[derive(Debug)]
pub(crate) struct MiscountsBytes;

impl Fault for MiscountsBytes {
    fn stats(&self, connection: &dyn Connection) -> ConnectionStats {
        let mut stats = connection.stats();
        stats.bytes_received = stats.bytes_received.saturating_sub(1);
        stats
    }
}

#[derive(Debug)]
pub(crate) struct MiscountsStreams;

impl Fault for MiscountsStreams {
    fn stats(&self, connection: &dyn Connection) -> ConnectionStats {
        let mut stats = connection.stats();
        (stats.streams_opened, stats.streams_accepted) = (stats.streams_accepted, stats.streams_opened);
        stats
    }
}

/// Three stopped streams stay open for ever.
#[derive(Debug, Default)]
pub(crate) struct AbortedKeepPlace(Arc<AtomicUsize>);

impl Fault for AbortedKeepPlace {
    fn stream(&self, Duplex { tx, rx }: Duplex) -> Duplex {
        let fault = Leak {
            leaked: Arc::clone(&self.0),
            leaks: false,
        };
        let rx = FaultyRx::wrap(rx, fault);
        Duplex { tx, rx }
    }
}

#[derive(Debug)]
struct Leak {
    leaked: Arc<AtomicUsize>,
    leaks: bool,
}

impl RxFault for Leak {
    fn stop(&mut self, rx: &mut dyn RecvStream, code: StreamCode) {
        self.leaks = self.leaked.fetch_add(1, Ordering::Relaxed) < 3;
        if !self.leaks {
            rx.stop(code);
        }
    }

    fn drop(&mut self, rx: Box<dyn RecvStream>) {
        if self.leaks {
            forget(rx);
        }
    }
}

/// Counts the streams that were reset, or what else takes a byte.
#[derive(Debug)]
struct CountsResets {
    resets: Arc<AtomicUsize>,
    sent: usize,
    /// Whether a window has lost bytes after many resets.
    shrinks: bool,
}

impl TxFault for CountsResets {
    fn poll_send(
        &mut self,
        tx: &mut dyn SendStream,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, SendError>> {
        let lost = if self.shrinks {
            self.resets.load(Ordering::Relaxed)
        } else {
            0
        };
        if lost > 0 && self.sent + lost >= WINDOW {
            return Poll::Pending;
        }
        let sent = ready!(tx.poll_send(cx, data))?;
        self.sent += sent;
        Poll::Ready(Ok(sent))
    }

    fn reset(&mut self, tx: &mut dyn SendStream, code: StreamCode) {
        self.resets.fetch_add(1, Ordering::Relaxed);
        tx.reset(code);
    }
}

/// The connection's credit does not come back from streams that were reset.
#[derive(Debug, Default)]
pub(crate) struct AbortedKeepCredit(Arc<AtomicUsize>);

impl Fault for AbortedKeepCredit {
    fn stream(&self, Duplex { tx, rx }: Duplex) -> Duplex {
        let fault = CountsResets {
            resets: Arc::clone(&self.0),
            sent: 0,
            shrinks: false,
        };
        let tx = FaultyTx::wrap(tx, fault);
        Duplex { tx, rx }
    }

    fn stats(&self, connection: &dyn Connection) -> ConnectionStats {
        let mut stats = connection.stats();
        let lost = self.0.load(Ordering::Relaxed) as u64;
        stats.credit_outstanding = stats.credit_outstanding.map(|credit| credit.saturating_sub(lost));
        stats
    }
}

/// Each stream that was reset takes a byte from the window of those that follow.
#[derive(Debug, Default)]
pub(crate) struct AbortedShrinkWindows(Arc<AtomicUsize>);

impl Fault for AbortedShrinkWindows {
    fn stream(&self, Duplex { tx, rx }: Duplex) -> Duplex {
        let fault = CountsResets {
            resets: Arc::clone(&self.0),
            sent: 0,
            shrinks: true,
        };
        let tx = FaultyTx::wrap(tx, fault);
        Duplex { tx, rx }
    }
}

/// The bytes of an open that was refused are taken from the windows of the streams that follow.
#[derive(Debug, Default)]
pub(crate) struct RefusedShrinkWindows(Arc<AtomicUsize>);

#[async_trait]
impl Fault for RefusedShrinkWindows {
    async fn open(
        &self,
        connection: &Arc<dyn Connection>,
        head: StreamHead,
        early: &mut Bytes,
    ) -> Result<Duplex, OpenError> {
        let offered = early.len();
        let opened = connection.open_with(head, early).await;
        if let Err(OpenError::Refused(_)) = &opened {
            self.0.fetch_add(offered - early.len(), Ordering::Relaxed);
        }
        opened
    }

    fn stream(&self, Duplex { tx, rx }: Duplex) -> Duplex {
        let fault = CountsResets {
            resets: Arc::clone(&self.0),
            sent: 0,
            shrinks: true,
        };
        let tx = FaultyTx::wrap(tx, fault);
        Duplex { tx, rx }
    }
}
