//! Who may queue how much while the peer has not acknowledged what was queued before.
//!
//! quinn has a send window of its own, but wakes everybody who waits for it whenever a little of it becomes free: with
//! a thousand streams that costs more than what they send, and goes to whoever happens to be first. Here bytes take
//! places, which come back when quinn lets go of the bytes, and those who wait get them in their order. Streams of which
//! little is under way have places of their own, so that they never wait for the others.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// The most that one call queues: a stream's turn. quinn keeps a chunk until all of it is acknowledged.
const MAX_CHUNK: usize = 64 * 1024;
/// A stream is sparse while no more than this is under way: preambles, handshakes of what is tunnelled and small
/// exchanges go out ahead of streams that have more. Less than the smallest stream window, so a sparse stream never
/// waits for its reader.
const SPARSE: usize = 8 * 1024;
/// The part of all places that sparse streams have for themselves.
const SPARSE_PART: usize = 8;

/// What a fast path carries, in bytes a second: 1.6 Gbit/s.
const FAST: u64 = 200_000_000;
/// What hosts at both ends of a short path work on at once, in bytes.
const BATCHES: u64 = 4 * 1024 * 1024;
/// What the busy streams have room for in any case, in bytes.
const LEAST: usize = 1024 * 1024;
/// After how many queued bytes the room is fitted to the path again.
const FIT_EVERY: usize = 512 * 1024;

/// The places of a connection.
#[derive(Debug)]
pub(crate) struct Room {
    busy: Places,
    sparse: Places,
    fit: Mutex<Fit>,
    /// Bytes queued since it was last fitted.
    queued: AtomicUsize,
}

/// How many places the busy streams have.
#[derive(Debug)]
struct Fit {
    least: usize,
    most: usize,
    /// Those that are there, taken or not.
    count: usize,
}

#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    /// The most that one stream takes at once.
    most: usize,
}

impl Room {
    /// Room for `window` bytes.
    pub(crate) fn new(window: u64) -> Self {
        let window = usize::try_from(window)
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        let sparse = window / SPARSE_PART;
        let most = window - sparse;
        let least = most.min(LEAST);
        Self {
            busy: Places::new(least),
            sparse: Places::new(sparse),
            fit: Mutex::new(Fit {
                least,
                most,
                count: least,
            }),
            queued: AtomicUsize::new(0),
        }
    }

    /// Counts bytes that a stream has queued, and says whether it is time to [fit](Self::fit).
    pub(crate) fn count(&self, bytes: usize) -> bool {
        let before = self.queued.fetch_add(bytes, Ordering::Relaxed);
        before / FIT_EVERY != (before + bytes) / FIT_EVERY
    }

    /// Fits the busy streams' places to the path: to a congestion window of so many bytes and a smoothed round trip.
    pub(crate) fn fit(&self, congestion_window: u64, round_trip: Duration) {
        // Nothing panics while it is held.
        let mut fit = self.fit.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = fitting(congestion_window, round_trip).clamp(fit.least, fit.most);
        if wanted > fit.count {
            self.busy.free.add_permits(wanted - fit.count);
            fit.count = wanted;
        } else {
            // Those that are taken stay until next time.
            fit.count -= self.busy.free.forget_permits(fit.count - wanted);
        }
    }

    /// Nobody gets anything any more, and nobody waits.
    pub(crate) fn close(&self) {
        self.busy.free.close();
        self.sparse.free.close();
    }
}

/// Room for twice what may be under way, so that there is always something to send.
///
/// But a congestion window grows until packets are lost, which within a host is never: it says nothing where buffers are
/// large, and all that is under way there is ahead of whatever comes next. So no more than a fast path carries in a round
/// trip either, and a little for hosts that work in batches. The round trip holds the queue of what is under way, but as
/// long as the path is faster than that, the one does not keep the other up.
fn fitting(congestion_window: u64, round_trip: Duration) -> usize {
    let carried = u128::from(FAST) * round_trip.as_nanos() / 1_000_000_000;
    let carried = u64::try_from(carried).unwrap_or(u64::MAX).saturating_add(BATCHES);
    usize::try_from(congestion_window.saturating_mul(2).min(carried)).unwrap_or(usize::MAX)
}

impl Places {
    fn new(count: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            most: MAX_CHUNK.min(count),
        }
    }
}

type Wait = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send + Sync>>;

/// What one stream has of it.
#[derive(Default)]
pub(crate) struct Share {
    /// Bytes that quinn has not let go of.
    held: Arc<AtomicUsize>,
    wait: Option<Wait>,
}

impl Share {
    /// Whether little of the stream is under way.
    pub(crate) fn is_sparse(&self) -> bool {
        self.held.load(Ordering::Relaxed) <= SPARSE
    }

    /// Waits for room for some of `data`, in order of the calls. Fails when the connection has ended.
    pub(crate) fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        room: &Room,
        data: &Bytes,
    ) -> Poll<Result<Chunk, AcquireError>> {
        let wait = match &mut self.wait {
            Some(wait) => wait,
            None => {
                let places = if self.held.load(Ordering::Relaxed) + data.len() <= SPARSE {
                    &room.sparse
                } else {
                    &room.busy
                };
                // Fits, for a chunk does.
                let count = u32::try_from(data.len().min(places.most)).unwrap_or(u32::MAX);
                let free = Arc::clone(&places.free);
                if let Ok(permit) = Arc::clone(&free).try_acquire_many_owned(count) {
                    return Poll::Ready(Ok(self.chunk(data, permit)));
                }
                self.wait.insert(Box::pin(free.acquire_many_owned(count)))
            }
        };
        let permit = ready!(wait.as_mut().poll(cx));
        self.wait = None;
        Poll::Ready(Ok(self.chunk(data, permit?)))
    }

    /// Waits no longer.
    pub(crate) fn give_up(&mut self) {
        self.wait = None;
    }

    fn chunk(&self, data: &Bytes, mut permit: OwnedSemaphorePermit) -> Chunk {
        // A caller may come back with less than it waited for.
        let len = permit.num_permits().min(data.len());
        drop(permit.split(permit.num_permits() - len));
        self.held.fetch_add(len, Ordering::Relaxed);
        Chunk(Arc::new(Placed {
            bytes: data.slice(..len),
            permit: Mutex::new(permit),
            held: Arc::clone(&self.held),
        }))
    }
}

/// Bytes that have their places, until the last reference to them is gone.
pub(crate) struct Chunk(Arc<Placed>);

struct Placed {
    bytes: Bytes,
    permit: Mutex<OwnedSemaphorePermit>,
    held: Arc<AtomicUsize>,
}

impl Chunk {
    /// The bytes; their places come back when the last reference to them is gone.
    pub(crate) fn bytes(&self) -> Bytes {
        Bytes::from_owner(Owner(Arc::clone(&self.0)))
    }

    /// Only `len` of the bytes were queued.
    pub(crate) fn truncate(&self, len: usize) {
        self.0.free(len);
    }
}

impl Placed {
    /// Keeps `len` places.
    fn free(&self, len: usize) {
        // Nothing panics while it is held.
        let mut permit = self.permit.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = permit.num_permits().saturating_sub(len);
        if rest > 0 {
            self.held.fetch_sub(rest, Ordering::Relaxed);
            drop(permit.split(rest));
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        self.free(0);
    }
}

struct Owner(Arc<Placed>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share")
            .field("held", &self.held)
            .field("waits", &self.wait.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const WINDOW: usize = 8 * LEAST;

    fn take(share: &mut Share, room: &Room, len: usize) -> Option<Chunk> {
        let data = Bytes::from(vec![1; len]);
        match share.poll_take(&mut Context::from_waker(Waker::noop()), room, &data) {
            Poll::Ready(chunk) => Some(chunk.unwrap()),
            Poll::Pending => None,
        }
    }

    /// Takes all that busy streams can get.
    fn fill(room: &Room) -> Vec<Chunk> {
        std::iter::from_fn(|| take(&mut Share::default(), room, MAX_CHUNK)).collect()
    }

    #[test]
    fn places_come_back_with_the_last_reference_and_go_to_who_waits_longest() {
        let room = Room::new(WINDOW as u64);
        let mut chunks = fill(&room);
        assert_eq!(chunks.len(), LEAST / MAX_CHUNK);
        let (mut first, mut second) = (Share::default(), Share::default());
        assert!(take(&mut first, &room, MAX_CHUNK).is_none());
        assert!(take(&mut second, &room, MAX_CHUNK).is_none());
        let queued = chunks.pop().map(|chunk| chunk.bytes().split_off(10));
        assert!(take(&mut first, &room, MAX_CHUNK).is_none(), "a reference is left");
        drop(queued);
        assert!(take(&mut second, &room, MAX_CHUNK).is_none(), "it is not its turn");
        let chunk = take(&mut first, &room, MAX_CHUNK).unwrap();
        drop(chunk);
        assert!(take(&mut second, &room, MAX_CHUNK).is_some());
    }

    #[test]
    fn what_was_not_queued_comes_back_at_once() {
        let room = Room::new(WINDOW as u64);
        let chunks = fill(&room);
        let queued: Vec<_> = chunks
            .iter()
            .map(|chunk| {
                let bytes = chunk.bytes().split_to(1000);
                chunk.truncate(bytes.len());
                bytes
            })
            .collect();
        drop(chunks);
        assert_eq!(room.busy.free.available_permits(), LEAST - queued.len() * 1000);
        drop(queued);
        assert_eq!(room.busy.free.available_permits(), LEAST);
    }

    #[test]
    fn a_stream_that_gives_up_leaves_its_turn_to_the_next() {
        let room = Room::new(WINDOW as u64);
        let mut chunks = fill(&room);
        let (mut first, mut second) = (Share::default(), Share::default());
        assert!(take(&mut first, &room, MAX_CHUNK).is_none());
        assert!(take(&mut second, &room, MAX_CHUNK).is_none());
        first.give_up();
        chunks.pop();
        assert!(take(&mut second, &room, MAX_CHUNK).is_some());
    }

    #[test]
    fn a_sparse_stream_does_not_wait_for_busy_ones() {
        let room = Room::new(WINDOW as u64);
        let _busy = fill(&room);
        let mut share = Share::default();
        let first = take(&mut share, &room, SPARSE).unwrap();
        assert!(share.is_sparse());
        assert!(take(&mut share, &room, 1).is_none(), "it is busy now");
        share.give_up();
        drop(first);
        assert!(take(&mut share, &room, 1).is_some());
    }

    #[test]
    fn whoever_waits_learns_of_the_end() {
        let room = Room::new(WINDOW as u64);
        let _busy = fill(&room);
        let mut share = Share::default();
        assert!(take(&mut share, &room, MAX_CHUNK).is_none());
        room.close();
        let data = Bytes::from_static(b"x");
        let end = share.poll_take(&mut Context::from_waker(Waker::noop()), &room, &data);
        assert!(matches!(end, Poll::Ready(Err(_))));
    }

    #[test]
    fn room_grows_with_the_path_and_shrinks_with_what_comes_back() {
        let room = Room::new(WINDOW as u64);
        let busy = WINDOW - WINDOW / SPARSE_PART;
        room.fit(u64::MAX, Duration::from_secs(1));
        let chunks = fill(&room);
        assert_eq!(chunks.len(), busy / MAX_CHUNK, "no more than the window");
        room.fit(0, Duration::ZERO);
        assert_eq!(room.fit.lock().unwrap().count, busy, "all of it is taken");
        drop(chunks);
        room.fit(0, Duration::ZERO);
        assert_eq!(fill(&room).len(), LEAST / MAX_CHUNK);
    }

    #[test]
    fn a_short_path_gets_no_more_for_a_window_that_nothing_bounds() {
        assert!(fitting(u64::MAX, Duration::from_micros(200)) < 5 * LEAST);
        assert!(fitting(u64::MAX, Duration::from_millis(100)) > 20_000_000);
        assert_eq!(fitting(100_000, Duration::from_millis(100)), 200_000);
    }
}
