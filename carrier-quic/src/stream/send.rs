//! The sending half.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use quinn::{StoppedError, VarInt, WriteError};
use tunnel_core::{SendError, SendStream, StreamCode};

use super::poll_once;
use crate::{
    error::{quic_stream_code, stream_code},
    room::Share,
    shared::{Shared, Ticket},
};

/// The priorities of quinn, which sends what is due of the higher first.
const AHEAD: i32 = 1;
const BUSY: i32 = 0;

type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send + Sync>>;

/// The sending half of a stream. Dropping it before a finish resets the stream; quinn by itself would finish it.
pub(crate) struct SendHalf {
    quic: quinn::SendStream,
    shared: Arc<Shared>,
    ticket: Option<Arc<Ticket>>,
    state: State,
    /// Waits for a stop; made when somebody asks.
    stopped: Option<Stopped>,
    share: Share,
    priority: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Finished,
    /// The peer has everything, so it can stop nothing any more.
    Delivered,
    Reset(StreamCode),
    Stopped(StreamCode),
}

impl SendHalf {
    pub(super) fn new(shared: Arc<Shared>, ticket: Arc<Ticket>, quic: quinn::SendStream) -> Self {
        // It fails for streams that are over, which the first write tells.
        let _ = quic.set_priority(AHEAD);
        Self {
            share: Share::new(Arc::clone(&shared.room)),
            quic,
            shared,
            ticket: Some(ticket),
            state: State::Open,
            stopped: None,
            priority: AHEAD,
        }
    }

    /// Queues some of `data`, which is payload or preamble.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize, SendError>> {
        self.check_open()?;
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Ok(chunk) = ready!(self.share.poll_take(cx, data)) else {
            return Poll::Ready(Err(self.without_connection()));
        };
        self.prioritize();
        let mut bytes = [chunk.bytes()];
        Poll::Ready(match ready!(poll_once(cx, self.quic.write_chunks(&mut bytes))) {
            Ok(written) => {
                chunk.truncate(written.bytes);
                data.advance(written.bytes);
                if self.shared.room.count(written.bytes) {
                    let path = self.shared.quic.stats().path;
                    self.shared.room.fit(path.cwnd, path.rtt);
                }
                Ok(written.bytes)
            }
            Err(error) => Err(self.fail(error)),
        })
    }

    fn check_open(&self) -> Result<(), SendError> {
        match self.state {
            State::Open => Ok(()),
            State::Finished | State::Delivered => Err(SendError::Finished),
            State::Reset(code) => Err(SendError::Reset(code)),
            State::Stopped(code) => Err(SendError::Stopped(code)),
        }
    }

    /// Queues all of a preamble.
    pub(crate) async fn write_all(&mut self, mut data: Bytes) -> Result<(), SendError> {
        while !data.is_empty() {
            std::future::poll_fn(|cx| self.poll_write(cx, &mut data)).await?;
        }
        Ok(())
    }

    /// Sends a last message from a call that may not wait, and ends the half cleanly behind it. Almost always there
    /// is room at once; if not, a task waits for it.
    pub(crate) fn send_last(mut self, mut message: Bytes) {
        let mut cx = Context::from_waker(Waker::noop());
        while !message.is_empty() {
            match self.poll_write(&mut cx, &mut message) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return,
                Poll::Pending => {
                    let runtime = self.shared.runtime.clone();
                    let patience = self.shared.config.preamble_timeout;
                    runtime.spawn(async move {
                        let sent = tokio::time::timeout(patience, self.write_all(message)).await;
                        if matches!(sent, Ok(Ok(()))) {
                            self.finish();
                        }
                    });
                    return;
                }
            }
        }
        self.finish();
    }

    /// Has quinn send the stream's bytes first while few of them are under way.
    fn prioritize(&mut self) {
        let priority = if self.share.is_sparse() { AHEAD } else { BUSY };
        if priority != self.priority {
            self.priority = priority;
            let _ = self.quic.set_priority(priority);
        }
    }

    /// Why nothing can be sent on a connection that has ended.
    fn without_connection(&mut self) -> SendError {
        self.ticket = None;
        match self.shared.ended() {
            Some(error) => SendError::Connection(error),
            None => SendError::Finished,
        }
    }

    fn fail(&mut self, error: WriteError) -> SendError {
        match error {
            WriteError::Stopped(code) => self.stopped_by_peer(stream_code(code)),
            WriteError::ConnectionLost(error) => {
                self.ticket = None;
                SendError::Connection(self.shared.error(error))
            }
            // Neither can be: this type knows when the stream is over, and nothing is sent before the handshake.
            WriteError::ClosedStream | WriteError::ZeroRttRejected => SendError::Finished,
        }
    }

    /// The peer wants no more: QUIC's answer is a reset (RFC 9000 §3.5).
    fn stopped_by_peer(&mut self, code: StreamCode) -> SendError {
        self.end(State::Stopped(code));
        let _ = self.quic.reset(quic_stream_code(code));
        SendError::Stopped(code)
    }

    fn finish(&mut self) {
        // It fails only for streams that are over.
        let _ = self.quic.finish();
        self.end(State::Finished);
    }

    fn end(&mut self, state: State) {
        self.state = state;
        self.ticket = None;
        self.share.give_up();
    }

    /// Looks whether the peer has stopped the stream; `None` if not.
    fn poll_stop_seen(&mut self, cx: &mut Context<'_>) -> Poll<Result<StreamCode, SendError>> {
        let stopped = self.stopped.get_or_insert_with(|| Box::pin(self.quic.stopped()));
        let outcome = ready!(stopped.as_mut().poll(cx));
        self.stopped = None;
        match outcome {
            Ok(Some(code)) => {
                let code = stream_code(code);
                self.stopped_by_peer(code);
                Poll::Ready(Ok(code))
            }
            Ok(None) => {
                self.state = State::Delivered;
                Poll::Pending
            }
            Err(StoppedError::ConnectionLost(error)) => {
                self.ticket = None;
                Poll::Ready(Err(SendError::Connection(self.shared.error(error))))
            }
            Err(StoppedError::ZeroRttRejected) => Poll::Ready(Err(SendError::Finished)),
        }
    }
}

impl SendStream for SendHalf {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize, SendError>> {
        let sent = ready!(self.poll_write(cx, data))?;
        self.shared
            .counters
            .bytes_sent
            .fetch_add(sent as u64, Ordering::Relaxed);
        Poll::Ready(Ok(sent))
    }

    /// quinn tells only those who write.
    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        self.check_open()?;
        Poll::Ready(match self.shared.ended() {
            Some(error) => Err(SendError::Connection(error)),
            None => Ok(usize::MAX),
        })
    }

    /// quinn's own task sends what is queued.
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(match self.state {
            State::Reset(code) => Err(SendError::Reset(code)),
            State::Stopped(code) => Err(SendError::Stopped(code)),
            State::Open | State::Finished | State::Delivered => match self.shared.ended() {
                Some(error) if self.state == State::Open => Err(SendError::Connection(error)),
                _ => Ok(()),
            },
        })
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(match self.state {
            State::Finished | State::Delivered => Ok(()),
            State::Reset(code) => Err(SendError::Reset(code)),
            State::Stopped(code) => Err(SendError::Stopped(code)),
            State::Open => {
                if let Some(error) = self.shared.ended() {
                    self.ticket = None;
                    return Poll::Ready(Err(SendError::Connection(error)));
                }
                // quinn takes a finish of a stopped stream for a success.
                let mut cx = Context::from_waker(Waker::noop());
                if let Poll::Ready(Ok(Some(code))) = poll_once(&mut cx, self.quic.stopped()) {
                    return Poll::Ready(Err(self.stopped_by_peer(stream_code(code))));
                }
                self.finish();
                Ok(())
            }
        })
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Result<StreamCode, SendError>> {
        match self.state {
            State::Open | State::Finished => self.poll_stop_seen(cx),
            State::Delivered => Poll::Pending,
            State::Reset(code) => Poll::Ready(Err(SendError::Reset(code))),
            State::Stopped(code) => Poll::Ready(Ok(code)),
        }
    }

    fn reset(&mut self, code: StreamCode) {
        if matches!(self.state, State::Open | State::Finished) {
            // It fails only for streams that are over.
            let _ = self.quic.reset(quic_stream_code(code));
            if self.stopped.take().is_some() {
                self.shared.leave_remains();
            }
            self.end(State::Reset(code));
        }
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if self.state == State::Open {
            self.reset(StreamCode::CANCELLED);
        }
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendHalf")
            .field("stream", &self.quic.id())
            .field("state", &self.state)
            .field("share", &self.share)
            .finish_non_exhaustive()
    }
}
