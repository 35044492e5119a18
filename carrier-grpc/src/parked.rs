//! What an agent sends before it may.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use crate::inlet::Inlet;

/// The way in of a call until its handshake takes it. It is watched meanwhile: what comes before the welcome ends the
/// call, and does not pile up in the windows of HTTP/2 until somebody accepts the call.
#[derive(Clone, Debug)]
pub(crate) struct Parked(Arc<Mutex<State>>);

#[derive(Debug)]
enum State {
    Waiting(Box<Inlet>),
    /// The agent has broken the protocol in this way.
    Broken(String),
    Taken,
}

impl Parked {
    pub(crate) fn new(inlet: Inlet) -> Self {
        Self(Arc::new(Mutex::new(State::Waiting(Box::new(inlet)))))
    }

    /// Ready with the words for it when something comes, and never once the call is taken.
    pub(crate) fn poll_early(&self, cx: &mut Context<'_>) -> Poll<String> {
        let mut state = self.lock();
        let State::Waiting(inlet) = &mut *state else {
            return Poll::Pending;
        };
        let detail = ready!(inlet.poll_early(cx));
        *state = State::Broken(detail.clone());
        Poll::Ready(detail)
    }

    /// Takes the way in, or says what the agent did wrong.
    pub(crate) fn take(&self) -> Result<Inlet, String> {
        match mem::replace(&mut *self.lock(), State::Taken) {
            State::Waiting(inlet) => Ok(*inlet),
            State::Broken(detail) => Err(detail),
            // A call has one handshake.
            State::Taken => Err("the call has had its handshake".to_owned()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
