//! A wire in memory with two links, which can be stuck, cut and watched.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tunnel_proto::mux::Message;

use crate::mux::{Link, LinkError};

/// The wire between two links, as the test holds it.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    lanes: Arc<Mutex<[Lane; 2]>>,
    /// The agent's link is told by this that its end is near.
    pub(super) ending: CancellationToken,
}

/// The direction in which the agent sends, and the other.
pub(super) const UP: usize = 0;
pub(super) const DOWN: usize = 1;

#[derive(Debug)]
pub(super) struct Lane {
    capacity: usize,
    /// Taken from the sender and not yet flushed: the receiver sees none of it.
    pub(super) taken: VecDeque<Bytes>,
    pub(super) flushed: VecDeque<Bytes>,
    /// Takes and flushes nothing.
    is_stuck: bool,
    end: Option<End>,
    /// The sender's link was dropped.
    is_dropped: bool,
    pub(super) flushes: usize,
    pub(super) received: usize,
    writer: Option<Waker>,
    reader: Option<Waker>,
}

/// How a lane has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The sender has closed it.
    Closed,
    /// The sender was dropped before that.
    Dropped,
    /// The transport has failed, in both directions.
    Cut,
    /// The sender has broken the protocol of the link.
    Broken,
}

impl Wire {
    pub(super) fn new(capacity: usize) -> (Self, WireLink, WireLink) {
        let lane = || Lane {
            capacity,
            taken: VecDeque::new(),
            flushed: VecDeque::new(),
            is_stuck: false,
            end: None,
            is_dropped: false,
            flushes: 0,
            received: 0,
            writer: None,
            reader: None,
        };
        let lanes = Arc::new(Mutex::new([lane(), lane()]));
        let ending = CancellationToken::new();
        let wire = Self { lanes, ending };
        let agent = WireLink {
            wire: wire.clone(),
            out: UP,
        };
        let server = WireLink {
            wire: wire.clone(),
            out: DOWN,
        };
        (wire, agent, server)
    }

    pub(super) fn lanes(&self) -> MutexGuard<'_, [Lane; 2]> {
        self.lanes.lock().unwrap()
    }

    pub(super) fn stick(&self, lane: usize, is_stuck: bool) {
        let mut lanes = self.lanes();
        lanes[lane].is_stuck = is_stuck;
        lanes[lane].wake();
    }

    /// Ends what one end sends.
    pub(super) fn end(&self, lane: usize, end: End) {
        let mut lanes = self.lanes();
        lanes[lane].end = Some(end);
        lanes[lane].wake();
    }

    /// How many of the two links are still held.
    pub(super) fn links(&self) -> usize {
        let lanes = self.lanes();
        lanes.iter().filter(|lane| !lane.is_dropped).count()
    }

    /// How what one end sends has ended.
    pub(super) fn ended(&self, lane: usize) -> Option<End> {
        self.lanes()[lane].end
    }
}

impl Lane {
    fn wake(&mut self) {
        let wakers = [self.writer.take(), self.reader.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn flush(&mut self) {
        self.flushes += 1;
        let taken = std::mem::take(&mut self.taken);
        self.flushed.extend(taken);
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }
}

/// One end of a wire.
#[derive(Debug)]
pub(super) struct WireLink {
    wire: Wire,
    out: usize,
}

impl WireLink {
    /// Waits for the wire to take something.
    fn poll_lane<T>(
        &self,
        cx: &Context<'_>,
        has_room: impl FnOnce(&Lane) -> bool,
        then: impl FnOnce(&mut Lane) -> T,
    ) -> Poll<Result<T, LinkError>> {
        let lane = &mut self.wire.lanes()[self.out];
        if lane.end.is_some() {
            return Poll::Ready(Err(LinkError::Io(io::ErrorKind::BrokenPipe.into())));
        }
        if lane.is_stuck || !has_room(lane) {
            lane.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(then(lane)))
    }
}

impl Link for WireLink {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let has_room = |lane: &Lane| lane.taken.len() + lane.flushed.len() < lane.capacity;
        self.poll_lane(cx, has_room, |_| ())
    }

    fn send(&mut self, message: Message) -> Result<(), LinkError> {
        let lane = &mut self.wire.lanes()[self.out];
        assert!(
            lane.taken.len() + lane.flushed.len() < lane.capacity,
            "sent before ready"
        );
        lane.taken.push_back(message.into_bytes());
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.poll_lane(cx, |_| true, Lane::flush)
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LinkError>> {
        let lane = &mut self.wire.lanes()[1 - self.out];
        if let Some(message) = lane.flushed.pop_front() {
            lane.received += 1;
            if let Some(waker) = lane.writer.take() {
                waker.wake();
            }
            return Poll::Ready(Ok(Some(message)));
        }
        match lane.end {
            None => {
                lane.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(End::Closed | End::Dropped) => Poll::Ready(Ok(None)),
            Some(End::Cut) => Poll::Ready(Err(LinkError::Io(io::ErrorKind::ConnectionReset.into()))),
            Some(End::Broken) => Poll::Ready(Err(LinkError::Protocol("a text message".to_owned()))),
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if self.wire.ended(self.out) == Some(End::Closed) {
            return Poll::Ready(Ok(()));
        }
        self.poll_lane(
            cx,
            |_| true,
            |lane| {
                lane.flush();
                lane.end = Some(End::Closed);
                lane.wake();
            },
        )
    }

    fn ending(&self) -> CancellationToken {
        if self.out == UP {
            self.wire.ending.clone()
        } else {
            CancellationToken::new()
        }
    }
}

impl Drop for WireLink {
    fn drop(&mut self) {
        let lane = &mut self.wire.lanes()[self.out];
        lane.is_dropped = true;
        lane.end.get_or_insert(End::Dropped);
        lane.wake();
    }
}
