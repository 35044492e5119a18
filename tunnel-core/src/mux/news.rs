//! What is to be done outside the lock.

use std::task::Waker;

/// What a visit to the state of a connection has brought about: who is to be woken, and what everybody has to know.
/// Nobody is woken while the state is locked.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct News {
    /// Most visits wake one task at most.
    first: Option<Waker>,
    others: Vec<Waker>,
    /// How many streams have come that wait for `accept`.
    pub(super) arrivals: usize,
    /// Either end has begun to drain.
    pub(super) draining: bool,
    /// The connection has ended.
    pub(super) closed: bool,
}

impl News {
    /// Has a task woken.
    pub(super) fn wake(&mut self, waker: Option<Waker>) {
        match waker {
            Some(waker) if self.first.is_none() => self.first = Some(waker),
            waker => self.others.extend(waker),
        }
    }

    /// Wakes the tasks.
    pub(super) fn deliver(self) {
        self.first.into_iter().chain(self.others).for_each(Waker::wake);
    }
}
