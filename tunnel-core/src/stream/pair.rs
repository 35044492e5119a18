//! A pair of streams in memory, for the tests of this crate.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tunnel_proto::StreamCode;

use super::{Duplex, RecvStream, SendStream};
use crate::error::{ConnectionError, RecvError, SendError};

/// Two streams, each the other's peer, with `window` bytes of credit in each direction.
pub(crate) fn pair(window: usize) -> (Duplex, Duplex) {
    let (left, right, _) = pair_with_cut(window);
    (left, right)
}

/// Two streams as of [`pair`], and what ends the connection under both.
pub(crate) fn pair_with_cut(window: usize) -> (Duplex, Duplex, impl Fn(ConnectionError)) {
    let (there, back) = (Pipe::new(window), Pipe::new(window));
    let pipes = [there.clone(), back.clone()];
    let left = Duplex {
        tx: Box::new(Sender(there.clone())),
        rx: Box::new(Receiver(back.clone())),
    };
    let right = Duplex {
        tx: Box::new(Sender(back)),
        rx: Box::new(Receiver(there)),
    };
    let cut = move |error: ConnectionError| {
        for pipe in &pipes {
            let mut pipe = pipe.lock();
            pipe.lost = Some(error.clone());
            pipe.wake();
        }
    };
    (left, right, cut)
}

#[derive(Clone, Debug)]
struct Pipe(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    window: usize,
    queue: VecDeque<Bytes>,
    queued: usize,
    finished: bool,
    reset: Option<StreamCode>,
    stopped: Option<StreamCode>,
    lost: Option<ConnectionError>,
    sender: Option<Waker>,
    stop_watcher: Option<Waker>,
    receiver: Option<Waker>,
}

impl Pipe {
    fn new(window: usize) -> Self {
        let state = State {
            window,
            ..State::default()
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn wake(&mut self) {
        let wakers = [self.sender.take(), self.stop_watcher.take(), self.receiver.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn check_sender(&self) -> Result<(), SendError> {
        match (&self.lost, self.stopped, self.reset) {
            (Some(error), ..) => Err(SendError::Connection(error.clone())),
            (None, Some(code), _) => Err(SendError::Stopped(code)),
            (None, None, Some(code)) => Err(SendError::Reset(code)),
            (None, None, None) => Ok(()),
        }
    }

    fn broken(&self) -> Option<RecvError> {
        match (self.stopped, self.reset) {
            (Some(code), _) => Some(RecvError::Stopped(code)),
            (None, Some(code)) => Some(RecvError::Reset(code)),
            (None, None) => None,
        }
    }
}

#[derive(Debug)]
struct Sender(Pipe);

impl SendStream for Sender {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize, SendError>> {
        let mut state = self.0.lock();
        state.check_sender()?;
        if state.finished {
            return Poll::Ready(Err(SendError::Finished));
        }
        let len = data.len().min(state.window - state.queued);
        if len == 0 && !data.is_empty() {
            state.sender = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.queued += len;
        state.queue.push_back(data.split_to(len));
        wake(&mut state.receiver);
        Poll::Ready(Ok(len))
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        let mut state = self.0.lock();
        state.check_sender()?;
        if state.finished {
            return Poll::Ready(Err(SendError::Finished));
        }
        match state.window - state.queued {
            0 => {
                state.sender = Some(cx.waker().clone());
                Poll::Pending
            }
            room => Poll::Ready(Ok(room)),
        }
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(self.0.lock().check_sender())
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let mut state = self.0.lock();
        if !state.finished {
            state.check_sender()?;
            state.finished = true;
            wake(&mut state.receiver);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Result<StreamCode, SendError>> {
        let mut state = self.0.lock();
        match state.check_sender() {
            Err(SendError::Stopped(code)) => Poll::Ready(Ok(code)),
            Err(error) => Poll::Ready(Err(error)),
            Ok(()) => {
                state.stop_watcher = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn reset(&mut self, code: StreamCode) {
        let mut state = self.0.lock();
        if state.reset.is_none() && !(state.finished && state.queue.is_empty()) {
            state.reset = Some(code);
            state.queue.clear();
            state.queued = 0;
            state.wake();
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.0.lock().finished {
            self.reset(StreamCode::CANCELLED);
        }
    }
}

#[derive(Debug)]
struct Receiver(Pipe);

impl RecvStream for Receiver {
    fn poll_recv(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, RecvError>> {
        assert_ne!(max, 0);
        let mut state = self.0.lock();
        if let Some(error) = state.broken() {
            return Poll::Ready(Err(error));
        }
        let Some(first) = state.queue.front_mut() else {
            if state.finished {
                return Poll::Ready(Ok(None));
            }
            if let Some(error) = &state.lost {
                return Poll::Ready(Err(RecvError::Connection(error.clone())));
            }
            state.receiver = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let bytes = first.split_to(max.min(first.len()));
        if first.is_empty() {
            state.queue.pop_front();
        }
        state.queued -= bytes.len();
        wake(&mut state.sender);
        Poll::Ready(Ok(Some(bytes)))
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<RecvError> {
        let mut state = self.0.lock();
        if let Some(error) = state.broken() {
            return Poll::Ready(error);
        }
        state.receiver = Some(cx.waker().clone());
        Poll::Pending
    }

    fn stop(&mut self, code: StreamCode) {
        let mut state = self.0.lock();
        let ended = state.finished && state.queue.is_empty();
        if state.stopped.is_none() && state.reset.is_none() && !ended {
            state.stopped = Some(code);
            state.queue.clear();
            state.queued = 0;
            state.wake();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop(StreamCode::CANCELLED);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
