//! What the task, the handle and the streams of a connection share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tunnel_proto::mux::Mux;

use super::state::State;
use crate::error::ConnectionError;

/// What the task, the handle and the streams of a connection share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Whoever holds it is the next to open a stream, in order of the calls.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// A permit for each stream that waits for `accept`; closed with the connection.
    pub(super) arrivals: Semaphore,
    /// Cancelled when either end has begun to drain, or the end of the link was announced.
    pub(super) draining: CancellationToken,
    /// Cancelled when the connection has ended and the peer has been told, as far as it can be.
    pub(super) told: CancellationToken,
}

impl Shared {
    /// With the token of [`Link::ending`](super::Link::ending).
    pub(super) fn new(mux: Mux, ending: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::new(mux)),
            turn: tokio::sync::Mutex::new(()),
            arrivals: Semaphore::new(0),
            draining: ending,
            told: CancellationToken::new(),
        })
    }

    /// Does something with the state, and then tells everybody whom it concerns. The lock is held for a computation,
    /// never while something is written, read or woken.
    pub(super) fn visit<T>(&self, visit: impl FnOnce(&mut State) -> T) -> T {
        let (out, news) = self.lock().visit(visit);
        if news.arrivals > 0 {
            self.arrivals.add_permits(news.arrivals);
        }
        if news.draining {
            self.draining.cancel();
        }
        if news.closed {
            self.arrivals.close();
        }
        news.deliver();
        out
    }

    /// Why the connection has ended, when it is known that it has.
    pub(super) fn error(&self) -> ConnectionError {
        self.lock().error()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // The machine stays consistent if something panics between two calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
