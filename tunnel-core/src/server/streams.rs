//! The streams that are open: what they count, and how a change of policy ends them.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tunnel_proto::{Refusal, StreamCode, StreamHead, Target};

use super::{
    Inner,
    metrics::{RefusalLabels, StreamEndLabels},
};
use crate::{
    carrier::Inbound,
    error::{OpenError, RecvError, SendError},
    metrics::CountedStream,
    opener::Client,
    policy::{Access, Policy},
    registry::{InFlight, LiveConnection, Profile},
    stream::{Duplex, RecvStream, SendStream},
};

/// Every open stream of a server.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: Mutex<HashMap<u64, Arc<Control>>>,
    next: AtomicU64,
}

impl Streams {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Control>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.open().len()
    }

    /// Resets the streams that a policy does not allow, and gives their number.
    pub(super) fn recheck(&self, policy: &Policy) -> usize {
        self.reset_if(StreamCode::POLICY, |wish| {
            wish.is_some_and(|wish| !wish.is_allowed(policy))
        })
    }

    /// Resets all that are open, and gives their number.
    pub(super) fn reset_all(&self, code: StreamCode) -> usize {
        self.reset_if(code, |_| true)
    }

    fn reset_if(&self, code: StreamCode, wanted: impl Fn(Option<&Wish>) -> bool) -> usize {
        // Resetting calls into a carrier; the table must not be locked then.
        let streams: Vec<_> = self.open().values().cloned().collect();
        let reset = streams.iter().filter(|control| wanted(control.wish.as_ref()));
        reset.map(|control| control.reset(code)).filter(|&reset| reset).count()
    }
}

/// What a client wanted, kept so that another policy can be asked about it.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) client: Client,
    pub(super) target: Target,
    pub(super) selects: bool,
    pub(super) agent: Arc<Profile>,
}

impl Wish {
    pub(super) fn is_allowed(&self, policy: &Policy) -> bool {
        let access = Access {
            client: &self.client.identity,
            target: &self.target,
            selects: self.selects,
        };
        policy.check(&access, self.agent.agent(), self.agent.labels()).is_ok()
    }
}

/// A stream's halves, where both their user and the server can reach them.
struct Control {
    /// `None` for streams that no policy is asked about.
    wish: Option<Wish>,
    tx: Mutex<Option<Box<dyn SendStream>>>,
    rx: Mutex<Option<Box<dyn RecvStream>>>,
    /// With what the server has reset the stream.
    reset: OnceLock<StreamCode>,
    /// Who waits for what; see the indices below.
    wakers: Mutex<[Option<Waker>; 3]>,
}

const SENDING: usize = 0;
const STOPPED: usize = 1;
const RECEIVING: usize = 2;

impl Control {
    /// Ends both halves, whether or not anybody polls them, and wakes who does. False if the server did so before.
    fn reset(&self, code: StreamCode) -> bool {
        if self.reset.set(code).is_err() {
            return false;
        }
        if let Some(tx) = lock(&self.tx).as_mut() {
            tx.reset(code);
        }
        if let Some(rx) = lock(&self.rx).as_mut() {
            rx.stop(code);
        }
        let wakers = std::mem::take(&mut *lock(&self.wakers));
        wakers.into_iter().flatten().for_each(Waker::wake);
        true
    }

    /// Passes on what a half says, unless the server has reset the stream or does so meanwhile.
    fn unless_reset<T, E>(
        &self,
        waiting: usize,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<Result<T, E>>,
        error: impl FnOnce(StreamCode) -> E,
    ) -> Poll<Result<T, E>> {
        if self.reset.get().is_none() {
            let polled = poll(cx);
            if polled.is_ready() {
                return polled;
            }
            let mut wakers = lock(&self.wakers);
            match &mut wakers[waiting] {
                Some(waker) => waker.clone_from(cx.waker()),
                empty => *empty = Some(cx.waker().clone()),
            }
        }
        // Asked once more: the reset may have come before there was a waker to call.
        match self.reset.get() {
            Some(code) => Poll::Ready(Err(error(*code))),
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("wish", &self.wish)
            .field("reset", &self.reset)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a stream as open until both its halves are dropped.
#[derive(Debug)]
pub(super) struct Tracked {
    server: Arc<Inner>,
    control: Arc<Control>,
    key: u64,
    opener: &'static str,
    counted: CountedStream,
    /// Both ends have ended cleanly, each its half.
    finished: AtomicBool,
    ended: AtomicBool,
    /// The connection has ended under the stream.
    cut: AtomicBool,
    _in_flight: InFlight,
    _running: TaskTrackerToken,
}

impl Tracked {
    /// Wraps a stream that was opened for a client, or for the program itself, and that `sent` bytes were sent with.
    pub(super) fn opened(
        server: &Arc<Inner>,
        stream: Duplex,
        sent: usize,
        wish: Option<Wish>,
        in_flight: InFlight,
    ) -> Duplex {
        Self::wrap(server, "server", stream, sent, wish, in_flight)
    }

    /// Wraps a stream that an agent wants to open.
    pub(super) fn inbound(
        server: &Arc<Inner>,
        live: &Arc<LiveConnection>,
        inbound: Box<dyn Inbound>,
    ) -> Box<dyn Inbound> {
        Box::new(TrackedInbound {
            inbound,
            server: Arc::clone(server),
            in_flight: live.enter(),
        })
    }

    fn wrap(
        server: &Arc<Inner>,
        opener: &'static str,
        stream: Duplex,
        sent: usize,
        wish: Option<Wish>,
        in_flight: InFlight,
    ) -> Duplex {
        let counted = server.metrics.traffic.stream(opener);
        counted.sent.inc_by(sent as u64);
        let control = Arc::new(Control {
            wish,
            tx: Mutex::new(Some(stream.tx)),
            rx: Mutex::new(Some(stream.rx)),
            reset: OnceLock::new(),
            wakers: Mutex::default(),
        });
        let key = server.streams.next.fetch_add(1, Ordering::Relaxed);
        server.streams.open().insert(key, Arc::clone(&control));
        let tracked = Arc::new(Self {
            server: Arc::clone(server),
            control,
            key,
            opener,
            counted,
            finished: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            _in_flight: in_flight,
            _running: server.running.token(),
        });
        Duplex {
            tx: Box::new(TrackedSend(Arc::clone(&tracked))),
            rx: Box::new(TrackedRecv(tracked)),
        }
    }

    /// What became of the stream, for metrics.
    fn end(&self) -> &'static str {
        let is_set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        match self.control.reset.get() {
            Some(code) => code.label(),
            None if is_set(&self.finished) && is_set(&self.ended) => "complete",
            None if is_set(&self.cut) => "connection",
            None => "reset",
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.server.streams.open().remove(&self.key);
        let labels = StreamEndLabels {
            opener: self.opener,
            end: self.end(),
        };
        self.server.metrics.streams_ended.get_or_create(&labels).inc();
    }
}

#[derive(Debug)]
struct TrackedSend(Arc<Tracked>);

impl TrackedSend {
    fn poll<T>(
        &self,
        waiting: usize,
        cx: &mut Context<'_>,
        call: impl FnOnce(&mut dyn SendStream, &mut Context<'_>) -> Poll<Result<T, SendError>>,
    ) -> Poll<Result<T, SendError>> {
        let control = &self.0.control;
        let poll = |cx: &mut Context<'_>| match lock(&control.tx).as_mut() {
            Some(tx) => call(&mut **tx, cx),
            None => Poll::Ready(Err(SendError::Finished)),
        };
        let polled = control.unless_reset(waiting, cx, poll, SendError::Reset);
        if let Poll::Ready(Err(SendError::Connection(_))) = polled {
            self.0.cut.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl SendStream for TrackedSend {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize, SendError>> {
        let polled = self.poll(SENDING, cx, |tx, cx| tx.poll_send(cx, data));
        if let Poll::Ready(Ok(sent)) = polled {
            self.0.counted.sent.inc_by(sent as u64);
        }
        polled
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        self.poll(SENDING, cx, |tx, cx| tx.poll_room(cx))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.poll(SENDING, cx, |tx, cx| tx.poll_flush(cx))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let polled = self.poll(SENDING, cx, |tx, cx| tx.poll_finish(cx));
        if let Poll::Ready(Ok(())) = polled {
            self.0.finished.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Result<StreamCode, SendError>> {
        self.poll(STOPPED, cx, |tx, cx| tx.poll_stopped(cx))
    }

    fn reset(&mut self, code: StreamCode) {
        if let Some(tx) = lock(&self.0.control.tx).as_mut() {
            tx.reset(code);
        }
    }
}

impl Drop for TrackedSend {
    fn drop(&mut self) {
        let tx = lock(&self.0.control.tx).take();
        drop(tx);
    }
}

#[derive(Debug)]
struct TrackedRecv(Arc<Tracked>);

impl RecvStream for TrackedRecv {
    fn poll_recv(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, RecvError>> {
        let control = &self.0.control;
        let poll = |cx: &mut Context<'_>| match lock(&control.rx).as_mut() {
            Some(rx) => rx.poll_recv(cx, max),
            None => Poll::Ready(Err(RecvError::Stopped(StreamCode::CANCELLED))),
        };
        let polled = control.unless_reset(RECEIVING, cx, poll, RecvError::Stopped);
        match &polled {
            Poll::Ready(Ok(Some(bytes))) => {
                self.0.counted.received.inc_by(bytes.len() as u64);
            }
            Poll::Ready(Ok(None)) => self.0.ended.store(true, Ordering::Relaxed),
            Poll::Ready(Err(RecvError::Connection(_))) => self.0.cut.store(true, Ordering::Relaxed),
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
        polled
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<RecvError> {
        let control = &self.0.control;
        let poll = |cx: &mut Context<'_>| match lock(&control.rx).as_mut() {
            Some(rx) => rx.poll_reset(cx).map(Err),
            None => Poll::Ready(Err(RecvError::Stopped(StreamCode::CANCELLED))),
        };
        let polled: Poll<Result<Infallible, _>> = control.unless_reset(RECEIVING, cx, poll, RecvError::Stopped);
        polled.map(|Err(error)| error)
    }

    fn stop(&mut self, code: StreamCode) {
        if let Some(rx) = lock(&self.0.control.rx).as_mut() {
            rx.stop(code);
        }
    }
}

impl Drop for TrackedRecv {
    fn drop(&mut self) {
        let rx = lock(&self.0.control.rx).take();
        drop(rx);
    }
}

/// A stream that an agent wants to open, counted if it is accepted.
#[derive(Debug)]
struct TrackedInbound {
    inbound: Box<dyn Inbound>,
    server: Arc<Inner>,
    in_flight: InFlight,
}

#[async_trait]
impl Inbound for TrackedInbound {
    fn head(&self) -> &StreamHead {
        self.inbound.head()
    }

    async fn cancelled(&mut self) {
        self.inbound.cancelled().await;
    }

    async fn accept(self: Box<Self>) -> Result<Duplex, OpenError> {
        let stream = self.inbound.accept().await?;
        Ok(Tracked::wrap(&self.server, "agent", stream, 0, None, self.in_flight))
    }

    fn refuse(self: Box<Self>, refusal: Refusal) {
        let labels = RefusalLabels {
            by: "server",
            kind: refusal.kind.name(),
        };
        self.server.metrics.refusals.get_or_create(&labels).inc();
        self.inbound.refuse(refusal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says nothing and wakes nobody: the seam does not ask a half to wake who waits when this side ends it.
    #[derive(Debug)]
    struct Mute;

    impl SendStream for Mute {
        fn poll_send(&mut self, _: &mut Context<'_>, _: &mut Bytes) -> Poll<Result<usize, SendError>> {
            Poll::Pending
        }
        fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
            Poll::Pending
        }
        fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
            Poll::Pending
        }
        fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
            Poll::Pending
        }
        fn poll_stopped(&mut self, _: &mut Context<'_>) -> Poll<Result<StreamCode, SendError>> {
            Poll::Pending
        }
        fn reset(&mut self, _: StreamCode) {}
    }

    impl RecvStream for Mute {
        fn poll_recv(&mut self, _: &mut Context<'_>, _: usize) -> Poll<Result<Option<Bytes>, RecvError>> {
            Poll::Pending
        }
        fn poll_reset(&mut self, _: &mut Context<'_>) -> Poll<RecvError> {
            Poll::Pending
        }

        fn stop(&mut self, _: StreamCode) {}
    }

    #[tokio::test]
    async fn whoever_waits_for_a_stream_is_woken_when_it_is_reset() {
        for waiting in [SENDING, STOPPED, RECEIVING] {
            let control = Arc::new(Control {
                wish: None,
                tx: Mutex::new(Some(Box::new(Mute))),
                rx: Mutex::new(Some(Box::new(Mute))),
                reset: OnceLock::new(),
                wakers: Mutex::default(),
            });
            let task = tokio::spawn({
                let control = Arc::clone(&control);
                std::future::poll_fn(move |cx| {
                    control.unless_reset(waiting, cx, |_| Poll::<Result<(), _>>::Pending, |code| code)
                })
            });
            tokio::task::yield_now().await;
            assert!(!task.is_finished());
            assert!(control.reset(StreamCode::POLICY));
            assert!(!control.reset(StreamCode::SHUTDOWN), "only the first reset counts");
            assert_eq!(task.await.unwrap(), Err(StreamCode::POLICY));
        }
    }
}
