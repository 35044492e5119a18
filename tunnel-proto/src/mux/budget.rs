//! One bound on what all connections of a process hold, and how memory is taken back.

use std::task::Waker;

use super::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

/// How many bytes the connections of a process may hold together: unread, queued to be sent, and heads that wait for
/// an answer. Clones are the same budget.
///
/// - From half of it on, windows shrink to the smallest as their streams are read, and writers queue less.
/// - From seven eighths on, the connection that holds most is asked to reset the streams whose readers have been away
///   longest, for a second at least; where that is not enough, all are asked, until no more than three quarters are
///   used.
/// - From fifteen sixteenths on, nothing more is taken from writers, who are woken at seven eighths.
/// - The whole is never exceeded: a connection that would exceed it by what it receives resets its own longest-stalled
///   streams at once.
///
/// A connection never dies of it.
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
pub enum Pressure {
    /// Less than half.
    Ample,
    /// Half and more.
    Tight,
}

/// The budget has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory of the process is used up")]
#[allow(clippy::exhaustive_structs)] // there is nothing more to say
pub struct Exhausted;

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
    /// What the connection is asked for, as bits of [`Call`].
    called: AtomicU8,
    waiting: AtomicBool,
    /// Whether the connection has ended and listens to nobody.
    deaf: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// What a connection is woken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call(u8);

impl Call {
    /// It holds most.
    const LARGEST: Self = Self(1);
    /// The largest alone could not help.
    pub(super) const ALL: Self = Self(2);
    /// There is room for its writers again.
    pub(super) const ROOM: Self = Self(4);

    /// Whether it is woken for anything.
    #[must_use]
    pub fn is_any(self) -> bool {
        self.0 != 0
    }

    /// Whether nobody else has been asked.
    #[must_use]
    pub fn is_alone(self) -> bool {
        self.0 & Self::LARGEST.0 != 0
    }
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
        if self.share.called.load(Ordering::Acquire) != 0 {
            self.share.wake();
        }
    }

    /// Takes room for so many bytes that have come.
    pub fn charge(&self, bytes: u64) -> Result<(), Exhausted> {
        self.charge_within(bytes, self.pool.limit)
    }

    /// Takes room for so many bytes of a writer; what is left of the budget then is for those that come.
    pub(super) fn charge_writer(&self, bytes: u64) -> Result<(), Exhausted> {
        self.charge_within(bytes, writers_mark(self.pool.limit))
    }

    /// How much there is room for when a writer is woken.
    pub(super) fn writers_piece(&self) -> usize {
        let piece = writers_mark(self.pool.limit) - high_mark(self.pool.limit);
        usize::try_from(piece).unwrap_or(usize::MAX).max(1)
    }

    fn charge_within(&self, bytes: u64, limit: u64) -> Result<(), Exhausted> {
        let add = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit);
        let before = self.pool.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        let used = before.map_err(|_| Exhausted)? + bytes;
        self.share.held.fetch_add(bytes, Ordering::Relaxed);
        if used >= self.pool.next_call.load(Ordering::Relaxed) {
            self.pool.call(used);
        }
        Ok(())
    }

    /// Gives room back.
    pub fn release(&self, bytes: u64) {
        if bytes > 0 {
            self.share.held.fetch_sub(bytes, Ordering::Relaxed);
            let used = self.pool.used.fetch_sub(bytes, Ordering::SeqCst) - bytes;
            self.pool.relax(used);
        }
    }

    /// How much of the budget is used.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        if self.pool.used.load(Ordering::Relaxed) < self.pool.limit / 2 {
            Pressure::Ample
        } else {
            Pressure::Tight
        }
    }

    /// Whether more should be given back by a connection that was asked to.
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.pool.used.load(Ordering::Relaxed) > low_mark(self.pool.limit)
    }

    /// Asks to be woken when there is room for writers again.
    pub(super) fn wait(&self) {
        if !self.share.waiting.swap(true, Ordering::SeqCst) {
            self.pool.waiting.fetch_add(1, Ordering::SeqCst);
        }
        // Room that came before this was noted has woken nobody.
        self.pool.relax(self.pool.used.load(Ordering::SeqCst));
    }

    /// What the budget asks for; asking ends with this.
    pub fn take_call(&self) -> Call {
        Call(self.share.called.swap(0, Ordering::AcqRel))
    }

    /// Asks all the others, when this connection has done what it can and that was not enough.
    pub fn pass_on(&self) {
        self.pool.call_others(&self.share);
    }

    /// Hears no call any more.
    pub fn turn_deaf(&self) {
        self.share.deaf.store(true, Ordering::SeqCst);
        if self.share.called.load(Ordering::SeqCst) & Call::LARGEST.0 != 0 && self.is_high() {
            self.pass_on();
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if self.share.waiting.swap(false, Ordering::SeqCst) {
            self.pool.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        self.release(self.held());
    }
}

impl Pool {
    /// Those that can be asked. A list of its own, because nobody is woken under the lock.
    fn listening(&self) -> Vec<Arc<Share>> {
        let shares = lock(&self.shares);
        let living = shares.iter().filter_map(Weak::upgrade);
        living.filter(|share| !share.deaf.load(Ordering::SeqCst)).collect()
    }

    /// Asks the connection that holds most. It is asked again only when still more is used.
    fn call(&self, used: u64) {
        self.next_call.store(used + self.limit / 64 + 1, Ordering::SeqCst);
        if self.used.load(Ordering::SeqCst) < low_mark(self.limit) {
            // What was given back before this was noted has been overwritten.
            self.next_call.store(high_mark(self.limit), Ordering::SeqCst);
        }
        let largest = self.listening();
        let largest = largest.iter().max_by_key(|share| share.held.load(Ordering::Relaxed));
        if let Some(share) = largest {
            share.call(Call::LARGEST);
            if share.deaf.load(Ordering::SeqCst) {
                // It has ended meanwhile, and may not have heard it.
                self.call_others(share);
            }
        }
    }

    /// Asks all but one.
    fn call_others(&self, but: &Arc<Share>) {
        for share in self.listening() {
            if !Arc::ptr_eq(&share, but) {
                share.call(Call::ALL);
            }
        }
    }

    /// Does what becomes possible when so much is used.
    fn relax(&self, used: u64) {
        let high = high_mark(self.limit);
        // Written only when it changes: every connection reads it.
        if used < low_mark(self.limit) && self.next_call.load(Ordering::SeqCst) != high {
            self.next_call.store(high, Ordering::SeqCst);
        }
        if used <= high && self.waiting.load(Ordering::SeqCst) > 0 {
            for share in self.listening() {
                if share.waiting.swap(false, Ordering::SeqCst) {
                    self.waiting.fetch_sub(1, Ordering::SeqCst);
                    share.call(Call::ROOM);
                }
            }
        }
    }
}

impl Share {
    fn call(&self, call: Call) {
        self.called.fetch_or(call.0, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        // It stays registered, also while it is woken: the next call must not find it missing.
        let waker = lock(&self.waker).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// From here on nothing is taken from writers.
fn writers_mark(limit: u64) -> u64 {
    limit - limit / 16
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
