//! What is behind the lock of a connection.

use std::{
    collections::{HashMap, VecDeque},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::time::Instant;
use tunnel_proto::{
    Answer, StreamCode, StreamHead,
    mux::{CloseReason, Event, Mux, OpenBlocked, StreamId},
};

use super::{
    news::News,
    waiting::{On, Waiting, pend},
};
use crate::error::{ConnectionError, Initiator, OpenError, SharedError};

/// The machine, and who waits for what it does.
///
/// Whoever has called the machine looks at what it says before the lock is released ([`State::visit`]): so a task
/// that was told to wait is in [`Waiting`] before the event that it waits for can be taken.
#[derive(Debug)]
pub(super) struct State {
    pub(super) mux: Mux,
    pub(super) waiting: Waiting,
    /// Streams that this end has opened, until their opener has seen what came of them.
    openings: HashMap<StreamId, Option<Result<(), OpenError>>>,
    /// Who has the turn to open a stream and waits for room.
    opener: Option<Waker>,
    /// Streams that wait for `accept`, the oldest first. The machine's limit on streams bounds it.
    arrived: VecDeque<(StreamId, Box<StreamHead>)>,
    /// Streams of the peer that have no answer, and whether it has given them up.
    unanswered: HashMap<StreamId, bool>,
    driver: Driver,
    /// How the link failed, if it did.
    failure: Option<SharedError>,
}

/// The task that drives the connection, as far as others have to know.
#[derive(Debug, Default)]
struct Driver {
    /// Set while it waits. The first that has work for it takes it.
    waker: Option<Waker>,
    /// What the budget wakes.
    registered: Option<Waker>,
    /// The link takes no message at the moment; it will wake the driver by itself.
    is_blocked: bool,
    /// When its timer fires.
    alarm: Option<Instant>,
}

/// How things stand when the driver has done everything it could.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    /// The connection has ended.
    pub(super) is_over: bool,
    /// There is more to send already.
    pub(super) has_work: bool,
    /// When the machine wants to look at the clock.
    pub(super) alarm: Option<Instant>,
    /// How many streams were reclaimed so far.
    pub(super) reclaimed: u64,
}

/// The time, in the words of the machine.
pub(super) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl State {
    pub(super) fn new(mux: Mux) -> Self {
        Self {
            mux,
            waiting: Waiting::default(),
            openings: HashMap::new(),
            opener: None,
            arrived: VecDeque::new(),
            unanswered: HashMap::new(),
            driver: Driver::default(),
            failure: None,
        }
    }

    /// Does something with the state, and gathers what others have to know of it.
    pub(super) fn visit<T>(&mut self, visit: impl FnOnce(&mut Self) -> T) -> (T, News) {
        let out = visit(self);
        let mut news = News::default();
        while let Some(event) = self.mux.poll_event() {
            self.note(event, &mut news);
        }
        if self.driver.waker.is_some() && (news.closed || self.has_work()) {
            news.wake(self.driver.waker.take());
        }
        (out, news)
    }

    fn note(&mut self, event: Event, news: &mut News) {
        match event {
            Event::Established | Event::Available => news.wake(self.opener.take()),
            Event::Opened { id, head } => {
                self.unanswered.insert(id, false);
                self.arrived.push_back((id, head));
                news.arrivals += 1;
            }
            Event::Cancelled { id } => {
                if let Some(given_up) = self.unanswered.get_mut(&id) {
                    *given_up = true;
                }
                self.waiting.wake(id, On::Stop, news);
            }
            Event::Answered { id, answer } => {
                let outcome = match answer {
                    Answer::Accepted => Ok(()),
                    Answer::Refused(refusal) => Err(OpenError::Refused(refusal)),
                    _ => Err(OpenError::Protocol("an answer of a later version came".into())),
                };
                self.answered(id, outcome, news);
            }
            Event::Unanswered { id, code } => self.answered(id, Err(OpenError::Reset(code)), news),
            Event::Writable { id } => self.waiting.wake(id, On::Send, news),
            Event::Readable { id } | Event::RecvEnded { id } => self.waiting.wake(id, On::Recv, news),
            Event::Stopped { id } => {
                self.waiting.wake(id, On::Send, news);
                self.waiting.wake(id, On::Stop, news);
            }
            Event::Draining => {
                news.draining = true;
                news.wake(self.opener.take());
            }
            Event::Closed => self.note_closed(news),
            // Events of later versions of the machine concern nobody here.
            _ => {}
        }
    }

    fn note_closed(&mut self, news: &mut News) {
        news.closed = true;
        news.wake(self.opener.take());
        self.waiting.wake_all(news);
        // Nobody can accept them any more.
        for (id, _) in std::mem::take(&mut self.arrived) {
            self.release(id);
        }
    }

    fn answered(&mut self, id: StreamId, outcome: Result<(), OpenError>, news: &mut News) {
        if let Some(opening) = self.openings.get_mut(&id) {
            *opening = Some(outcome);
        }
        self.waiting.wake(id, On::Recv, news);
    }

    // What streams need.

    /// Opens a stream, which then has to be released, and queues of its first bytes what there is room for: they go
    /// into the message that opens it.
    pub(super) fn poll_open(
        &mut self,
        cx: &Context<'_>,
        head: &StreamHead,
        early: &mut Bytes,
    ) -> Poll<Result<StreamId, OpenError>> {
        match self.mux.open(now(), head) {
            Ok(id) => {
                self.openings.insert(id, None);
                // What there is no room for now is left to the sender.
                let _ = self.mux.write(now(), id, early);
                Poll::Ready(Ok(id))
            }
            Err(OpenBlocked::Limit) => pend(&mut self.opener, cx),
            Err(OpenBlocked::Draining) => Poll::Ready(Err(OpenError::Draining)),
            Err(_) => Poll::Ready(Err(OpenError::Connection(self.error()))),
        }
    }

    /// Waits for the answer to a stream that was opened.
    pub(super) fn poll_answer(&mut self, cx: &Context<'_>, id: StreamId) -> Poll<Result<(), OpenError>> {
        match self.openings.get_mut(&id).and_then(Option::take) {
            Some(outcome) => {
                self.openings.remove(&id);
                Poll::Ready(outcome)
            }
            None => match self.ended() {
                Some(error) => Poll::Ready(Err(OpenError::Connection(error))),
                None => self.waiting.wait(id, On::Recv, cx),
            },
        }
    }

    /// The oldest stream that waits for `accept`; none if the peer has given it up meanwhile. It has to be released.
    pub(super) fn next_arrived(&mut self) -> Option<(StreamId, Box<StreamHead>)> {
        let (id, head) = self.arrived.pop_front()?;
        if self.unanswered.get(&id) == Some(&false) {
            return Some((id, head));
        }
        self.release(id);
        None
    }

    /// Waits until the peer has given up a stream that was not answered.
    pub(super) fn poll_cancelled(&mut self, cx: &Context<'_>, id: StreamId) -> Poll<()> {
        if self.mux.closed().is_some() || self.unanswered.get(&id) != Some(&false) {
            return Poll::Ready(());
        }
        self.waiting.wait(id, On::Stop, cx)
    }

    /// Answers a stream, unless the peer has given it up.
    pub(super) fn answer(&mut self, id: StreamId, answer: &Answer) -> Result<(), OpenError> {
        if let Some(error) = self.ended() {
            return Err(OpenError::Connection(error));
        }
        match self.unanswered.remove(&id) {
            Some(false) => {
                self.mux.answer(now(), id, answer);
                Ok(())
            }
            _ => Err(OpenError::Reset(
                self.mux.send_stopped(id).unwrap_or(StreamCode::CANCELLED),
            )),
        }
    }

    /// Nobody holds the sending half any more.
    pub(super) fn release_send(&mut self, id: StreamId) {
        self.waiting.forget(id, On::Send);
        self.waiting.forget(id, On::Stop);
        self.mux.release_send(now(), id);
    }

    /// Nobody holds the receiving half any more.
    pub(super) fn release_recv(&mut self, id: StreamId) {
        self.waiting.forget(id, On::Recv);
        self.openings.remove(&id);
        self.unanswered.remove(&id);
        self.mux.release_recv(now(), id);
    }

    fn release(&mut self, id: StreamId) {
        self.release_send(id);
        self.release_recv(id);
    }

    // The end.

    /// Why the connection has ended, if it has.
    pub(super) fn ended(&self) -> Option<ConnectionError> {
        let error = match self.mux.closed()? {
            CloseReason::Local { code, text } => ConnectionError::Closed {
                initiator: Initiator::Local,
                code: *code,
                reason: text.clone(),
            },
            CloseReason::Remote { code, text } => ConnectionError::Closed {
                initiator: Initiator::Remote,
                code: *code,
                reason: text.clone(),
            },
            CloseReason::Silent { after } => ConnectionError::TimedOut { after: *after },
            _ => match &self.failure {
                Some(failure) => ConnectionError::Transport(failure.clone()),
                None => ConnectionError::transport(std::io::Error::from(std::io::ErrorKind::ConnectionAborted)),
            },
        };
        Some(error)
    }

    /// Why the connection has ended, when the machine has just said that it has.
    pub(super) fn error(&self) -> ConnectionError {
        self.ended()
            .unwrap_or_else(|| ConnectionError::local(tunnel_proto::CloseCode::INTERNAL, "the stream is not known"))
    }

    /// The link has failed.
    pub(super) fn fail(&mut self, failure: SharedError) {
        self.failure.get_or_insert(failure);
        self.mux.handle_link_closed(now());
    }

    // What the driver needs.

    /// The driver is about to do everything it can, so nobody has to wake it.
    pub(super) fn begin_turn(&mut self, cx: &Context<'_>) {
        self.driver.waker = None;
        if !self
            .driver
            .registered
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            self.driver.registered = Some(cx.waker().clone());
            self.mux.account().register(cx.waker());
        }
        // It may be the budget that has woken it; the machine knows.
        self.mux.reclaim(now());
    }

    /// The driver has done everything it could, on a link that takes no more messages if `is_blocked`.
    pub(super) fn rest(&mut self, cx: &Context<'_>, is_blocked: bool) -> Rest {
        self.driver.is_blocked = is_blocked;
        self.driver.alarm = self.mux.poll_timeout().map(Instant::from_std);
        let rest = Rest {
            is_over: self.mux.closed().is_some(),
            has_work: self.has_work(),
            alarm: self.driver.alarm,
            reclaimed: self.mux.stats().streams_reclaimed,
        };
        if !rest.is_over && !rest.has_work {
            self.driver.waker = Some(cx.waker().clone());
        }
        rest
    }

    /// Whether the driver has something to do that it does not know of.
    fn has_work(&self) -> bool {
        let timeout = self.mux.poll_timeout().map(Instant::from_std);
        let is_earlier = timeout.is_some_and(|timeout| self.driver.alarm.is_none_or(|alarm| timeout < alarm));
        is_earlier || (!self.driver.is_blocked && self.mux.wants_send())
    }
}
