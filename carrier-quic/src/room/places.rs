//! Bytes that may be under way, and who gets them next.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// The most that one call takes: a stream's turn.
pub(super) const TURN: usize = 64 * 1024;

/// Places for bytes, handed out in the order in which they were asked for.
///
/// A place belongs to nobody before it is taken: who is called for one and does not come, as the writer of a stream
/// that gave up a write and keeps the stream, holds up nobody.
#[derive(Debug)]
pub(super) struct Places {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    count: usize,
    /// Those that are taken; more than there are for a while, when there have become fewer.
    taken: usize,
    /// Who waits and was not called, in order.
    waiting: BTreeMap<u64, Waker>,
    next: u64,
    is_closed: bool,
}

/// The connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Self {
            state: Mutex::new(State {
                count,
                taken: 0,
                waiting: BTreeMap::new(),
                next: 0,
                is_closed: false,
            }),
        }
    }

    /// Takes up to `wanted` places. Whoever has to wait keeps a ticket, which has its turn.
    pub(super) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        ticket: &mut Option<u64>,
        wanted: usize,
    ) -> Poll<Result<usize, Closed>> {
        let mut state = self.lock();
        if state.is_closed {
            *ticket = None;
            return Poll::Ready(Err(Closed));
        }
        let is_called = ticket.is_some_and(|ticket| !state.waiting.contains_key(&ticket));
        let wanted = wanted.min(TURN).min(state.count);
        if (is_called || state.waiting.is_empty()) && wanted <= state.free() {
            *ticket = None;
            state.taken += wanted;
            return Poll::Ready(Ok(wanted));
        }
        let number = *ticket.get_or_insert_with(|| {
            state.next += 1;
            state.next
        });
        // Others have places, or it would be called: it is when those come back.
        state.waiting.insert(number, cx.waker().clone());
        Poll::Pending
    }

    /// Takes somebody off those who wait.
    pub(super) fn give_up(&self, ticket: u64) {
        self.lock().waiting.remove(&ticket);
    }

    /// Gives places back.
    pub(super) fn give_back(&self, count: usize) {
        self.change(|state| state.taken -= count);
    }

    /// There are so many places now.
    pub(super) fn resize(&self, count: usize) {
        self.change(|state| state.count = count);
    }

    /// Nobody gets anything any more, and nobody waits.
    pub(super) fn close(&self) {
        self.change(|state| state.is_closed = true);
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.lock().free()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let called = state.call();
        drop(state);
        called.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn free(&self) -> usize {
        self.count.saturating_sub(self.taken)
    }

    /// Who may come now: as many as there are places for, whoever was called before. When nothing is taken, nothing
    /// will come back and call the next, so all may.
    fn call(&mut self) -> Vec<Waker> {
        let many = if self.is_closed || self.taken == 0 {
            usize::MAX
        } else {
            self.free() / TURN.min(self.count).max(1)
        };
        let mut called = Vec::new();
        while called.len() < many
            && let Some((_, waker)) = self.waiting.pop_first()
        {
            called.push(waker);
        }
        called
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Places, ticket: &mut Option<u64>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        places.poll_take(&mut cx, ticket, TURN).is_ready()
    }

    #[test]
    fn those_who_wait_have_their_turns() {
        let places = Places::new(2 * TURN);
        assert!(take(&places, &mut None) && take(&places, &mut None));
        let mut tickets = [None; 3];
        for ticket in &mut tickets {
            assert!(!take(&places, ticket));
        }
        for at in 0..3 {
            places.give_back(TURN);
            for (other, ticket) in tickets.iter_mut().enumerate().rev() {
                assert_eq!(other >= at && take(&places, ticket), other == at);
            }
        }
    }

    #[test]
    fn whoever_does_not_come_holds_up_nobody() {
        let places = Places::new(4 * TURN);
        for _ in 0..4 {
            assert!(take(&places, &mut None));
        }
        // They are called and do not come.
        for _ in 0..100 {
            assert!(!take(&places, &mut None));
        }
        let mut last = None;
        assert!(!take(&places, &mut last));
        for _ in 0..4 {
            places.give_back(TURN);
        }
        assert!(places.lock().waiting.is_empty(), "all were called");
        assert!(take(&places, &mut last));
    }

    #[test]
    fn whoever_gives_up_leaves_the_turn_to_the_next() {
        let places = Places::new(TURN);
        assert!(take(&places, &mut None));
        let (mut first, mut second) = (None, None);
        assert!(!take(&places, &mut first));
        assert!(!take(&places, &mut second));
        places.give_up(first.unwrap());
        places.give_back(TURN);
        assert!(take(&places, &mut second));
    }
}
