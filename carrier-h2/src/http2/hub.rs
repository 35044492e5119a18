//! What the halves, the handle and the driver of one connection share.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tunnel_core::{CloseCode, ConnectionError, OpenError, Text, proto::mux::Account};

use super::{arrivals::Arrivals, stream::Stream};

/// What the halves, the handle and the driver of one connection share.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) account: Arc<Account>,
    pub(crate) counters: Counters,
    /// Places for streams that this end opens.
    pub(crate) places: Arc<Semaphore>,
    /// Places of streams that are over, until the peer has been sent what says so.
    leaving: Mutex<Vec<OwnedSemaphorePermit>>,
    pub(crate) arrivals: Arrivals,
    /// The most bytes of a stream that wait for their turn.
    pub(crate) send_queue: usize,
    mail: Mutex<Mail>,
    draining: watch::Sender<Draining>,
    /// Why the connection ends, from the moment on in which that is clear.
    ending: OnceLock<ConnectionError>,
    /// Whether the driver has ended.
    over: watch::Sender<bool>,
}

/// What waits for the driver.
#[derive(Debug, Default)]
struct Mail {
    /// Streams to be looked at.
    ready: Vec<Arc<Stream>>,
    /// What to tell the peer before the end.
    close: Option<(CloseCode, Text)>,
    /// Whether the driver is to look at what stands elsewhere.
    is_roused: bool,
    /// Whether HTTP/2 is to be polled.
    is_due: bool,
    /// Wakes the driver, while it sleeps.
    waker: Option<Waker>,
    /// Whether the driver has ended, so that nobody takes anything out any more.
    is_over: bool,
}

/// Who has begun to drain the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Draining {
    pub(crate) local: bool,
    pub(crate) remote: bool,
}

impl Draining {
    pub(crate) fn any(self) -> bool {
        self.local || self.remote
    }
}

/// Figures of a connection.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) open: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) accepted: AtomicU64,
    /// In nanoseconds; zero while it is not known.
    pub(crate) round_trip: AtomicU64,
}

impl Hub {
    pub(crate) fn new(account: Arc<Account>, send_queue: usize, places: usize, max_streams: u32) -> Arc<Self> {
        Arc::new(Self {
            account,
            counters: Counters::default(),
            places: Arc::new(Semaphore::new(places)),
            leaving: Mutex::default(),
            arrivals: Arrivals::new(max_streams),
            send_queue,
            mail: Mutex::default(),
            draining: watch::Sender::default(),
            ending: OnceLock::new(),
            over: watch::Sender::new(false),
        })
    }

    /// Has the driver look at a stream.
    pub(crate) fn post(&self, stream: Arc<Stream>) {
        // One that is not taken is dropped when the lock is free again.
        let mut stream = Some(stream);
        self.change(|mail| {
            if !mail.is_over {
                mail.ready.extend(stream.take());
            }
        });
    }

    /// The streams to be looked at.
    pub(crate) fn take_ready(&self) -> Vec<Arc<Stream>> {
        mem::take(&mut self.mail().ready)
    }

    pub(crate) fn take_close(&self) -> Option<(CloseCode, Text)> {
        self.mail().close.take()
    }

    /// The driver is awake. What comes for it from now on need not wake it, as it looks before it sleeps.
    pub(crate) fn wakes(&self) {
        self.mail().waker = None;
    }

    /// Whether HTTP/2 is to be polled: the socket has become ready, or there is something to send.
    pub(crate) fn take_due(&self) -> bool {
        mem::take(&mut self.mail().is_due)
    }

    /// Whether the driver may sleep; if so, `waker` is woken when there is something to do.
    pub(crate) fn sleeps(&self, waker: &Waker) -> bool {
        let mut mail = self.mail();
        let is_roused = mem::take(&mut mail.is_roused);
        let idle = mail.ready.is_empty() && mail.close.is_none() && !is_roused && !mail.is_due;
        mail.waker = idle.then(|| waker.clone());
        idle
    }

    /// Has the driver have another turn, also if it has begun one.
    pub(crate) fn rouse(&self) {
        self.change(|mail| mail.is_roused = true);
    }

    /// Leaves something for the driver, and wakes it.
    fn change(&self, change: impl FnOnce(&mut Mail)) {
        let mut mail = self.mail();
        change(&mut mail);
        let waker = mail.waker.take();
        drop(mail);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        // Nothing panics while it is held.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the connection, unless it has ended, and tells the peer.
    pub(crate) fn close(&self, code: CloseCode, text: impl Into<Text>) {
        let text = text.into();
        if self.end(ConnectionError::local(code, text.clone())) {
            tracing::debug!(%code, reason = %text, "closing the connection");
            self.change(|mail| mail.close = Some((code, text)));
        }
    }

    /// Notes why the connection ends, unless that was clear before. Says whether it is what counts.
    pub(crate) fn end(&self, error: ConnectionError) -> bool {
        let first = self.ending.set(error).is_ok();
        if first {
            // Whoever waits for a place, a stream or the drain looks again.
            self.draining.send_modify(|_| ());
            self.places.close();
            self.arrivals.close();
        }
        first
    }

    /// Why the connection has ended, if it has.
    pub(crate) fn ended(&self) -> Option<ConnectionError> {
        self.ending.get().cloned()
    }

    /// The driver has ended, and the peer knows, if it can. Gives the streams that waited to be looked at.
    pub(crate) fn finish(&self) -> Vec<Arc<Stream>> {
        let mut mail = self.mail();
        mail.is_over = true;
        let ready = mem::take(&mut mail.ready);
        drop(mail);
        self.over.send_replace(true);
        ready
    }

    pub(crate) async fn closed(&self) -> ConnectionError {
        // The sender is in `self`, so waiting cannot fail.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
        self.ended()
            .unwrap_or_else(|| ConnectionError::local(CloseCode::INTERNAL, "the driver ended"))
    }

    pub(crate) fn drain(&self, change: impl FnOnce(&mut Draining)) {
        self.draining.send_modify(change);
        self.rouse();
    }

    pub(crate) fn draining(&self) -> Draining {
        *self.draining.borrow()
    }

    /// Waits until the connection is draining or has ended.
    pub(crate) async fn drained_or_ended(&self) {
        let condition = |draining: &Draining| draining.any() || self.ending.get().is_some();
        let _ = self.draining.subscribe().wait_for(condition).await;
    }

    /// Why no stream can be opened.
    pub(crate) fn draining_or_ended(&self) -> OpenError {
        self.ended().map_or(OpenError::Draining, OpenError::Connection)
    }

    /// Counts a stream as open, until the ticket is dropped.
    pub(crate) fn ticket(self: &Arc<Self>, place: Option<OwnedSemaphorePermit>) -> Ticket {
        self.counters.open.fetch_add(1, Ordering::SeqCst);
        Ticket {
            hub: Arc::clone(self),
            place,
        }
    }

    /// Everything was sent: the places of streams that are over are free.
    pub(crate) fn free_places(&self) {
        let leaving = mem::take(&mut *self.leaving());
        drop(leaving);
    }

    fn leaving(&self) -> MutexGuard<'_, Vec<OwnedSemaphorePermit>> {
        // Nothing panics while it is held.
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many streams are open.
    pub(crate) fn open(&self) -> u64 {
        self.counters.open.load(Ordering::SeqCst)
    }
}

/// What HTTP/2 and the socket below it wake: it is polled then, and not whenever the driver does something else.
impl Wake for Hub {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.change(|mail| mail.is_due = true);
    }
}

/// The place of a stream that this end has opened. When it is dropped, it is free for another as soon as everything was
/// sent that was to be sent before: h2 sends a request ahead of resets that wait.
#[derive(Debug)]
pub(crate) struct Place {
    hub: Arc<Hub>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    pub(crate) fn new(hub: &Arc<Hub>, permit: OwnedSemaphorePermit) -> Self {
        Self {
            hub: Arc::clone(hub),
            permit: Some(permit),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hub.leaving().extend(self.permit.take());
    }
}

/// A stream that counts as open while either of its halves has not ended.
#[derive(Debug)]
pub(crate) struct Ticket {
    hub: Arc<Hub>,
    /// Its place under the limit: this end's for streams that it opens, the peer's once this end has seen it.
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.hub.counters.open.fetch_sub(1, Ordering::SeqCst) == 1 && self.hub.draining().any() {
            self.hub.rouse();
        }
    }
}

/// A round trip for the figures.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tunnel_core::proto::mux::Budget;

    use super::*;
    use crate::http2::stream::Plan;

    fn hub() -> Arc<Hub> {
        Hub::new(Arc::new(Budget::default().account()), 1024, 0, 10)
    }

    #[test]
    fn a_driver_that_has_looked_already_looks_again_before_it_sleeps() {
        let hub = hub();
        assert!(hub.sleeps(Waker::noop()));
        // It has been woken by something else, has looked for a drain, and then there is one.
        hub.drain(|draining| draining.local = true);
        assert!(!hub.sleeps(Waker::noop()));
        assert!(hub.sleeps(Waker::noop()), "once is enough");

        let ticket = hub.ticket(None);
        assert!(hub.sleeps(Waker::noop()));
        drop(ticket);
        assert!(!hub.sleeps(Waker::noop()), "the last stream was waited for");
    }

    /// Counts how often the driver is woken.
    #[derive(Default)]
    struct Woken(AtomicU64);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_the_driver_does_itself_does_not_wake_it() {
        let hub = hub();
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        assert!(hub.sleeps(&waker));
        Arc::clone(&hub).wake();
        Arc::clone(&hub).wake();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "it is awake");
        assert!(hub.take_due() && !hub.take_due());

        // The next time it is woken by its timer, and has something to send.
        assert!(hub.sleeps(&waker));
        hub.wakes();
        Arc::clone(&hub).wake();
        hub.post(Stream::new(&hub, hub.ticket(None), Plan::Nothing));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(!hub.sleeps(&waker), "there is something to do");
        assert_eq!(hub.take_ready().len(), 1);
        assert!(!hub.sleeps(&waker), "for HTTP/2, too");
        assert!(hub.take_due() && hub.sleeps(&waker));
    }
}
