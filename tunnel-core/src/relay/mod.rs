//! The relay: moves bytes between a socket and a stream, both ways at once, in one future.
//!
//! What each side says goes on to the other as it was meant:
//!
//! | it happens | it becomes |
//! | --- | --- |
//! | the socket ends | the stream's clean end; the other direction goes on |
//! | the stream ends cleanly | the socket's sending side is shut down; the other direction goes on |
//! | reading the socket fails | a reset and a stop of the stream |
//! | writing the socket fails | a stop; what can still be read goes on, and behind it a reset, or the clean end if the socket's other end had only given up reading (EPIPE) |
//! | the peer stops the stream | the socket is read no more; when the other direction has ended cleanly already, the socket is reset |
//! | the peer resets the stream | the socket is reset |
//! | the connection ends | what had arrived goes on, and behind it a reset, or the clean end if that had arrived |
//! | a limit passes, this process ends it, or the relay is dropped | all of that at once: reset and stop of the stream, reset of the socket |
//!
//! The socket is read, and its end seen, while the stream has room.
//!
//! A socket cannot say "stop": shutting down its reading side tells its other end nothing. So a stopped direction just
//! waits for the other.

mod buffer;
mod crowd;
mod hold;
mod idle;
mod meter;
mod receiving;
mod report;
mod sending;
mod socket;
mod turn;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tunnel_proto::StreamCode;

use self::{
    hold::Hold,
    idle::Limits,
    receiving::{Receiving, ReceivingError},
    sending::{Sending, SendingError},
    turn::Turn,
};
pub use self::{
    meter::{Counters, Meter},
    report::{End, Party, RelayReport},
    socket::Socket,
};
use crate::{
    error::{RecvError, SendError},
    stream::Duplex,
};

/// How long a relay reads on for nothing, so that its last bytes arrive: a few round trips, and a retransmission.
const PARTING: Duration = Duration::from_secs(2);

/// How a relay behaves.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RelayOptions {
    /// Who is at the other end of the socket, for the report.
    pub party: Party,
    /// Ends the relay when no byte has moved in either direction for this long. No limit by default: a quiet stream
    /// costs little, and only its users know how long they may be quiet.
    pub idle_limit: Option<Duration>,
    /// Ends the relay when one direction has ended and no byte has moved in the other for this long. No limit by
    /// default, as for TCP itself: a request may be followed by a shutdown and hours of work.
    pub half_close_limit: Option<Duration>,
    /// Holds back what the stream gives, up to 64 KiB, and its clean end, until the stream has taken something of the socket,
    /// or the socket has ended, or this long has passed since [`relay`] was called; a reset goes on at once. None by default:
    /// it is for a frontend that has just told its client over the same socket that the stream is open, so that no byte of the
    /// stream arrives together with that.
    pub hold: Option<Duration>,
    /// Ends the relay at once, with [`StreamCode::SHUTDOWN`].
    pub shutdown: Option<CancellationToken>,
    /// Is told of the bytes as they pass.
    pub meter: Option<Arc<dyn Meter>>,
}

impl RelayOptions {
    /// No limits, no hold, no shutdown, no meter.
    #[must_use]
    pub fn new(party: Party) -> Self {
        Self {
            party,
            ..Self::default()
        }
    }
}

/// Moves bytes between `socket` and `stream` until both directions have ended. `early` was read from the socket
/// already and goes first.
///
/// At most one chunk read from the socket (16 KiB; 128 KiB in bulk transfers, less while there are more than 128 of them)
/// and 64 KiB taken from the stream are held at any time, and next to nothing while neither the socket nor
/// [`RelayOptions::hold`] keeps bytes from going on.
pub fn relay<S: Socket>(socket: S, early: Bytes, stream: Duplex, options: RelayOptions) -> Relay<S> {
    let limited = options.idle_limit.is_some() || options.half_close_limit.is_some();
    Relay {
        socket,
        sending: Sending::new(stream.tx, early),
        receiving: Receiving::new(stream.rx, options.hold.map(Hold::new)),
        sending_half: Half::Open,
        receiving_half: Half::Open,
        sent: 0,
        received: 0,
        ended: None,
        over: false,
        party: options.party,
        limits: limited.then(|| Box::new(Limits::new(options.idle_limit, options.half_close_limit))),
        shutdown: options.shutdown.map(|token| Box::pin(token.cancelled_owned())),
        parting: None,
        meter: options.meter,
    }
}

/// A relay at work, made by [`relay`]. Dropping it early ends it at once, as [`Relay::end`] does with
/// [`StreamCode::CANCELLED`].
#[must_use = "a relay does nothing unless polled"]
pub struct Relay<S: Socket> {
    socket: S,
    sending: Sending,
    receiving: Receiving,
    sending_half: Half,
    receiving_half: Half,
    sent: u64,
    received: u64,
    /// Why it will be over, once that is known.
    ended: Option<End>,
    over: bool,
    party: Party,
    limits: Option<Box<Limits>>,
    shutdown: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    parting: Option<Pin<Box<Sleep>>>,
    meter: Option<Arc<dyn Meter>>,
}

/// How far one direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Open,
    /// Its clean end went on.
    Finished,
    /// It ended otherwise, and whom that concerns was told.
    Broken,
}

impl<S: Socket> Relay<S> {
    /// Ends it at once: both halves of the stream with `code`, the socket with a reset.
    pub fn end(mut self, code: StreamCode) -> RelayReport {
        self.cut(End::Local(code))
    }

    /// Ready when both directions have ended by themselves, or with what cuts them short.
    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if let Some(shutdown) = &mut self.shutdown
            && shutdown.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(End::Local(StreamCode::SHUTDOWN)));
        }
        let halves = (self.sending_half, self.receiving_half);
        let (mut out, mut back) = (Turn::new(), Turn::new());
        let cut = self.poll_sending(cx, &mut out).and_then(|()| {
            // A stream that takes no more says nothing of the socket.
            let has_spoken = out.bytes() > 0 || self.sending_half == Half::Finished;
            self.poll_receiving(cx, &mut back, has_spoken)
        });
        self.count(out.bytes(), back.bytes());
        cut?;
        if self.sending_half != Half::Open && self.receiving_half != Half::Open {
            return self.poll_part(cx).map(Ok);
        }
        if out.paused() || back.paused() {
            cx.waker().wake_by_ref();
        }
        let moved = out.bytes() + back.bytes() > 0 || halves != (self.sending_half, self.receiving_half);
        self.poll_limits(cx, moved).map(Err)
    }

    /// Takes leave of the socket. Closing it with bytes unread would be a reset, which may destroy the end of what was
    /// written to it before its other end has read it (RFC 9112 §9.6). So when nobody wants more of its bytes, but all
    /// that it should get was written, what still comes is read for a while, for nothing.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if (self.sending_half, self.receiving_half) != (Half::Broken, Half::Finished) {
            return Poll::Ready(());
        }
        let parting = self.parting.get_or_insert_with(|| Box::pin(sleep(PARTING)));
        if parting.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut turn = Turn::new();
        let parted = self.sending.poll_discard(cx, &mut self.socket, &mut turn);
        if turn.paused() {
            cx.waker().wake_by_ref();
        }
        parted
    }

    /// Moves what can be moved into the stream; an error ends everything.
    fn poll_sending(&mut self, cx: &mut Context<'_>, turn: &mut Turn) -> Result<(), End> {
        if self.sending_half != Half::Open {
            return Ok(());
        }
        match self.sending.poll(cx, &mut self.socket, turn) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) => {
                self.sending_half = Half::Finished;
                self.note_finished(End::SocketFinished);
                Ok(())
            }
            Poll::Ready(Err(SendingError::Socket(error))) => Err(End::of_socket(error)),
            Poll::Ready(Err(SendingError::Stream(SendError::Reset(code)))) => Err(End::Local(code)),
            Poll::Ready(Err(SendingError::Stream(SendError::Finished))) => Err(End::Local(StreamCode::INTERNAL)),
            Poll::Ready(Err(SendingError::Stream(SendError::Stopped(code)))) => {
                self.sending.tx.reset(code);
                self.break_sending(End::PeerStopped(code))
            }
            // What had arrived before goes on, and may turn out to be the whole.
            Poll::Ready(Err(SendingError::Stream(SendError::Connection(error)))) => {
                self.break_sending(End::ConnectionLost(error))
            }
        }
    }

    /// The stream takes no more; without the other direction, that is all.
    fn break_sending(&mut self, end: End) -> Result<(), End> {
        self.sending_half = Half::Broken;
        match self.receiving_half {
            Half::Open => {
                self.note_failed(end);
                Ok(())
            }
            Half::Finished | Half::Broken => Err(end),
        }
    }

    /// Moves what can be moved into the socket; an error ends everything.
    fn poll_receiving(&mut self, cx: &mut Context<'_>, turn: &mut Turn, has_spoken: bool) -> Result<(), End> {
        if self.receiving_half != Half::Open {
            return Ok(());
        }
        if has_spoken {
            self.receiving.let_go();
        }
        match self.receiving.poll(cx, &mut self.socket, turn) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) => {
                self.receiving_half = Half::Finished;
                self.note_finished(End::PeerFinished);
                Ok(())
            }
            Poll::Ready(Err(ReceivingError::Socket(error))) => {
                let end = End::of_socket(error);
                if self.sending_half == Half::Broken {
                    return Err(end);
                }
                self.receiving_half = Half::Broken;
                self.receiving.rx.stop(end.code());
                // The error was told once, by the write: after a reset the kernel lets reads run into a plain end.
                if !matches!(end, End::SocketClosed) {
                    self.sending.truncate();
                }
                self.note_failed(end);
                Ok(())
            }
            Poll::Ready(Err(ReceivingError::Stream(RecvError::Reset(code)))) => Err(End::PeerReset(code)),
            Poll::Ready(Err(ReceivingError::Stream(RecvError::Connection(error)))) => Err(End::ConnectionLost(error)),
            Poll::Ready(Err(ReceivingError::Stream(RecvError::Stopped(code)))) => Err(End::Local(code)),
        }
    }

    /// A direction ended cleanly: the first to do so names the end, unless something goes wrong later.
    fn note_finished(&mut self, end: End) {
        self.ended.get_or_insert(end);
    }

    /// A direction failed: the first failure names the end.
    fn note_failed(&mut self, end: End) {
        match &mut self.ended {
            Some(ended) if !ended.is_clean() => {}
            ended => *ended = Some(end),
        }
    }

    fn poll_limits(&mut self, cx: &mut Context<'_>, moved: bool) -> Poll<End> {
        let half_closed = self.sending_half != Half::Open || self.receiving_half != Half::Open;
        match &mut self.limits {
            Some(limits) => limits.poll(cx, moved, half_closed),
            None => Poll::Pending,
        }
    }

    fn count(&mut self, sent: usize, received: usize) {
        let (sent, received) = (sent as u64, received as u64);
        self.sent += sent;
        self.received += received;
        if let Some(meter) = &self.meter {
            if sent > 0 {
                meter.sent(sent);
            }
            if received > 0 {
                meter.received(received);
            }
        }
    }

    /// Ends what has not ended, with nothing clean about it. A half that finished cleanly was whole and stays so.
    fn cut(&mut self, end: End) -> RelayReport {
        let code = end.code();
        if self.sending_half == Half::Open {
            self.sending.tx.reset(code);
        }
        if self.receiving_half == Half::Open {
            self.receiving.rx.stop(code);
        }
        self.socket.abort();
        self.note_failed(end);
        self.report()
    }

    fn report(&mut self) -> RelayReport {
        self.over = true;
        RelayReport {
            sent: self.sent,
            received: self.received,
            party: self.party,
            ended: self.ended.take().unwrap_or(End::Local(StreamCode::CANCELLED)),
        }
    }
}

impl<S: Socket> Future for Relay<S> {
    type Output = RelayReport;

    /// Pending for ever after the report.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RelayReport> {
        let this = self.get_mut();
        if this.over {
            return Poll::Pending;
        }
        this.poll_relay(cx).map(|ended| match ended {
            Ok(()) => this.report(),
            Err(end) => this.cut(end),
        })
    }
}

impl<S: Socket> Drop for Relay<S> {
    fn drop(&mut self) {
        if !self.over {
            self.cut(End::Local(StreamCode::CANCELLED));
        }
    }
}

impl<S: Socket> fmt::Debug for Relay<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("party", &self.party)
            .field("sending", &self.sending_half)
            .field("receiving", &self.receiving_half)
            .field("sent", &self.sent)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}
