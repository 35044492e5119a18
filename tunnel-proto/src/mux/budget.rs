//! One bound on what all connections of a process hold, and how memory is taken back.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
};

/// How many bytes the connections of a process may hold together: unread, queued to be sent, and heads that wait for
/// an answer. Clones are the same budget.
///
/// From half of it on, windows no longer grow and new streams get the smallest. From seven eighths on, the connection
/// that holds most is asked to reset the streams whose readers have been away longest. The whole is never exceeded: a
/// connection that would exceed it resets its own longest-stalled streams at once, and takes nothing more from its
/// writers. A connection never dies of it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Pool>);

/// One connection's part of a [`Budget`]. What it holds is given back when it is dropped.
#[derive(Debug)]
pub struct Account {
    pool: Arc<Pool>,
    share: Arc<Share>,
}

/// How much of a budget is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pressure {
    /// Less than half.
    Ample,
    /// Half and more.
    Tight,
}

/// The budget has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exhausted;

#[derive(Debug)]
struct Pool {
    limit: u64,
    used: AtomicU64,
    /// How much has to be used before the next connection is asked to give back.
    next_call: AtomicU64,
    /// How many accounts wait for room.
    waiting: AtomicU64,
    shares: Mutex<Vec<Weak<Share>>>,
}

#[derive(Debug, Default)]
struct Share {
    held: AtomicU64,
    called: AtomicBool,
    waiting: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Budget {
    /// The budget of a process unless it says otherwise: 512 MiB.
    pub const DEFAULT: u64 = 512 * 1024 * 1024;

    /// A budget of so many bytes. Less than 1 MiB leaves no room for a few busy streams.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Pool {
            limit,
            used: AtomicU64::new(0),
            next_call: AtomicU64::new(high_mark(limit)),
            waiting: AtomicU64::new(0),
            shares: Mutex::default(),
        }))
    }

    /// The bound, in bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// What is held now, in bytes.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// An account for one more connection.
    #[must_use]
    pub fn account(&self) -> Account {
        let share = Arc::new(Share::default());
        let mut shares = lock(&self.0.shares);
        // Amortised: no more is swept than was added since the last sweep.
        if shares.len() == shares.capacity() {
            shares.retain(|share| share.strong_count() > 0);
        }
        shares.push(Arc::downgrade(&share));
        Account {
            pool: Arc::clone(&self.0),
            share,
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(Self::DEFAULT)
    }
}

impl Account {
    /// What the connection holds now, in bytes.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.share.held.load(Ordering::Relaxed)
    }

    /// Has `waker` woken when [`Mux::reclaim`](super::Mux::reclaim) is to be called. It replaces the one before.
    pub fn register(&self, waker: &Waker) {
        *lock(&self.share.waker) = Some(waker.clone());
        if self.share.called.load(Ordering::Acquire) {
            self.share.wake();
        }
    }

    /// Takes room for so many bytes.
    pub(super) fn charge(&self, bytes: u64) -> Result<(), Exhausted> {
        let used = self.pool.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if used > self.pool.limit {
            self.pool.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Exhausted);
        }
        self.share.held.fetch_add(bytes, Ordering::Relaxed);
        if used >= self.pool.next_call.load(Ordering::Relaxed) {
            self.pool.call(used);
        }
        Ok(())
    }

    /// Gives room back.
    pub(super) fn release(&self, bytes: u64) {
        self.share.held.fetch_sub(bytes, Ordering::Relaxed);
        let used = self.pool.used.fetch_sub(bytes, Ordering::AcqRel) - bytes;
        self.pool.relax(used);
    }

    pub(super) fn pressure(&self) -> Pressure {
        if self.pool.used.load(Ordering::Relaxed) < self.pool.limit / 2 {
            Pressure::Ample
        } else {
            Pressure::Tight
        }
    }

    /// Whether more should be given back by a connection that was asked to.
    pub(super) fn is_high(&self) -> bool {
        self.pool.used.load(Ordering::Relaxed) > low_mark(self.pool.limit)
    }

    /// Asks to be woken when there is room again.
    pub(super) fn wait(&self) {
        if !self.share.waiting.swap(true, Ordering::AcqRel) {
            self.pool.waiting.fetch_add(1, Ordering::AcqRel);
        }
        // Room that came before this was noted has woken nobody.
        self.pool.relax(self.pool.used.load(Ordering::Acquire));
    }

    /// Whether the budget asks for memory; asking ends with this.
    pub(super) fn take_call(&self) -> bool {
        self.share.called.swap(false, Ordering::AcqRel)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if self.share.waiting.swap(false, Ordering::AcqRel) {
            self.pool.waiting.fetch_sub(1, Ordering::AcqRel);
        }
        self.release(self.held());
    }
}

impl Pool {
    /// Asks the connection that holds most. It is asked again only when still more is used.
    fn call(&self, used: u64) {
        self.next_call.store(used + self.limit / 64 + 1, Ordering::Relaxed);
        let largest = lock(&self.shares)
            .iter()
            .filter_map(Weak::upgrade)
            .max_by_key(|share| share.held.load(Ordering::Relaxed));
        if let Some(share) = largest {
            share.called.store(true, Ordering::Release);
            share.wake();
        }
    }

    /// Does what becomes possible when so much is used.
    fn relax(&self, used: u64) {
        if used < low_mark(self.limit) {
            self.next_call.store(high_mark(self.limit), Ordering::Relaxed);
        }
        if used <= self.limit - self.limit / 16 && self.waiting.load(Ordering::Acquire) > 0 {
            let shares: Vec<_> = lock(&self.shares).iter().filter_map(Weak::upgrade).collect();
            for share in shares {
                if share.waiting.swap(false, Ordering::AcqRel) {
                    self.waiting.fetch_sub(1, Ordering::AcqRel);
                    share.called.store(true, Ordering::Release);
                    share.wake();
                }
            }
        }
    }
}

impl Share {
    fn wake(&self) {
        let waker = mem::take(&mut *lock(&self.waker));
        if let Some(waker) = waker {
            waker.wake_by_ref();
            // It stays registered, unless another came meanwhile.
            lock(&self.waker).get_or_insert(waker);
        }
    }
}

/// From here on somebody is asked to give back.
fn high_mark(limit: u64) -> u64 {
    limit - limit / 8
}

/// Down to here.
fn low_mark(limit: u64) -> u64 {
    limit - limit / 4
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::AtomicUsize,
        task::{Wake, Waker},
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counting(account: &Account) -> Arc<Count> {
        let count = Arc::new(Count::default());
        account.register(&Waker::from(Arc::clone(&count)));
        count
    }

    fn calls(count: &Count) -> usize {
        count.0.load(Ordering::Relaxed)
    }

    #[test]
    fn it_is_never_exceeded_and_gets_back_what_was_held() {
        let budget = Budget::new(1000);
        let (first, second) = (budget.account(), budget.account());
        first.charge(600).unwrap();
        assert_eq!(second.charge(401), Err(Exhausted));
        second.charge(400).unwrap();
        assert_eq!((budget.used(), first.held(), second.held()), (1000, 600, 400));
        first.release(100);
        drop(second);
        assert_eq!((budget.used(), first.held()), (500, 500));
        drop(first);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_connection_that_holds_most_is_asked_once_for_each_step() {
        let budget = Budget::new(6400);
        let (small, large) = (budget.account(), budget.account());
        let (small_calls, large_calls) = (counting(&small), counting(&large));
        large.charge(4000).unwrap();
        small.charge(1599).unwrap();
        assert_eq!((calls(&small_calls), calls(&large_calls)), (0, 0));
        small.charge(1).unwrap();
        assert_eq!((calls(&small_calls), calls(&large_calls)), (0, 1));
        assert!(large.take_call() && !large.take_call() && !small.take_call());
        small.charge(50).unwrap();
        assert_eq!(calls(&large_calls), 1, "not for each byte");
        small.charge(100).unwrap();
        assert_eq!(calls(&large_calls), 2, "but when it gets worse");
        assert!(large.is_high());
        large.release(1000);
        assert!(!large.is_high());
        small.charge(900).unwrap();
        assert_eq!(calls(&large_calls), 3, "and when it comes again");
    }

    #[test]
    fn who_waits_is_woken_when_there_is_room() {
        let budget = Budget::new(1600);
        let (hog, waiting) = (budget.account(), budget.account());
        let count = counting(&waiting);
        hog.charge(1600).unwrap();
        assert_eq!(waiting.charge(1), Err(Exhausted));
        waiting.wait();
        hog.release(50);
        assert_eq!(calls(&count), 0, "so little is no room");
        hog.release(50);
        assert_eq!(calls(&count), 1);
        assert!(waiting.take_call());
        hog.release(50);
        assert_eq!(calls(&count), 1, "it waits no more");
        waiting.wait();
        assert_eq!(calls(&count), 2, "there is room already");
    }
}
