//! Who goes first when the send window is full.
//!
//! quinn wakes everybody who waits for the window and lets them race for what has become free, so a new stream could
//! wait for ever beside enough busy ones. Here the busy ones stand back while a new stream waits. One that has sent
//! little cannot be waiting for its reader, so what it waits for is the window, and it waits no longer than the path
//! takes to acknowledge something.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// How many new streams wait.
    new: AtomicUsize,
    /// The busy ones that stand back, by stream.
    standing_back: Mutex<HashMap<u64, Waker>>,
}

impl Gate {
    /// A new stream begins to wait.
    pub(crate) fn enter(&self) {
        self.new.fetch_add(1, Ordering::SeqCst);
    }

    /// A new stream waits no longer.
    pub(crate) fn leave(&self) {
        if self.new.fetch_sub(1, Ordering::SeqCst) == 1 {
            let standing_back = std::mem::take(&mut *self.lock());
            standing_back.into_values().for_each(Waker::wake);
        }
    }

    /// Pending while the busy stream `id` has to stand back.
    pub(crate) fn poll_pass(&self, cx: &mut Context<'_>, id: u64) -> Poll<()> {
        if self.new.load(Ordering::SeqCst) == 0 {
            return Poll::Ready(());
        }
        let mut standing_back = self.lock();
        // Looked at again under the lock, so that a `leave` in between is not missed.
        if self.new.load(Ordering::SeqCst) == 0 {
            return Poll::Ready(());
        }
        standing_back.insert(id, cx.waker().clone());
        Poll::Pending
    }

    /// The stream `id` is gone.
    pub(crate) fn forget(&self, id: u64) {
        if self.new.load(Ordering::SeqCst) > 0 {
            self.lock().remove(&id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waker>> {
        // Nothing panics while it is held.
        self.standing_back.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
