//! One direction of a stream.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tunnel_core::{RecvError, SendError, StreamCode};

/// One direction of a stream, as both ends see it.
///
/// ```text
/// sender ──▶ queued ──wire──▶ arrived ──▶ receiver
///        ◀── credit = window - queued - arrived ──
/// ```
#[derive(Debug)]
pub(super) struct Pipe {
    window: usize,
    queued: Buffer,
    arrived: Buffer,
    end: End,
    sender: Option<Waker>,
    stop_watcher: Option<Waker>,
    receiver: Option<Waker>,
}

/// How a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It goes on.
    Open,
    /// The sender finished it; the receiver has not seen all of it.
    Finished,
    /// The sender finished it and the receiver has seen the end.
    Complete,
    /// The sender reset it.
    Reset(StreamCode),
    /// The receiver stopped it.
    Stopped(StreamCode),
}

impl Pipe {
    pub(super) fn new(window: usize) -> Self {
        Self {
            window,
            queued: Buffer::default(),
            arrived: Buffer::default(),
            end: End::Open,
            sender: None,
            stop_watcher: None,
            receiver: None,
        }
    }

    /// How it ended, if it did.
    pub(super) fn end(&self) -> End {
        self.end
    }

    /// Whether neither end will do anything more with it.
    pub(super) fn is_over(&self) -> bool {
        !matches!(self.end, End::Open | End::Finished)
    }

    /// How many bytes the sender may still send.
    pub(super) fn credit(&self) -> usize {
        self.window - self.queued.len - self.arrived.len
    }

    /// How many bytes wait for the wire.
    pub(super) fn queued(&self) -> usize {
        self.queued.len
    }

    /// Takes bytes from the sender, as many as credit allows. `up` says whether what the peer did can be seen.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        up: bool,
    ) -> Poll<Result<usize, SendError>> {
        match self.end {
            End::Open => {}
            End::Finished | End::Complete => return Poll::Ready(Err(SendError::Finished)),
            End::Reset(code) => return Poll::Ready(Err(SendError::Reset(code))),
            End::Stopped(code) if up => return Poll::Ready(Err(SendError::Stopped(code))),
            End::Stopped(_) => return pend(&mut self.sender, cx),
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let taken = self.credit().min(data.len());
        if taken == 0 {
            return pend(&mut self.sender, cx);
        }
        self.queued.push(data.split_to(taken));
        Poll::Ready(Ok(taken))
    }

    /// Ends it behind what is queued.
    pub(super) fn finish(&mut self, up: bool) -> Result<(), SendError> {
        match self.end {
            End::Open => {
                self.end = End::Finished;
                wake(&mut self.receiver);
                Ok(())
            }
            End::Finished | End::Complete => Ok(()),
            End::Reset(code) => Err(SendError::Reset(code)),
            End::Stopped(code) if up => Err(SendError::Stopped(code)),
            End::Stopped(_) => Ok(()),
        }
    }

    /// Waits for the receiver's stop.
    pub(super) fn poll_stopped(&mut self, cx: &mut Context<'_>, up: bool) -> Poll<Result<StreamCode, SendError>> {
        match self.end {
            End::Stopped(code) if up => Poll::Ready(Ok(code)),
            End::Reset(code) => Poll::Ready(Err(SendError::Reset(code))),
            _ => pend(&mut self.stop_watcher, cx),
        }
    }

    /// Ends it from the sender's side, dropping what is under way.
    pub(super) fn reset(&mut self, code: StreamCode) {
        self.abort(End::Reset(code));
    }

    /// Ends it from the receiver's side, dropping what is under way.
    pub(super) fn stop(&mut self, code: StreamCode) {
        self.abort(End::Stopped(code));
    }

    fn abort(&mut self, end: End) {
        if !self.is_over() {
            self.end = end;
            self.queued = Buffer::default();
            self.arrived = Buffer::default();
            self.wake();
        }
    }

    /// Carries at most `max` queued bytes over the wire; gives their number.
    pub(super) fn carry(&mut self, max: usize) -> usize {
        let before = self.arrived.len;
        while let Some(bytes) = self.queued.take(max - (self.arrived.len - before)) {
            self.arrived.push(bytes);
        }
        wake(&mut self.receiver);
        self.arrived.len - before
    }

    /// Gives the receiver what has arrived, or the end.
    pub(super) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        up: bool,
    ) -> Poll<Result<Option<Bytes>, RecvError>> {
        if let Some(bytes) = self.arrived.take(max) {
            wake(&mut self.sender);
            return Poll::Ready(Ok(Some(bytes)));
        }
        match self.end {
            End::Complete => Poll::Ready(Ok(None)),
            End::Finished if up && self.queued.len == 0 => {
                self.end = End::Complete;
                wake(&mut self.stop_watcher);
                Poll::Ready(Ok(None))
            }
            End::Reset(code) if up => Poll::Ready(Err(RecvError::Reset(code))),
            End::Stopped(code) => Poll::Ready(Err(RecvError::Stopped(code))),
            _ => pend(&mut self.receiver, cx),
        }
    }

    /// Waits for the sender's reset.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>, up: bool) -> Poll<RecvError> {
        match self.end {
            End::Reset(code) if up => Poll::Ready(RecvError::Reset(code)),
            End::Stopped(code) => Poll::Ready(RecvError::Stopped(code)),
            _ => pend(&mut self.receiver, cx),
        }
    }

    /// Lets everybody who waits look again.
    pub(super) fn wake(&mut self) {
        wake(&mut self.sender);
        wake(&mut self.stop_watcher);
        wake(&mut self.receiver);
    }
}

/// A queue of bytes that knows its length.
#[derive(Debug, Default)]
struct Buffer {
    chunks: VecDeque<Bytes>,
    len: usize,
}

impl Buffer {
    fn push(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        self.chunks.push_back(bytes);
    }

    /// At least one and at most `max` bytes from the front.
    fn take(&mut self, max: usize) -> Option<Bytes> {
        let front = self.chunks.front_mut().filter(|_| max > 0)?;
        let bytes = front.split_to(front.len().min(max));
        if front.is_empty() {
            self.chunks.pop_front();
        }
        self.len -= bytes.len();
        Some(bytes)
    }
}

/// Remembers who waits.
pub(super) fn pend<T>(slot: &mut Option<Waker>, cx: &Context<'_>) -> Poll<T> {
    *slot = Some(cx.waker().clone());
    Poll::Pending
}

/// Wakes who waits.
pub(super) fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}
