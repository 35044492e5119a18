//! Who may queue how much while the peer has not acknowledged what was queued before.
//!
//! quinn has a send window of its own, but wakes everybody who waits for it whenever a little of it becomes free: with
//! a thousand streams that costs more than what they send, and goes to whoever happens to be first. Here bytes take
//! [places](places), which come back when quinn lets go of the bytes, and those who wait get them in their order. Streams
//! of which little is under way have places of their own, so that they never wait for the others.

mod places;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;

pub(crate) use self::places::Closed;
use self::places::Places;

/// A stream is sparse while no more than this is under way: preambles, handshakes of what is tunnelled and small
/// exchanges go out ahead of streams that have more. Less than the smallest stream window, so a sparse stream never
/// waits for its reader.
const SPARSE: usize = 8 * 1024;
/// The part of all places that sparse streams have for themselves.
const SPARSE_PART: usize = 8;

/// What a fast path carries, in bytes a second: 1.6 Gbit/s.
const FAST: u64 = 200_000_000;
/// What hosts at both ends of a short path work on at once, in bytes.
const BATCHES: u64 = 2 * 1024 * 1024;
/// What the busy streams have room for in any case, in bytes.
const LEAST: usize = 1024 * 1024;
/// After how many queued bytes the room is fitted to the path again.
const FIT_EVERY: usize = 512 * 1024;

/// The places of a connection.
#[derive(Debug)]
pub(crate) struct Room {
    busy: Arc<Places>,
    sparse: Arc<Places>,
    /// How many there are for busy streams at least, and at most.
    least: usize,
    most: usize,
    /// Bytes queued so far.
    queued: AtomicUsize,
}

impl Room {
    /// Room for `window` bytes.
    pub(crate) fn new(window: u64) -> Self {
        let window = usize::try_from(window).unwrap_or(usize::MAX);
        let sparse = window / SPARSE_PART;
        let most = window - sparse;
        let least = most.min(LEAST);
        Self {
            busy: Arc::new(Places::new(least)),
            sparse: Arc::new(Places::new(sparse)),
            least,
            most,
            queued: AtomicUsize::new(0),
        }
    }

    /// Counts bytes that a stream has queued, and says whether it is time to [fit](Self::fit).
    pub(crate) fn count(&self, bytes: usize) -> bool {
        let before = self.queued.fetch_add(bytes, Ordering::Relaxed);
        before / FIT_EVERY != before.wrapping_add(bytes) / FIT_EVERY
    }

    /// Fits the busy streams' places to the path: to a congestion window of so many bytes and a smoothed round trip.
    pub(crate) fn fit(&self, congestion_window: u64, round_trip: Duration) {
        let count = fitting(congestion_window, round_trip).clamp(self.least, self.most);
        self.busy.resize(count);
    }

    /// Nobody gets anything any more, and nobody waits.
    pub(crate) fn close(&self) {
        self.busy.close();
        self.sparse.close();
    }
}

/// Room for three times what may be under way, so that there is always something to send: bytes keep their places until
/// all before them in their stream are acknowledged, which takes another round trip for each time that one is lost.
///
/// But a congestion window grows until packets are lost, which within a host is never: it says nothing where buffers are
/// large, and all that is under way there is ahead of whatever comes next. So no more than a fast path carries in a round
/// trip either, and a little for hosts that work in batches. The round trip holds the queue of what is under way, but as
/// long as the path is faster than that, the one does not keep the other up.
fn fitting(congestion_window: u64, round_trip: Duration) -> usize {
    let carried = u128::from(FAST) * round_trip.as_nanos() / 1_000_000_000;
    let carried = u64::try_from(carried).unwrap_or(u64::MAX).saturating_add(BATCHES);
    usize::try_from(congestion_window.saturating_mul(3).min(carried)).unwrap_or(usize::MAX)
}

/// What one stream has of it. Dropping it gives up a wait; what is under way keeps its places.
#[derive(Debug)]
pub(crate) struct Share {
    room: Arc<Room>,
    /// Bytes that quinn has not let go of.
    held: Arc<AtomicUsize>,
    /// Whether it is the sparse ones' places that it waits for, and its turn there.
    wait: Option<(bool, u64)>,
}

impl Share {
    pub(crate) fn new(room: Arc<Room>) -> Self {
        Self {
            room,
            held: Arc::default(),
            wait: None,
        }
    }

    /// Whether little of the stream is under way.
    pub(crate) fn is_sparse(&self) -> bool {
        self.held.load(Ordering::Relaxed) <= SPARSE
    }

    /// Waits for room for some of `data`, in order of the calls. Fails when the connection has ended.
    pub(crate) fn poll_take(&mut self, cx: &mut Context<'_>, data: &Bytes) -> Poll<Result<Chunk, Closed>> {
        let is_sparse = self.held.load(Ordering::Relaxed).saturating_add(data.len()) <= SPARSE;
        if self.wait.is_some_and(|(sparse, _)| sparse != is_sparse) {
            self.give_up();
        }
        let places = self.places(is_sparse);
        let mut ticket = self.wait.map(|(_, ticket)| ticket);
        let taken = places.poll_take(cx, &mut ticket, data.len());
        self.wait = ticket.map(|ticket| (is_sparse, ticket));
        let len = ready!(taken)?;
        self.held.fetch_add(len, Ordering::Relaxed);
        Poll::Ready(Ok(Chunk(Arc::new(Placed {
            bytes: data.slice(..len),
            kept: Mutex::new(len),
            places,
            held: Arc::clone(&self.held),
        }))))
    }

    /// Waits no longer.
    pub(crate) fn give_up(&mut self) {
        if let Some((is_sparse, ticket)) = self.wait.take() {
            self.places(is_sparse).give_up(ticket);
        }
    }

    fn places(&self, is_sparse: bool) -> Arc<Places> {
        Arc::clone(if is_sparse { &self.room.sparse } else { &self.room.busy })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Bytes that have their places, until the last reference to them is gone.
pub(crate) struct Chunk(Arc<Placed>);

struct Placed {
    bytes: Bytes,
    /// How many places they have.
    kept: Mutex<usize>,
    places: Arc<Places>,
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
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = kept.saturating_sub(len);
        *kept -= rest;
        drop(kept);
        if rest > 0 {
            self.held.fetch_sub(rest, Ordering::Relaxed);
            self.places.give_back(rest);
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::{places::TURN, *};

    const WINDOW: u64 = 8 << 20;

    fn room() -> Arc<Room> {
        Arc::new(Room::new(WINDOW))
    }

    fn take(share: &mut Share, len: usize) -> Option<Chunk> {
        let data = Bytes::from(vec![1; len]);
        match share.poll_take(&mut Context::from_waker(Waker::noop()), &data) {
            Poll::Ready(chunk) => Some(chunk.unwrap()),
            Poll::Pending => None,
        }
    }

    /// Takes all that busy streams can get.
    fn fill(room: &Arc<Room>) -> Vec<Chunk> {
        std::iter::from_fn(|| take(&mut Share::new(Arc::clone(room)), TURN)).collect()
    }

    #[test]
    fn places_come_back_with_the_last_reference() {
        let room = room();
        let mut chunks = fill(&room);
        assert_eq!(chunks.len(), LEAST / TURN);
        let mut share = Share::new(Arc::clone(&room));
        let queued = chunks.pop().map(|chunk| chunk.bytes().split_off(10));
        assert!(take(&mut share, TURN).is_none(), "a reference is left");
        drop(queued);
        assert!(take(&mut share, TURN).is_some());
    }

    #[test]
    fn what_was_not_queued_comes_back_at_once() {
        let room = room();
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
        assert_eq!(room.busy.free(), LEAST - queued.len() * 1000);
        drop(queued);
        assert_eq!(room.busy.free(), LEAST);
    }

    #[test]
    fn a_sparse_stream_does_not_wait_for_busy_ones() {
        let room = room();
        let _busy = fill(&room);
        let mut share = Share::new(Arc::clone(&room));
        let first = take(&mut share, SPARSE).unwrap();
        assert!(share.is_sparse());
        assert!(take(&mut share, 1).is_none(), "it is busy now");
        drop(first);
        assert!(take(&mut share, 1).is_some());
    }

    #[test]
    fn whoever_waits_learns_of_the_end() {
        let room = room();
        let _busy = fill(&room);
        let mut share = Share::new(Arc::clone(&room));
        assert!(take(&mut share, TURN).is_none());
        room.close();
        let data = Bytes::from_static(b"x");
        let end = share.poll_take(&mut Context::from_waker(Waker::noop()), &data);
        assert!(matches!(end, Poll::Ready(Err(Closed))));
    }

    #[test]
    fn room_grows_with_the_path_and_shrinks_with_what_comes_back() {
        let room = room();
        let window = usize::try_from(WINDOW).unwrap();
        let busy = window - window / SPARSE_PART;
        room.fit(u64::MAX, Duration::from_secs(1));
        let mut chunks = fill(&room);
        assert_eq!(chunks.len(), busy / TURN, "no more than the window");
        room.fit(0, Duration::ZERO);
        chunks.truncate(LEAST / TURN);
        assert!(fill(&room).is_empty(), "as much as there is now is taken");
        drop(chunks);
        assert_eq!(fill(&room).len(), LEAST / TURN);
    }

    #[test]
    fn a_short_path_gets_no_more_for_a_window_that_nothing_bounds() {
        assert!(fitting(u64::MAX, Duration::from_micros(200)) < 5 * LEAST);
        assert!(fitting(u64::MAX, Duration::from_millis(100)) > 20_000_000);
        assert_eq!(fitting(100_000, Duration::from_millis(100)), 300_000);
    }
}
