//! The two halves of a stream.
//!
//! They move [`Bytes`], so that crossing the seam copies nothing, and they are polled, so that they are object-safe
//! and need no allocation for each chunk. They say what `AsyncRead` and `AsyncWrite` cannot: a reset apart from a
//! clean end, a stop, and both with a code. Where only bytes matter, [`Duplex::into_io`] adapts.

mod io;
#[cfg(test)]
pub(crate) mod pair;

use std::{
    fmt,
    future::poll_fn,
    task::{Context, Poll},
};

use bytes::Bytes;
use tunnel_proto::StreamCode;

pub use self::io::DuplexIo;
use crate::error::{RecvError, SendError};

/// The sending half of a stream.
///
/// Dropping it before [`poll_finish`](Self::poll_finish) has returned `Ok` resets the stream with
/// [`StreamCode::CANCELLED`]: a peer never takes a truncated stream for a complete one.
pub trait SendStream: fmt::Debug + Send {
    /// Takes bytes off the front of `data` and queues them, as many as credit allows; gives their number, which is
    /// above zero unless `data` is empty. Pending without credit, or while too much is queued.
    ///
    /// # Cancel safety
    ///
    /// Bytes are either still in `data` or queued.
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize, SendError>>;

    /// Ready when it is time to fetch bytes for [`poll_send`](Self::poll_send), with how many it is likely to take, at least
    /// one: who can leave them where they are until then, as a socket can, asks first, and holds nothing meanwhile. A
    /// promise to take them it is not. A carrier that does not know says [`usize::MAX`].
    ///
    /// It wakes the task that `poll_send` would wake, in its place; like that, it fails when no bytes are taken any more.
    ///
    /// # Cancel safety
    ///
    /// To ask and then not to send takes nothing from other streams.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SendError>>;

    /// Asks that everything queued be put on the wire soon; ready when nothing of this stream waits in a buffer of
    /// this process that would need another call to move on. It does not wait for the peer.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>>;

    /// Ends the stream cleanly behind everything queued. Ready when the end is queued; the carrier delivers it, and
    /// dropping the half afterwards is no reset. Calling it again after `Ok` gives `Ok`.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>>;

    /// Ready with the code when the peer's receiver has stopped the stream, and with an error when the connection
    /// ends. After a finish it may be pending for ever.
    ///
    /// One task at a time: a later call replaces the waker of an earlier one. It does not disturb the wakers of
    /// [`poll_send`](Self::poll_send).
    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Result<StreamCode, SendError>>;

    /// Ends the stream at once and drops what is queued; the peer's receiver sees the code. Does nothing after a
    /// finish that the peer has seen, or a reset.
    fn reset(&mut self, code: StreamCode);
}

/// The receiving half of a stream.
///
/// Dropping it before the clean end or an error stops the stream with [`StreamCode::CANCELLED`].
pub trait RecvStream: fmt::Debug + Send {
    /// Gives the next bytes, at least one and at most `max` (which must not be zero), or `None` at the peer's clean
    /// end and for nothing else. Taking bytes is what returns credit to the peer. When the connection has ended, what
    /// had arrived before comes first, and then the error.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the caller goes away while it is pending.
    fn poll_recv(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, RecvError>>;

    /// Ready when the peer has reset the stream, or this side has stopped it, for a caller that has no room for the bytes
    /// before that: whoever waits for a stuck socket must learn that nobody waits for it any more. Pending otherwise;
    /// the end of the connection, too, is left to [`poll_recv`](Self::poll_recv), which gives what had arrived first.
    ///
    /// One task at a time, and it may replace the waker of `poll_recv`, as that may replace its.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<RecvError>;

    /// Asks the peer to send no more and drops what has arrived; the peer's sender sees the code. Does nothing after
    /// the clean end, a reset or an earlier stop.
    fn stop(&mut self, code: StreamCode);
}

/// Both halves of a stream.
#[derive(Debug)]
pub struct Duplex {
    /// What this side sends.
    pub tx: Box<dyn SendStream>,
    /// What this side receives.
    pub rx: Box<dyn RecvStream>,
}

impl Duplex {
    /// Adapts the stream to `AsyncRead + AsyncWrite`: shutdown is a true half-close, a reset reads as
    /// [`ConnectionReset`](std::io::ErrorKind::ConnectionReset), a stop writes as
    /// [`BrokenPipe`](std::io::ErrorKind::BrokenPipe).
    #[must_use]
    pub fn into_io(self) -> DuplexIo {
        DuplexIo::new(self)
    }
}

impl dyn SendStream + '_ {
    /// Queues all of `data`.
    ///
    /// # Cancel safety
    ///
    /// When dropped early, some of `data` may have been queued.
    pub async fn send_all(&mut self, mut data: Bytes) -> Result<(), SendError> {
        while !data.is_empty() {
            poll_fn(|cx| self.poll_send(cx, &mut data)).await?;
        }
        Ok(())
    }

    /// [`poll_flush`](SendStream::poll_flush) as a future; cancel safe.
    pub async fn flush(&mut self) -> Result<(), SendError> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// [`poll_finish`](SendStream::poll_finish) as a future; cancel safe.
    pub async fn finish(&mut self) -> Result<(), SendError> {
        poll_fn(|cx| self.poll_finish(cx)).await
    }

    /// [`poll_stopped`](SendStream::poll_stopped) as a future; cancel safe.
    pub async fn stopped(&mut self) -> Result<StreamCode, SendError> {
        poll_fn(|cx| self.poll_stopped(cx)).await
    }
}

impl dyn RecvStream + '_ {
    /// [`poll_recv`](RecvStream::poll_recv) as a future; cancel safe.
    pub async fn recv(&mut self, max: usize) -> Result<Option<Bytes>, RecvError> {
        poll_fn(|cx| self.poll_recv(cx, max)).await
    }
}
