//! The task that drives a connection: it moves messages between the link and the machine, and watches the clock.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    task::yield_now,
    time::{Instant, Sleep, sleep_until, timeout_at},
};
use tunnel_proto::{
    CloseCode,
    mux::{CloseReason, Message},
};

use super::{
    link::{Link, LinkError},
    shared::Shared,
    state::now,
};
use crate::{carrier::Peer, time::LONGEST};

/// The most messages of each direction that are moved before other tasks have their turn.
const TURN: usize = 32;
/// After so many bytes received a turn is over as well, which takes a fraction of a millisecond with encryption: readers,
/// which take turns with this task, keep up with it. What has come cannot be overtaken any more, and the peer waits for
/// those who are handed it, so it is several messages.
const RECEIVE_BYTES: usize = 256 * 1024;
/// And after so many bytes sent: what is urgent goes out before the rest of what waits.
const SEND_BYTES: usize = 64 * 1024;
/// How long the end of a connection may take: a close that the link does not take would keep the task for ever.
const LINGER: Duration = Duration::from_secs(1);
/// How often a connection that reclaims memory says so at most.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Drives one connection until it has ended and the link with it.
#[derive(Debug)]
pub(super) struct Task {
    link: Box<dyn Link>,
    shared: Arc<Shared>,
    peer: Peer,
    timer: Pin<Box<Sleep>>,
    /// The link has nothing more to read.
    is_read_out: bool,
    /// The link has taken messages that may not be on the wire.
    is_unflushed: bool,
    /// How many reclaimed streams were spoken of, and when last.
    reclaimed: u64,
    complained: Option<Instant>,
}

impl Task {
    pub(super) fn new(link: Box<dyn Link>, shared: Arc<Shared>, peer: Peer) -> Self {
        Self {
            link,
            shared,
            peer,
            timer: Box::pin(sleep_until(Instant::now() + LONGEST)),
            is_read_out: false,
            is_unflushed: false,
            reclaimed: 0,
            complained: None,
        }
    }

    pub(super) async fn run(mut self) {
        poll_fn(|cx| self.poll_turn(cx)).await;
        self.end().await;
    }

    /// Does everything that can be done at the moment, up to a bound; ready when the connection has ended.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.visit(|state| state.begin_turn(cx));
        let (received, sent) = match (self.receive(cx), self.send(cx)) {
            (Ok(received), Ok(sent)) => (received, sent),
            (Err(error), _) => return self.fail(error),
            (Ok(_), Err(error)) => {
                // A peer that has closed the connection takes no more; what it said of it may have come meanwhile.
                let _ = self.receive(cx);
                return self.fail(error);
            }
        };
        let rest = self.shared.visit(|state| state.rest(cx, sent == Progress::Blocked));
        self.complain(rest.reclaimed);
        if rest.is_over {
            return Poll::Ready(());
        }
        let is_bounded = received == Progress::Bounded || sent == Progress::Bounded;
        if self.poll_timer(cx, rest.alarm) || rest.has_work || is_bounded {
            yield_turn(cx);
        }
        Poll::Pending
    }

    /// Gives the machine what the link has.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<Progress, LinkError> {
        let mut bytes = 0;
        for _ in 0..TURN {
            if bytes >= RECEIVE_BYTES {
                break;
            }
            match self.poll_recv(cx) {
                Poll::Ready(message) => {
                    let message = message?;
                    bytes += message.len();
                    self.shared.visit(|state| state.mux.handle_message(now(), message));
                }
                Poll::Pending => return Ok(Progress::Done),
            }
        }
        Ok(Progress::Bounded)
    }

    /// The next message; an error is the last that the link gives.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, LinkError>> {
        let no_word = || LinkError::Ended("it ended without a close of the connection".to_owned());
        if self.is_read_out {
            return Poll::Ready(Err(no_word()));
        }
        let message = ready!(self.link.poll_recv(cx)).and_then(|message| message.ok_or_else(no_word));
        self.is_read_out = message.is_err();
        Poll::Ready(message)
    }

    /// Gives the link what the machine has, and sees that it is put on the wire.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<Progress, LinkError> {
        let mut progress = Progress::Bounded;
        let mut bytes = 0;
        for _ in 0..TURN {
            if bytes >= SEND_BYTES {
                break;
            }
            match self.link.poll_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    progress = Progress::Blocked;
                    break;
                }
            }
            let Some(message) = self.next_message() else {
                progress = Progress::Done;
                break;
            };
            bytes += message.len();
            self.link.send(message)?;
            self.is_unflushed = true;
        }
        if self.is_unflushed
            && let Poll::Ready(flushed) = self.link.poll_flush(cx)
        {
            flushed?;
            self.is_unflushed = false;
        }
        Ok(progress)
    }

    fn next_message(&self) -> Option<Message> {
        self.shared.visit(|state| state.mux.poll_message(now()))
    }

    /// Tells the machine when its time has come. An alarm that moves away, as keepalive's does with every message, is
    /// noticed only when the timer fires: moving the timer costs more.
    fn poll_timer(&mut self, cx: &mut Context<'_>, alarm: Option<Instant>) -> bool {
        let Some(alarm) = alarm else {
            return false;
        };
        if alarm < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(alarm);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if alarm <= Instant::now() {
                self.shared.visit(|state| state.mux.handle_timeout(now()));
                return true;
            }
            self.timer.as_mut().reset(alarm);
        }
        false
    }

    /// Ends the connection because of the link.
    fn fail(&self, error: LinkError) -> Poll<()> {
        self.shared.visit(|state| match error {
            LinkError::Protocol(text) => state.mux.close(now(), CloseCode::PROTOCOL, text.into()),
            error => state.fail(Arc::new(error)),
        });
        Poll::Ready(())
    }

    /// Says that memory was reclaimed, now and then.
    fn complain(&mut self, reclaimed: u64) {
        let now = Instant::now();
        let is_soon = self.complained.is_some_and(|last| now - last < COMPLAINT_INTERVAL);
        if reclaimed == self.reclaimed || is_soon {
            return;
        }
        tracing::warn!(
            carrier = self.peer.carrier,
            remote = %self.peer.remote_addr,
            streams = reclaimed - self.reclaimed,
            "memory is short: the streams that had stalled longest were reset"
        );
        self.reclaimed = reclaimed;
        self.complained = Some(now);
    }

    /// Tells the peer why this end has closed the connection, and ends the link, in bounded time.
    async fn end(&mut self) {
        let reason = self.shared.lock().mux.closed().cloned();
        if !matches!(reason, Some(CloseReason::Local { .. })) {
            // Nobody need wait until a peer that has fallen silent has been told.
            self.shared.told.cancel();
        }
        if matches!(reason, Some(CloseReason::Link)) {
            return;
        }
        let deadline = Instant::now() + LINGER;
        let said = timeout_at(deadline, poll_fn(|cx| self.poll_say_why(cx))).await;
        self.shared.told.cancel();
        if matches!(said, Ok(Ok(()))) {
            // What fails now has nobody to tell.
            let _ = timeout_at(deadline, poll_fn(|cx| self.poll_end_link(cx))).await;
        }
    }

    /// Sends what the machine has left to say. What still comes is read and dropped: a peer that waits for room would
    /// not take it otherwise.
    fn poll_say_why(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let _ = self.poll_discard(cx);
        match self.send(cx)? {
            Progress::Done if !self.is_unflushed => Poll::Ready(Ok(())),
            Progress::Bounded => {
                yield_turn(cx);
                Poll::Pending
            }
            _ => Poll::Pending,
        }
    }

    /// Ends the link, and waits until the peer has ended it, too: a socket that is dropped with bytes unread takes
    /// what was sent before away from the peer.
    fn poll_end_link(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.link.poll_close(cx) {
            Poll::Ready(Ok(())) => self.poll_discard(cx),
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Pending => {
                let _ = self.poll_discard(cx);
                Poll::Pending
            }
        }
    }

    /// Reads and drops what comes; ready when nothing more can.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURN {
            if let Err(_over) = ready!(self.poll_recv(cx)) {
                return Poll::Ready(());
            }
        }
        yield_turn(cx);
        Poll::Pending
    }
}

/// Has the task polled again when others, and the sockets, have had their turn. To wake it would put it ahead of those
/// that have yielded in this way themselves.
fn yield_turn(cx: &mut Context<'_>) {
    let _ = pin!(yield_now()).poll(cx);
}

/// A runtime that shuts down drops the task; whoever waits has to learn that nobody drives the connection any more.
impl Drop for Task {
    fn drop(&mut self) {
        self.shared.visit(|state| state.mux.handle_link_closed(now()));
        self.shared.told.cancel();
    }
}

/// How far a direction has come in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// There is nothing more to move.
    Done,
    /// The link takes nothing more.
    Blocked,
    /// There may be more.
    Bounded,
}
