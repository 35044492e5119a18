//! The task that drives one connection.
//!
//! A *turn* reads and writes what the socket allows, takes what the peer has said of the connection, looks at the
//! streams that have news, and gives HTTP/2 a little of what waits to be sent, if the socket has taken all that it was
//! given before. So little is ever queued below, and what is urgent can overtake.

use std::{
    collections::{HashMap, VecDeque},
    future::{Future, poll_fn},
    io,
    ops::ControlFlow,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};
use tunnel_core::{
    ConnectionError,
    proto::mux::{Next, Schedule, Verdict},
};

use super::{
    Incoming, Session, Sight,
    hub::{Hub, nanos},
    protocol::Protocol,
    pulse::Pulse,
    stream::Stream,
    under_way::UnderWay,
    window::StreamWindow,
    wire::Wire,
};
use crate::config::Tuning;

/// After how many turns others are let go first.
const TURNS: usize = 4;
/// After this much HTTP/2 is given no more in a turn.
const TURN_BYTES: usize = 64 * 1024;
/// How long the peer may take to end the connection when it was told to.
const LINGER: Duration = Duration::from_secs(1);
/// What a timer is set to that nobody waits for.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What drives a connection.
pub(crate) struct Driver<P: Protocol> {
    pub(crate) protocol: P,
    pub(crate) hub: Arc<Hub>,
    pub(crate) session: Session,
    pub(crate) sight: Arc<Sight>,
    pulse: Pulse,
    pub(crate) windows: StreamWindow,
    pub(crate) under_way: UnderWay,
    /// The streams that HTTP/2 has not forgotten, by their numbers.
    pub(crate) wires: HashMap<u64, Wire>,
    /// Whose turn to send it is.
    schedule: Schedule<u64>,
    /// Streams that wait until a request can be made.
    pub(crate) waiting: VecDeque<Arc<Stream>>,
    incoming: Vec<Incoming>,
    /// Until when the peer may take to end the connection.
    closing: Option<Instant>,
    /// Whether streams were given up that nobody had looked at.
    pub(crate) given_up: bool,
    /// Whether the budget has asked for memory, and not enough was given back.
    pub(crate) relieving: bool,
    timer: Pin<Box<Sleep>>,
}

impl<P: Protocol> Driver<P> {
    pub(crate) fn new(protocol: P, hub: Arc<Hub>, mut session: Session, sight: Arc<Sight>, tuning: &Tuning) -> Self {
        let now = Instant::now();
        let knobs = tuning.knobs(0);
        session.begin(Arc::clone(&hub).into());
        Self {
            protocol,
            pulse: Pulse::new(tuning.mux.proto.keepalive(), session.pings(), now.into_std()),
            windows: StreamWindow::new(tuning.mux.proto.stream_window(), now.into_std()),
            under_way: UnderWay::new(
                tuning.under_way(),
                knobs.connection_window,
                tuning.connection_window,
                now.into_std(),
            ),
            hub,
            session,
            sight,
            wires: HashMap::new(),
            schedule: Schedule::default(),
            waiting: VecDeque::new(),
            incoming: Vec::new(),
            closing: None,
            given_up: false,
            relieving: false,
            timer: Box::pin(sleep_until(now + NEVER)),
        }
    }

    /// Drives the connection to its end.
    pub(crate) async fn run(mut self) {
        poll_fn(|cx| {
            self.hub.account.register(cx.waker());
            P::begin(&mut self, cx);
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.hub.wakes();
        for _ in 0..TURNS {
            if let Poll::Ready(ended) = self.poll_session() {
                let error = P::ended(self, ended);
                self.hub.end(error);
                return Poll::Ready(());
            }
            let now = Instant::now();
            let moved = if self.closing.is_some() {
                // Streams have ended with the connection, and need no look any more.
                drop(self.hub.take_ready());
                match P::leave(self, cx) {
                    ControlFlow::Break(()) => return Poll::Ready(()),
                    ControlFlow::Continue(moved) => moved,
                }
            } else {
                self.turn(cx, now)
            };
            if self.is_over(cx, now) {
                return Poll::Ready(());
            }
            if !moved && self.sleep(cx, now) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Has HTTP/2 read and write what the socket allows, if there is any of it.
    fn poll_session(&mut self) -> Poll<Result<(), h2::Error>> {
        if self.hub.take_due() || self.sight.is_starved() {
            self.session.poll_due(&mut self.incoming)
        } else {
            Poll::Pending
        }
    }

    /// Says whether anything happened.
    fn turn(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        // Everything that HTTP/2 was given is on its way, and nothing can be overtaken.
        let is_flushed = !self.sight.is_stuck();
        if is_flushed {
            self.hub.free_places();
        }
        let mut moved = is_flushed && P::settle(self, cx);
        for request in std::mem::take(&mut self.incoming) {
            P::arrive(self, request);
            moved = true;
        }
        moved |= P::listen(self, cx, now);
        moved |= self.visit_all(cx, now);
        if let Some(error) = P::closed_by_peer(self) {
            self.hub.end(error);
            return true;
        }
        if self.pulse.look(cx, now.into_std(), self.sight.received()) == Verdict::Dead {
            let after = self.pulse.bound();
            self.hub.end(ConnectionError::TimedOut { after });
            return true;
        }
        if let Some(round_trip) = self.pulse.round_trip() {
            self.hub.counters.round_trip.store(nanos(round_trip), Ordering::Relaxed);
        }
        if let Some(bytes) = self.windows.change()
            && self.session.set_stream_window(bytes).is_ok()
        {
            self.windows.changed();
            moved = true;
        }
        if let Some(bytes) = self.under_way.fit(now.into_std(), &mut self.pulse) {
            self.session.set_connection_window(bytes);
        }
        moved |= P::feed(self, cx);
        if !self.sight.is_stuck() {
            moved |= self.feed();
        }
        moved
    }

    /// Whether the driver's work is done. Begins the end that this side wants.
    fn is_over(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if let Some((code, text)) = self.hub.take_close() {
            P::close(self, cx, code, text);
            self.closing = Some(now + LINGER);
            self.wake_all();
            // It has to be seen through.
            self.hub.rouse();
            return false;
        }
        match self.closing {
            Some(until) => now >= until,
            None => self.hub.ended().is_some(),
        }
    }

    /// Arranges to be woken. Says whether there is nothing to do until then.
    fn sleep(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let next = match self.closing {
            Some(until) => Some(until),
            None => {
                let pressure = self.hub.account.pressure();
                self.windows.look(now.into_std(), pressure);
                let relief = self.relieve(now);
                let looks = [self.pulse.next_look(), self.windows.next_look(pressure)];
                let looks = looks.into_iter().flatten().map(Instant::from_std);
                looks.chain(relief).chain(self.protocol.next_look()).min()
            }
        };
        if let Some(next) = next {
            // One that goes off too early costs less than to move it each time.
            let next = next.max(now + Duration::from_millis(1));
            if next < self.timer.deadline() || self.timer.is_elapsed() {
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(cx).is_ready() {
                return false;
            }
        }
        self.hub.sleeps(cx.waker())
    }

    /// Gives HTTP/2 some of what waits to be sent. Says whether there was any.
    fn feed(&mut self) -> bool {
        let mut fed = 0;
        let mut credit = self.sight.credit.available();
        while fed < TURN_BYTES
            && let Some(key) = self.schedule.head()
        {
            let Some(wire) = self.wires.get_mut(&key) else {
                self.schedule.drop_head();
                continue;
            };
            let stream = Arc::clone(&wire.stream);
            let mut state = stream.lock();
            let ready = wire.tx.is_some() && !state.outbox.is_empty();
            let most = match self.schedule.decide(key, &mut wire.turn, ready, TURN_BYTES) {
                Next::Send(most) => most,
                Next::Later => continue,
            };
            if credit == 0 {
                // The order in which streams go on is decided here, when there is credit again, and not by HTTP/2.
                break;
            }
            let sent = wire.feed(&mut state, most.min(credit), self.hub.send_queue);
            drop(state);
            self.schedule.sent(&mut wire.turn, sent.bytes);
            fed += sent.bytes;
            credit -= sent.bytes;
            if sent.is_held_up {
                self.schedule.park_head(&mut wire.turn);
            }
            if wire.finished {
                // It may be over now.
                stream.post();
            }
        }
        fed > 0
    }

    /// Has a stream that has something to send do so when its turn comes.
    pub(crate) fn take_turn(&mut self, key: u64) {
        let Some(wire) = self.wires.get_mut(&key) else { return };
        let stream = Arc::clone(&wire.stream);
        if wire.finish(&stream.lock()) {
            // It may be over now.
            stream.post();
        } else {
            wire.stop_waiting();
            self.schedule.enter(key, &mut wire.turn);
        }
    }

    /// Whether there is no stream, and none to come.
    pub(crate) fn is_idle(&self) -> bool {
        self.hub.open() == 0 && self.wires.is_empty() && self.waiting.is_empty()
    }

    /// What windows of streams are fitted to.
    pub(crate) fn shortest_turn(&self) -> Option<Duration> {
        self.pulse.shortest_turn()
    }

    fn wake_all(&mut self) {
        self.wires.values().for_each(|wire| wire.stream.wake_all());
        self.waiting.drain(..).for_each(|stream| stream.wake_all());
        self.hub.take_ready().iter().for_each(|stream| stream.wake_all());
    }
}

/// Ends what is left, also when the runtime ends first.
impl<P: Protocol> Drop for Driver<P> {
    fn drop(&mut self) {
        let aborted = ConnectionError::transport(io::Error::from(io::ErrorKind::ConnectionAborted));
        self.hub.end(aborted);
        // What has come can still be read.
        let keys: Vec<_> = self.wires.keys().copied().collect();
        for key in keys {
            self.receive(key, Instant::now());
        }
        self.hub.account.turn_deaf();
        self.wake_all();
        self.hub.finish().iter().for_each(|stream| stream.wake_all());
    }
}

impl<P: Protocol> std::fmt::Debug for Driver<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("protocol", &self.protocol)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
