//! Streams in memory.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tunnel_core::{Duplex, RecvError, RecvStream, SendError, SendStream, StreamCode};

/// The most bytes that one direction holds.
const WINDOW: usize = 64 * 1024;

/// Both ends of a stream.
pub(crate) fn duplex() -> (Duplex, Duplex) {
    let (there_tx, there_rx) = pipe();
    let (back_tx, back_rx) = pipe();
    let end = |tx: Sender, rx: Receiver| Duplex {
        tx: Box::new(tx),
        rx: Box::new(rx),
    };
    (end(there_tx, back_rx), end(back_tx, there_rx))
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Bytes>,
    buffered: usize,
    finished: bool,
    reset: Option<StreamCode>,
    stopped: Option<StreamCode>,
    sender: Option<Waker>,
    watcher: Option<Waker>,
    receiver: Option<Waker>,
}

impl State {
    fn wake(&mut self) {
        let wakers = [self.sender.take(), self.watcher.take(), self.receiver.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

#[derive(Debug)]
struct Sender(Arc<Mutex<State>>);

#[derive(Debug)]
struct Receiver(Arc<Mutex<State>>);

fn pipe() -> (Sender, Receiver) {
    let state = Arc::new(Mutex::new(State::default()));
    (Sender(Arc::clone(&state)), Receiver(state))
}

impl Sender {
    fn open(&self) -> Result<MutexGuard<'_, State>, SendError> {
        let state = self.0.lock().unwrap();
        match state.stopped {
            Some(code) => Err(SendError::Stopped(code)),
            None if state.reset.is_some() => Err(SendError::Finished),
            None => Ok(state),
        }
    }
}

impl SendStream for Sender {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize, SendError>> {
        let mut state = self.open()?;
        if state.finished {
            return Poll::Ready(Err(SendError::Finished));
        }
        let len = data.len().min(WINDOW - state.buffered);
        if len == 0 && !data.is_empty() {
            state.sender = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if len > 0 {
            state.buffered += len;
            state.queue.push_back(data.split_to(len));
            state.wake();
        }
        Poll::Ready(Ok(len))
    }

    /// It does not know.
    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        Poll::Ready(Ok(usize::MAX))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(self.open().map(drop))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let mut state = self.open()?;
        state.finished = true;
        state.wake();
        Poll::Ready(Ok(()))
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Result<StreamCode, SendError>> {
        let mut state = self.0.lock().unwrap();
        match state.stopped {
            Some(code) => Poll::Ready(Ok(code)),
            None => {
                state.watcher = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn reset(&mut self, code: StreamCode) {
        let mut state = self.0.lock().unwrap();
        if !state.finished && state.reset.is_none() {
            state.reset = Some(code);
            state.queue.clear();
            state.wake();
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.reset(StreamCode::CANCELLED);
    }
}

impl RecvStream for Receiver {
    fn poll_recv(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, RecvError>> {
        let mut state = self.0.lock().unwrap();
        if let Some(code) = state.stopped {
            return Poll::Ready(Err(RecvError::Stopped(code)));
        }
        if let Some(code) = state.reset {
            return Poll::Ready(Err(RecvError::Reset(code)));
        }
        match state.queue.pop_front() {
            Some(mut chunk) => {
                let taken = chunk.split_to(max.min(chunk.len()));
                if !chunk.is_empty() {
                    state.queue.push_front(chunk);
                }
                state.buffered -= taken.len();
                state.wake();
                Poll::Ready(Ok(Some(taken)))
            }
            None if state.finished => Poll::Ready(Ok(None)),
            None => {
                state.receiver = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<RecvError> {
        let mut state = self.0.lock().unwrap();
        match (state.stopped, state.reset) {
            (Some(code), _) => Poll::Ready(RecvError::Stopped(code)),
            (None, Some(code)) => Poll::Ready(RecvError::Reset(code)),
            (None, None) => {
                state.receiver = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn stop(&mut self, code: StreamCode) {
        let mut state = self.0.lock().unwrap();
        let over = state.reset.is_some() || (state.finished && state.queue.is_empty());
        if !over && state.stopped.is_none() {
            state.stopped = Some(code);
            state.queue.clear();
            state.wake();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop(StreamCode::CANCELLED);
    }
}
