//! Who waits for what.

use std::{
    collections::HashMap,
    task::{Context, Poll, Waker},
};

use tunnel_proto::mux::StreamId;

use super::news::News;

/// What a task waits for on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    /// Something to read, a reset, or the answer to an open: one task has the receiving half.
    Recv,
    /// Room to write.
    Send,
    /// A stop by the peer, or that it gives a stream up that was not answered yet.
    Stop,
}

/// The tasks that wait on the streams of a connection. A stream on which nobody waits takes no room here.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    streams: HashMap<StreamId, [Option<Waker>; 3]>,
}

impl Waiting {
    /// Lets the task wait; it takes the place of one that waited for the same.
    pub(super) fn wait<T>(&mut self, id: StreamId, on: On, cx: &Context<'_>) -> Poll<T> {
        pend(&mut self.streams.entry(id).or_default()[on as usize], cx)
    }

    /// Has the task woken that waits.
    pub(super) fn wake(&mut self, id: StreamId, on: On, news: &mut News) {
        news.wake(self.take(id, on));
    }

    /// Forgets the task that waits: its half is gone.
    pub(super) fn forget(&mut self, id: StreamId, on: On) {
        self.take(id, on);
    }

    /// Has everybody woken.
    pub(super) fn wake_all(&mut self, news: &mut News) {
        for waker in self.streams.drain().flat_map(|(_, wakers)| wakers) {
            news.wake(waker);
        }
    }

    fn take(&mut self, id: StreamId, on: On) -> Option<Waker> {
        let wakers = self.streams.get_mut(&id)?;
        let waker = wakers[on as usize].take();
        if wakers.iter().all(Option::is_none) {
            self.streams.remove(&id);
        }
        waker
    }
}

/// Remembers the task, and is pending.
pub(super) fn pend<T>(slot: &mut Option<Waker>, cx: &Context<'_>) -> Poll<T> {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
    Poll::Pending
}
