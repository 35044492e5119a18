//! One stream as the driver sees it.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture, server::SendResponse};
use http::Request;
use tunnel_core::{StreamCode, proto::mux::Turn};

use super::{
    hub::Place,
    stream::{State, Stream, Tx, wake},
    under_way::Held,
    window::Use,
};
use crate::http2::stream_code;

/// One stream as the driver sees it.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: Arc<Stream>,
    /// Has the driver look at the stream.
    waker: Waker,
    pub(crate) opening: Opening,
    pub(crate) tx: Option<SendStream<Bytes>>,
    rx: Option<RecvStream>,
    held: Held,
    /// Its place under the peer's limit, if this end has opened it.
    pub(crate) place: Option<Place>,
    pub(crate) usage: Use,
    /// Whether HTTP/2 was given the end.
    pub(crate) finished: bool,
    pub(crate) turn: Turn,
    /// Whether it asks HTTP/2 for credit, so as to be woken.
    waits: bool,
    /// Whether the peer was told of a reset, and of a stop.
    pub(crate) told_reset: bool,
    pub(crate) told_stop: bool,
}

/// How far the opening is.
#[derive(Debug)]
pub(crate) enum Opening {
    /// HTTP/2's client was asked to send the request.
    Asked,
    /// The request is what answers when HTTP/2's server has asked for the stream.
    Granting(Box<Request<()>>),
    /// The request was sent.
    Requested(ResponseFuture),
    /// The request has come.
    Responding(Box<SendResponse<Bytes>>),
    Done,
}

/// What a look at the receiving side has shown.
#[derive(Debug)]
pub(crate) enum Seen {
    Nothing,
    /// The response has come.
    Response(Box<http::response::Parts>),
    /// HTTP/2 has ended the stream, in both directions.
    Reset(StreamCode),
    /// The peer goes away and has not looked at the request (RFC 9113 §6.8).
    Unprocessed,
}

/// What HTTP/2 has taken of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fed {
    pub(crate) bytes: usize,
    /// Whether it took less than it was offered. The stream is looked at when that changes.
    pub(crate) is_held_up: bool,
}

impl Fed {
    fn held_up(bytes: usize) -> Self {
        Self {
            bytes,
            is_held_up: true,
        }
    }
}

impl Wire {
    pub(crate) fn new(stream: Arc<Stream>, opening: Opening, usage: Use, held: Held) -> Self {
        Self {
            waker: Arc::clone(&stream).into(),
            stream,
            opening,
            tx: None,
            rx: None,
            held,
            place: None,
            usage,
            finished: false,
            turn: Turn::default(),
            waits: false,
            told_reset: false,
            told_stop: false,
        }
    }

    /// Looks for the response.
    pub(crate) fn poll_response(&mut self) -> Seen {
        let Opening::Requested(response) = &mut self.opening else {
            return Seen::Nothing;
        };
        let mut cx = Context::from_waker(&self.waker);
        match std::pin::Pin::new(response).poll(&mut cx) {
            Poll::Pending => Seen::Nothing,
            Poll::Ready(Ok(response)) => {
                let (parts, body) = response.into_parts();
                self.opening = Opening::Done;
                self.begin_rx(body);
                Seen::Response(Box::new(parts))
            }
            Poll::Ready(Err(error)) => {
                self.opening = Opening::Done;
                if error.is_go_away() && error.is_remote() {
                    Seen::Unprocessed
                } else {
                    reset_of(&error)
                }
            }
        }
    }

    /// The next bytes. `Ok(None)` is the clean end.
    pub(crate) fn poll_data(&mut self) -> Poll<Result<Option<Bytes>, Seen>> {
        let Some(rx) = &mut self.rx else { return Poll::Pending };
        let mut cx = Context::from_waker(&self.waker);
        match rx.poll_data(&mut cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(bytes))) => {
                self.held.receive(bytes.len());
                Poll::Ready(Ok(Some(bytes)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.end_rx();
                Poll::Ready(Err(reset_of(&error)))
            }
            // Behind it there may be trailers, which CONNECT does not have (RFC 9113 §8.5): they mean nothing here.
            Poll::Ready(None) => {
                self.end_rx();
                Poll::Ready(Ok(None))
            }
        }
    }

    /// What the peer sends.
    pub(crate) fn begin_rx(&mut self, body: RecvStream) {
        self.rx = Some(body);
    }

    /// Nothing more is taken. What comes still is discarded, and its credit returned; so is that of what was taken: h2
    /// would keep it for as long as the other half lives.
    pub(crate) fn end_rx(&mut self) {
        self.release(self.held.bytes());
        self.rx = None;
    }

    /// Looks for a reset where no bytes can come any more.
    pub(crate) fn poll_reset(&mut self) -> Seen {
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
    pub(crate) fn release(&mut self, bytes: usize) {
        if let Some(rx) = &mut self.rx
            && bytes > 0
        {
            // It fails only for bytes that were not received.
            let _ = rx.flow_control().release_capacity(bytes);
            self.held.give_back(bytes);
        }
    }

    /// Gives HTTP/2 what its turn and the credit allow.
    pub(crate) fn feed(&mut self, state: &mut State, most: usize, send_queue: usize) -> Fed {
        let Some(tx) = &mut self.tx else {
            return Fed::held_up(0);
        };
        let wanted = state.outbox.len().min(most);
        let mut fed = 0;
        while fed < wanted {
            // No more than is there to be sent: what is reserved is lost to others.
            tx.reserve_capacity(wanted - fed);
            let count = tx.capacity().min(wanted - fed);
            if count == 0 {
                let mut cx = Context::from_waker(&self.waker);
                if tx.poll_capacity(&mut cx).is_pending() {
                    // Its own window is used up. When that opens, HTTP/2 gives it credit of the connection before all
                    // others: as much as wakes it, for what it may send is decided when its turn comes.
                    tx.reserve_capacity(1);
                    self.waits = true;
                    break;
                }
                if tx.capacity() == 0 {
                    // The stream is over, which is seen elsewhere.
                    return Fed::held_up(fed);
                }
                continue;
            }
            let Some(bytes) = state.outbox.pop(count) else { break };
            fed += bytes.len();
            let ends = state.outbox.is_empty() && state.tx == Tx::Finished;
            self.finished |= ends;
            if tx.send_data(bytes, ends).is_err() {
                return Fed::held_up(fed);
            }
        }
        if fed > 0 && state.outbox.len() <= send_queue / 2 {
            wake(&mut state.wakers.send);
        }
        Fed {
            bytes: fed,
            is_held_up: fed < wanted,
        }
    }

    /// Gives back the credit that has woken it: what is held is lost to those whose turn comes first.
    pub(crate) fn stop_waiting(&mut self) {
        if mem::take(&mut self.waits)
            && let Some(tx) = &mut self.tx
        {
            tx.reserve_capacity(0);
        }
    }

    /// Gives HTTP/2 the clean end, if nothing else waits; says whether it did. That takes no credit, so it needs no turn.
    pub(crate) fn finish(&mut self, state: &State) -> bool {
        let ends = state.outbox.is_empty() && state.tx == Tx::Finished && !self.finished;
        let Some(tx) = self.tx.as_mut().filter(|_| ends) else {
            return false;
        };
        self.finished = true;
        // It fails when the stream is over, which is seen elsewhere.
        let _ = tx.send_data(Bytes::new(), true);
        true
    }

    /// Whether there is something to give HTTP/2.
    pub(crate) fn has_to_send(&self, state: &State) -> bool {
        let ends = state.tx == Tx::Finished && !self.finished;
        self.tx.is_some() && (!state.outbox.is_empty() || ends)
    }

    /// Ends the stream in both directions. What HTTP/2 has queued of it is dropped.
    pub(crate) fn reset(&mut self, reason: Reason) {
        match (&mut self.tx, &mut self.opening) {
            (Some(tx), _) => tx.send_reset(reason),
            (None, Opening::Responding(respond)) => respond.send_reset(reason),
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
