//! The halves of a stream.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::time::Instant;
use tunnel_core::{Duplex, RecvError, RecvStream, SendError, SendStream, StreamCode};

use super::{
    hub::Hub,
    stream::{Rx, State, Stream, Tx},
};

/// Both halves.
pub(crate) fn duplex(stream: &Arc<Stream>) -> Duplex {
    Duplex {
        tx: Box::new(SendHalf(Arc::clone(stream))),
        rx: Box::new(RecvHalf(Arc::clone(stream))),
    }
}

/// The sending half. Dropping it before a finish resets the stream.
pub(crate) struct SendHalf(Arc<Stream>);

impl SendHalf {
    fn end(&self, end: Tx) {
        let mut state = self.0.lock();
        let before = state.tx;
        state.end_tx(end);
        if state.tx != before {
            drop(state);
            self.0.post();
        }
    }
}

impl State {
    fn check_sender(&self, hub: &Hub) -> Result<(), SendError> {
        match self.tx {
            Tx::Open => hub.ended().map_or(Ok(()), |error| Err(SendError::Connection(error))),
            Tx::Finished => Err(SendError::Finished),
            Tx::Reset(code) => Err(SendError::Reset(code)),
            Tx::Stopped(code) => Err(SendError::Stopped(code)),
        }
    }

    /// How many bytes may be queued, while fewer than `enough` are.
    fn poll_room(&mut self, cx: &mut Context<'_>, hub: &Hub, enough: usize) -> Poll<Result<usize, SendError>> {
        self.check_sender(hub)?;
        if self.outbox.len() < enough {
            return Poll::Ready(Ok(hub.send_queue - self.outbox.len()));
        }
        self.wakers.send = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl SendStream for SendHalf {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize, SendError>> {
        let hub = &self.0.hub;
        let mut state = self.0.lock();
        if data.is_empty() {
            return Poll::Ready(state.check_sender(hub).map(|()| 0));
        }
        let room = ready!(state.poll_room(cx, hub, hub.send_queue))?;
        let count = room.min(data.len());
        state.outbox.push(data.split_to(count));
        drop(state);
        hub.counters.bytes_sent.fetch_add(count as u64, Ordering::Relaxed);
        self.0.post();
        Poll::Ready(Ok(count))
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        let hub = &self.0.hub;
        self.0.lock().poll_room(cx, hub, hub.send_queue / 2 + 1)
    }

    /// The driver moves what is queued.
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let tx = self.0.lock().tx;
        Poll::Ready(match tx {
            Tx::Reset(code) => Err(SendError::Reset(code)),
            Tx::Stopped(code) => Err(SendError::Stopped(code)),
            Tx::Finished => Ok(()),
            Tx::Open => match self.0.hub.ended() {
                Some(error) => Err(SendError::Connection(error)),
                None => Ok(()),
            },
        })
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let tx = self.0.lock().tx;
        Poll::Ready(match tx {
            Tx::Finished => Ok(()),
            Tx::Reset(code) => Err(SendError::Reset(code)),
            Tx::Stopped(code) => Err(SendError::Stopped(code)),
            Tx::Open => match self.0.hub.ended() {
                Some(error) => Err(SendError::Connection(error)),
                None => {
                    self.end(Tx::Finished);
                    Ok(())
                }
            },
        })
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Result<StreamCode, SendError>> {
        let mut state = self.0.lock();
        match state.tx {
            Tx::Reset(code) => return Poll::Ready(Err(SendError::Reset(code))),
            Tx::Stopped(code) => return Poll::Ready(Ok(code)),
            Tx::Open | Tx::Finished => {}
        }
        if let Some(error) = self.0.hub.ended() {
            return Poll::Ready(Err(SendError::Connection(error)));
        }
        state.wakers.stopped = Some(cx.waker().clone());
        Poll::Pending
    }

    fn reset(&mut self, code: StreamCode) {
        self.end(Tx::Reset(code));
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if self.0.lock().tx == Tx::Open {
            self.end(Tx::Reset(StreamCode::CANCELLED));
        }
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendHalf")
            .field("stream", &self.0.key())
            .field("state", &self.0.lock().tx)
            .finish_non_exhaustive()
    }
}

/// The receiving half. Dropping it before the end stops the stream.
pub(crate) struct RecvHalf(Arc<Stream>);

impl RecvStream for RecvHalf {
    fn poll_recv(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, RecvError>> {
        let hub = &self.0.hub;
        let mut state = self.0.lock();
        match state.rx {
            Rx::Reset(code) => return Poll::Ready(Err(RecvError::Reset(code))),
            Rx::Stopped(code) => return Poll::Ready(Err(RecvError::Stopped(code))),
            Rx::Open | Rx::Ended => {}
        }
        if let Some(bytes) = state.inbox.pop(max) {
            let count = bytes.len();
            state.taken += count;
            state.touched = Instant::now();
            state.settle();
            // Credit for less is not worth a frame: what is left of the window keeps the peer busy.
            let worth = state.rx == Rx::Open && state.taken >= state.window / 4;
            drop(state);
            hub.account.release(count as u64);
            hub.counters.bytes_received.fetch_add(count as u64, Ordering::Relaxed);
            if worth {
                self.0.post();
            }
            return Poll::Ready(Ok(Some(bytes)));
        }
        if state.rx == Rx::Ended {
            return Poll::Ready(Ok(None));
        }
        if let Some(error) = hub.ended() {
            return Poll::Ready(Err(RecvError::Connection(error)));
        }
        state.wakers.recv = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<RecvError> {
        let mut state = self.0.lock();
        match state.rx {
            Rx::Reset(code) => Poll::Ready(RecvError::Reset(code)),
            Rx::Stopped(code) => Poll::Ready(RecvError::Stopped(code)),
            Rx::Open | Rx::Ended => {
                state.wakers.recv = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn stop(&mut self, code: StreamCode) {
        let mut state = self.0.lock();
        if state.rx == Rx::Ended {
            // It is not read any more, but nobody needs to be told.
            let dropped = state.inbox.clear();
            state.settle();
            drop(state);
            self.0.hub.account.release(dropped as u64);
            return;
        }
        let before = state.rx;
        let dropped = state.end_rx(Rx::Stopped(code));
        let changed = state.rx != before;
        drop(state);
        self.0.hub.account.release(dropped as u64);
        if changed {
            self.0.post();
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
            .field("stream", &self.0.key())
            .field("state", &self.0.lock().rx)
            .finish_non_exhaustive()
    }
}
