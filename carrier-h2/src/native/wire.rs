//! One stream as the driver sees it.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::ResponseFuture, server::SendResponse};
use http::Request;
use tunnel_core::StreamCode;

use super::{
    stream::{State, Stream, Tx, wake},
    window::Use,
};
use crate::http2::{reason, stream_code};

/// Up to here a stream is new: handshakes of what is tunnelled, small exchanges. They go out first.
const NEW_BYTES: u64 = 8 * 1024;

/// One stream as the driver sees it.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: Arc<Stream>,
    /// Has the driver look at the stream.
    waker: Waker,
    pub(super) opening: Opening,
    pub(super) tx: Option<SendStream<Bytes>>,
    pub(super) rx: Option<RecvStream>,
    pub(super) usage: Use,
    /// How many bytes HTTP/2 was given.
    pub(super) sent: u64,
    /// Whether it was given the end.
    pub(super) finished: bool,
    /// Whether it waits for its turn to send.
    pub(super) in_turn: bool,
    /// Whether the peer was told of a reset, and of a stop.
    pub(super) told_reset: bool,
    pub(super) told_stop: bool,
}

/// How far the opening is.
#[derive(Debug)]
pub(super) enum Opening {
    /// The agent has asked the server for it.
    Asked,
    /// The server has not answered what the agent asked; the request opens the stream.
    Granting(Box<Request<()>>),
    /// The request was sent.
    Requested(ResponseFuture),
    /// The request has come.
    Responding(Box<SendResponse<Bytes>>),
    Done,
}

/// What a look at the receiving side has shown.
#[derive(Debug)]
pub(super) enum Seen {
    Nothing,
    /// The response has come.
    Response(Box<http::response::Parts>),
    /// HTTP/2 has ended the stream, in both directions.
    Reset(StreamCode),
}

impl Wire {
    pub(super) fn new(stream: Arc<Stream>, opening: Opening, usage: Use) -> Self {
        Self {
            waker: Arc::clone(&stream).into(),
            stream,
            opening,
            tx: None,
            rx: None,
            usage,
            sent: 0,
            finished: false,
            in_turn: false,
            told_reset: false,
            told_stop: false,
        }
    }

    /// Whether it is to go before busy ones.
    pub(super) fn is_new(&self) -> bool {
        self.sent < NEW_BYTES
    }

    /// Looks for the response.
    pub(super) fn poll_response(&mut self) -> Seen {
        let Opening::Requested(response) = &mut self.opening else {
            return Seen::Nothing;
        };
        let mut cx = Context::from_waker(&self.waker);
        match std::pin::Pin::new(response).poll(&mut cx) {
            Poll::Pending => Seen::Nothing,
            Poll::Ready(Ok(response)) => {
                let (parts, body) = response.into_parts();
                self.opening = Opening::Done;
                self.rx = Some(body);
                Seen::Response(Box::new(parts))
            }
            Poll::Ready(Err(error)) => {
                self.opening = Opening::Done;
                reset_of(&error)
            }
        }
    }

    /// The next bytes. `Ok(None)` is the clean end.
    pub(super) fn poll_data(&mut self) -> Poll<Result<Option<Bytes>, Seen>> {
        let Some(rx) = &mut self.rx else { return Poll::Pending };
        let mut cx = Context::from_waker(&self.waker);
        match rx.poll_data(&mut cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(bytes))) => Poll::Ready(Ok(Some(bytes))),
            Poll::Ready(Some(Err(error))) => {
                self.rx = None;
                Poll::Ready(Err(reset_of(&error)))
            }
            // Behind it there may be trailers, which CONNECT does not have (RFC 9113 §8.5): they mean nothing here.
            Poll::Ready(None) => {
                self.rx = None;
                Poll::Ready(Ok(None))
            }
        }
    }

    /// Looks for a reset where no bytes can come any more.
    pub(super) fn poll_reset(&mut self) -> Seen {
        let mut cx = Context::from_waker(&self.waker);
        let reset = match (&mut self.tx, &mut self.opening) {
            (Some(tx), _) => tx.poll_reset(&mut cx),
            (None, Opening::Responding(respond)) => respond.poll_reset(&mut cx),
            _ => return Seen::Nothing,
        };
        match reset {
            Poll::Ready(Ok(reason)) => Seen::Reset(stream_code(reason)),
            Poll::Ready(Err(error)) => reset_of(&error),
            Poll::Pending => Seen::Nothing,
        }
    }

    /// Returns credit for bytes that HTTP/2 has given.
    pub(super) fn release(&mut self, bytes: usize) {
        if let Some(rx) = &mut self.rx
            && bytes > 0
        {
            // It fails only for bytes that were not received.
            let _ = rx.flow_control().release_capacity(bytes);
        }
    }

    /// Gives HTTP/2 what its turn and the credit allow. Gives the number of bytes, and whether there is more to send.
    pub(super) fn feed(&mut self, state: &mut State, turn: usize, send_queue: usize) -> (usize, bool) {
        let Some(tx) = &mut self.tx else { return (0, false) };
        let wanted = state.outbox.len().min(turn);
        let mut fed = 0;
        while fed < wanted {
            // No more than is there to be sent: what is reserved is lost to others.
            tx.reserve_capacity(wanted - fed);
            let count = tx.capacity().min(wanted - fed);
            if count == 0 {
                let mut cx = Context::from_waker(&self.waker);
                if tx.poll_capacity(&mut cx).is_pending() {
                    break;
                }
                if tx.capacity() == 0 {
                    // The stream is over, which is seen elsewhere.
                    return (fed, false);
                }
                continue;
            }
            let Some(bytes) = state.outbox.pop(count) else { break };
            fed += bytes.len();
            let ends = state.outbox.is_empty() && state.tx == Tx::Finished;
            self.finished |= ends;
            if tx.send_data(bytes, ends).is_err() {
                return (fed, false);
            }
        }
        self.sent += fed as u64;
        if state.outbox.is_empty() && state.tx == Tx::Finished && !self.finished {
            self.finished = true;
            let _ = tx.send_data(Bytes::new(), true);
        }
        if fed > 0 && state.outbox.len() < send_queue {
            wake(&mut state.wakers.send);
        }
        (fed, fed == wanted && !state.outbox.is_empty())
    }

    /// Whether there is something to give HTTP/2.
    pub(super) fn has_to_send(&self, state: &State) -> bool {
        let ends = state.tx == Tx::Finished && !self.finished;
        self.tx.is_some() && (!state.outbox.is_empty() || ends)
    }

    /// Ends the stream in both directions. What HTTP/2 has queued of it is dropped.
    pub(super) fn reset(&mut self, code: StreamCode) {
        match (&mut self.tx, &mut self.opening) {
            (Some(tx), _) => tx.send_reset(reason(code)),
            (None, Opening::Responding(respond)) => respond.send_reset(reason(code)),
            _ => {}
        }
    }
}

/// A failure that concerns the whole connection shows when that is polled.
fn reset_of(error: &h2::Error) -> Seen {
    match error.reason() {
        Some(reason) if error.is_reset() => Seen::Reset(stream_code(reason)),
        _ => Seen::Nothing,
    }
}
