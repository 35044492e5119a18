//! The receiving half.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use quinn::{ReadError, VarInt};
use tunnel_core::{RecvError, RecvStream, StreamCode};

use super::poll_once;
use crate::{
    error::{quic_stream_code, stream_code},
    pressure,
    shared::{Shared, Ticket},
};

/// The receiving half of a stream.
pub(crate) struct RecvHalf {
    slot: Arc<RecvSlot>,
    shared: Arc<Shared>,
    ticket: Option<Arc<Ticket>>,
    /// What came in one packet with the preamble, behind it.
    ahead: Bytes,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Open,
    Ended,
    Failed(RecvError),
}

/// quinn's half, within reach of whoever has to reclaim the memory of a stream that nobody reads.
#[derive(Debug)]
pub(crate) struct RecvSlot {
    inner: Mutex<Inner>,
    id: u64,
    /// [`WAITING`] while the reader waits for bytes, [`RECLAIMED`] once the stream was stopped for its memory, else
    /// the tick at which the reader last took bytes.
    tick: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    quic: quinn::RecvStream,
    /// Whoever waits for the stream's reset, and has to hear of its reclaim.
    resets: Option<Waker>,
}

const WAITING: u64 = u64::MAX;
const RECLAIMED: u64 = u64::MAX - 1;

impl RecvHalf {
    pub(super) fn new(shared: Arc<Shared>, ticket: Arc<Ticket>, quic: quinn::RecvStream) -> Self {
        let slot = Arc::new(RecvSlot {
            id: VarInt::from(quic.id()).into_inner(),
            inner: Mutex::new(Inner { quic, resets: None }),
            tick: AtomicU64::new(shared.readers.as_ref().map_or(0, pressure::Readers::tick)),
        });
        if let Some(readers) = &shared.readers {
            readers.enter(&slot);
        }
        Self {
            slot,
            shared,
            ticket: Some(ticket),
            ahead: Bytes::new(),
            state: State::Open,
        }
    }

    /// The next bytes, which are payload or preamble.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, RecvError>> {
        match &self.state {
            State::Open => {}
            State::Ended => return Poll::Ready(Ok(None)),
            State::Failed(error) => return Poll::Ready(Err(error.clone())),
        }
        if !self.ahead.is_empty() {
            let len = self.ahead.len().min(max);
            return Poll::Ready(Ok(Some(self.ahead.split_to(len))));
        }
        let tick = self.shared.readers.as_ref().map_or(0, pressure::Readers::tick);
        let outcome = ready!(self.slot.poll_read(cx, max, tick));
        Poll::Ready(match outcome {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => {
                self.end(State::Ended);
                Ok(None)
            }
            Err(error) => {
                let error = match error {
                    SlotError::Reclaimed => RecvError::Stopped(StreamCode::MEMORY),
                    SlotError::Read(ReadError::Reset(code)) => RecvError::Reset(stream_code(code)),
                    SlotError::Read(ReadError::ConnectionLost(error)) => {
                        RecvError::Connection(self.shared.error(error))
                    }
                    // None can be: this type knows when the stream is over and reads it in order.
                    SlotError::Read(
                        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected,
                    ) => RecvError::Stopped(StreamCode::INTERNAL),
                };
                self.end(State::Failed(error.clone()));
                Err(error)
            }
        })
    }

    /// Puts bytes that were read in front of what is still to be read.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.ahead.is_empty());
        self.ahead = bytes;
    }

    fn end(&mut self, state: State) {
        self.state = state;
        self.ahead = Bytes::new();
        self.ticket = None;
        if let Some(readers) = &self.shared.readers {
            readers.leave(&self.slot);
        }
    }
}

impl RecvStream for RecvHalf {
    fn poll_recv(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, RecvError>> {
        let bytes = ready!(self.poll_read(cx, max))?;
        let received = bytes.as_ref().map_or(0, Bytes::len) as u64;
        self.shared
            .counters
            .bytes_received
            .fetch_add(received, Ordering::Relaxed);
        Poll::Ready(Ok(bytes))
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<RecvError> {
        let error = match &self.state {
            State::Open => ready!(self.slot.poll_reset(cx)),
            State::Ended => return Poll::Pending,
            State::Failed(error) => return Poll::Ready(error.clone()),
        };
        self.end(State::Failed(error.clone()));
        Poll::Ready(error)
    }

    fn stop(&mut self, code: StreamCode) {
        if matches!(self.state, State::Open) {
            // It fails only for streams that are over.
            let _ = self.slot.lock().quic.stop(quic_stream_code(code));
            self.end(State::Failed(RecvError::Stopped(code)));
        }
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.stop(StreamCode::CANCELLED);
    }
}

impl fmt::Debug for RecvHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvHalf")
            .field("stream", &self.slot.id)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

enum SlotError {
    Reclaimed,
    Read(ReadError),
}

impl RecvSlot {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The tick at which the reader last took bytes, unless it waits for more or there is nothing to reclaim.
    pub(crate) fn stalled_since(&self) -> Option<u64> {
        let tick = self.tick.load(Ordering::Relaxed);
        (tick < RECLAIMED).then_some(tick)
    }

    /// Stops the stream and drops what it holds, unless its reader has come back since `tick`. Says whether it did.
    pub(crate) fn reclaim(&self, tick: u64) -> bool {
        let mut inner = self.lock();
        if self.stalled_since() != Some(tick) {
            return false;
        }
        self.tick.store(RECLAIMED, Ordering::Relaxed);
        let stopped = inner.quic.stop(quic_stream_code(StreamCode::MEMORY)).is_ok();
        let waiting = inner.resets.take();
        drop(inner);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
        stopped
    }

    fn poll_read(&self, cx: &mut Context<'_>, max: usize, tick: u64) -> Poll<Result<Option<Bytes>, SlotError>> {
        let mut inner = self.lock();
        if self.tick.load(Ordering::Relaxed) == RECLAIMED {
            return Poll::Ready(Err(SlotError::Reclaimed));
        }
        let read = poll_once(cx, inner.quic.read_chunk(max, true));
        self.tick
            .store(if read.is_pending() { WAITING } else { tick }, Ordering::Relaxed);
        read.map(|chunk| Ok(chunk.map_err(SlotError::Read)?.map(|chunk| chunk.bytes)))
    }

    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<RecvError> {
        let mut inner = self.lock();
        if self.tick.load(Ordering::Relaxed) == RECLAIMED {
            return Poll::Ready(RecvError::Stopped(StreamCode::MEMORY));
        }
        match &mut inner.resets {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        match ready!(poll_once(cx, inner.quic.received_reset())) {
            Ok(Some(code)) => Poll::Ready(RecvError::Reset(stream_code(code))),
            // The stream or the connection is over, which reading tells behind what has arrived.
            Ok(None) | Err(_) => Poll::Pending,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
