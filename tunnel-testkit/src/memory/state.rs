//! Everything that the two ends of a connection know.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroUsize,
    sync::Arc,
    task::Waker,
};

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tunnel_core::{CloseCode, ConnectionError, OpenError, Refusal, StreamCode, StreamHead};

use super::pipe::{End, Pipe, wake};
use crate::Side;

/// The most that one stream may put on a slow wire before it is the next one's turn.
const TURN: usize = 4 * 1024;

/// The name of a stream within its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(u64);

/// Everything that the two ends of a connection know.
#[derive(Debug)]
pub(super) struct State {
    window: usize,
    /// What the wire carries per millisecond and direction.
    bandwidth: Option<NonZeroUsize>,
    /// Whether the wire carries anything.
    up: bool,
    /// Who began to drain.
    draining: Option<Side>,
    streams: BTreeMap<StreamId, Stream>,
    next_id: u64,
    /// How many streams are not over.
    open: usize,
    ends: [EndState; 2],
    news: Arc<News>,
}

/// Tells those who do not wait for a certain stream. It is apart from the state, so that they wait without its lock.
#[derive(Debug, Default)]
pub(super) struct News {
    /// A drain, the end, a change of the wire.
    pub(super) changed: Notify,
    /// The same, or a new stream; apart, because many may wait to open while few accept.
    pub(super) inbound: Notify,
}

impl News {
    fn changed(&self) {
        self.changed.notify_waiters();
        self.inbound.notify_waiters();
    }
}

/// What concerns one end alone.
#[derive(Debug, Default)]
pub(super) struct EndState {
    /// Why the connection ended, as this end sees it.
    pub(super) ended: Option<ConnectionError>,
    /// Streams that the peer has opened and that nobody here has looked at, oldest first. The peer's stream limit
    /// bounds it.
    inbound: VecDeque<StreamId>,
    /// Streams with bytes from this end that wait for the wire, in turn.
    sending: VecDeque<StreamId>,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) streams_opened: u64,
    pub(super) streams_accepted: u64,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) opener: Side,
    pub(super) head: StreamHead,
    pub(super) answer: Option<Result<(), Refusal>>,
    /// By the side that sends.
    pipes: [Pipe; 2],
    /// The opener's place under the stream limit, until the stream is over.
    place: Option<OwnedSemaphorePermit>,
    /// How many halves exist that refer to it.
    pub(super) halves: u8,
    /// Whoever waits for the answer.
    pub(super) answer_waiter: Option<Waker>,
    /// Whoever holds the unanswered stream and waits for the opener to give up.
    pub(super) cancel_waiter: Option<Waker>,
}

impl Stream {
    /// The direction in which `side` sends.
    pub(super) fn pipe(&mut self, side: Side) -> &mut Pipe {
        &mut self.pipes[side as usize]
    }

    /// Ends the direction in which `side` sends.
    pub(super) fn reset(&mut self, side: Side, code: StreamCode) {
        self.pipe(side).reset(code);
        if side == self.opener {
            wake(&mut self.cancel_waiter);
        }
    }

    /// With which code the opener has given the stream up, if it has.
    pub(super) fn given_up(&self) -> Option<StreamCode> {
        match self.pipes[self.opener as usize].end() {
            End::Reset(code) => Some(code),
            _ => None,
        }
    }

    fn is_over(&self) -> bool {
        self.pipes.iter().all(Pipe::is_over)
    }

    fn wake(&mut self) {
        self.pipes.iter_mut().for_each(Pipe::wake);
        wake(&mut self.answer_waiter);
        wake(&mut self.cancel_waiter);
    }
}

impl State {
    pub(super) fn new(window: usize, bandwidth: Option<NonZeroUsize>, news: Arc<News>) -> Self {
        Self {
            window,
            bandwidth,
            up: true,
            draining: None,
            streams: BTreeMap::new(),
            next_id: 0,
            open: 0,
            ends: Default::default(),
            news,
        }
    }

    pub(super) fn end(&mut self, side: Side) -> &mut EndState {
        &mut self.ends[side as usize]
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    /// Lets no new streams start; ends the connection if there are none.
    pub(super) fn drain(&mut self, side: Side) {
        self.draining.get_or_insert(side);
        self.news.changed();
        self.end_if_drained();
    }

    /// A stream; it is known for as long as somebody holds a half of it.
    pub(super) fn stream(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(&id)
    }

    /// Whether `side` may open a stream.
    pub(super) fn may_open(&self, side: Side) -> Result<(), OpenError> {
        match &self.ends[side as usize].ended {
            Some(error) => Err(OpenError::Connection(error.clone())),
            None if self.draining.is_some_and(|by| by == side || self.up) => Err(OpenError::Draining),
            None => Ok(()),
        }
    }

    /// Adds a stream; the peer can accept it from now on.
    pub(super) fn open(
        &mut self,
        opener: Side,
        head: StreamHead,
        place: OwnedSemaphorePermit,
    ) -> Result<StreamId, OpenError> {
        self.may_open(opener)?;
        let id = StreamId(self.next_id);
        self.next_id += 1;
        let stream = Stream {
            opener,
            head,
            answer: None,
            pipes: [Pipe::new(self.window), Pipe::new(self.window)],
            place: Some(place),
            halves: 0,
            answer_waiter: None,
            cancel_waiter: None,
        };
        self.streams.insert(id, stream);
        self.open += 1;
        self.end(opener.peer()).inbound.push_back(id);
        self.news.inbound.notify_waiters();
        Ok(id)
    }

    /// The oldest stream that the peer of `side` has opened, if the wire has brought it.
    pub(super) fn next_inbound(&mut self, side: Side) -> Option<(StreamId, StreamHead)> {
        let id = if self.up {
            self.end(side).inbound.pop_front()
        } else {
            None
        }?;
        self.streams.get(&id).map(|stream| (id, stream.head.clone()))
    }

    /// Notes that `side` has bytes for the wire in this stream. Called when they are the first.
    pub(super) fn queue(&mut self, side: Side, id: StreamId) {
        self.end(side).sending.push_back(id);
    }

    /// Carries what is queued over the wire, in both directions: everything, or on a slow wire one millisecond's
    /// worth, with the streams taking turns.
    pub(super) fn carry(&mut self) {
        Side::BOTH.into_iter().for_each(|side| self.carry_from(side));
    }

    fn carry_from(&mut self, side: Side) {
        let mut budget = self.bandwidth.map_or(usize::MAX, NonZeroUsize::get);
        let turn = self.bandwidth.map_or(usize::MAX, |_| TURN);
        while self.up && budget > 0 {
            let Some(id) = self.end(side).sending.pop_front() else {
                return;
            };
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            budget -= stream.pipe(side).carry(turn.min(budget));
            if stream.pipe(side).queued() > 0 {
                self.end(side).sending.push_back(id);
            }
        }
    }

    /// Whether the wire is a slow one, which a ticker has to drive.
    pub(super) fn is_slow(&self) -> bool {
        self.bandwidth.is_some()
    }

    /// Tidies up after something happened to a stream: one that is over gives up its place, one that nobody holds is
    /// forgotten, and a drained connection ends with its last stream.
    pub(super) fn settle(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let (opener, is_held) = (stream.opener, stream.halves > 0);
        if stream.is_over() && stream.place.take().is_some() {
            self.open -= 1;
            self.end_if_drained();
        }
        if !is_held {
            self.streams.remove(&id);
            self.end(opener.peer()).inbound.retain(|waiting| *waiting != id);
        }
    }

    fn end_if_drained(&mut self) {
        if let Some(side) = self.draining.filter(|_| self.open == 0) {
            self.close(side, CloseCode::DRAINED, "");
        }
    }

    /// The number of streams that are not over.
    pub(super) fn open_streams(&mut self, side: Side) -> usize {
        if self.end(side).ended.is_some() { 0 } else { self.open }
    }

    /// Ends the connection by the will of one side, of which the other hears if the wire is up.
    pub(super) fn close(&mut self, side: Side, code: CloseCode, reason: &str) {
        self.fail(side, ConnectionError::local(code, reason));
        if self.up {
            self.fail(side.peer(), ConnectionError::remote(code, reason));
        }
    }

    /// Ends the connection as `side` sees it. Only the first reason counts.
    pub(super) fn fail(&mut self, side: Side, error: ConnectionError) {
        if self.end(side).ended.is_none() {
            self.end(side).ended = Some(error);
            self.wake();
            self.news.changed();
        }
    }

    /// Changes whether the wire carries anything. The end that one side brought about meanwhile reaches the other.
    pub(super) fn set_up(&mut self, up: bool) {
        self.up = up;
        for side in Side::BOTH.into_iter().filter(|_| up) {
            if let Some(ConnectionError::Closed { code, reason, .. }) = self.end(side.peer()).ended.clone() {
                self.fail(side, ConnectionError::remote(code, reason));
            }
        }
        self.wake();
        self.news.changed();
    }

    fn wake(&mut self) {
        self.streams.values_mut().for_each(Stream::wake);
    }

    /// How many bytes the peer of `side` may still send, in the streams there are and in those that it may open.
    pub(super) fn credit(&mut self, side: Side, places: usize) -> usize {
        let open = self.streams.values_mut().filter(|stream| stream.place.is_some());
        let in_streams: usize = open.map(|stream| stream.pipe(side.peer()).credit()).sum();
        in_streams + places * self.window
    }
}
