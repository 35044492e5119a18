//! What joins the two ends of a connection.

use std::{
    io,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{MissedTickBehavior, interval},
};
use tunnel_core::{ConnectionError, Keepalive};

use super::state::{News, State};
use crate::Side;

/// How often a slow wire carries bytes.
const TICK: Duration = Duration::from_millis(1);

/// What joins the two ends of a connection: one state under one lock, and what can be waited for without it.
#[derive(Debug)]
pub(super) struct Link {
    state: Mutex<State>,
    pub(super) news: Arc<News>,
    /// The places for streams that each side may open.
    places: [Arc<Semaphore>; 2],
    pub(super) keepalive: Keepalive,
}

impl Link {
    /// Makes one. `places` says how many streams the agent and the server may open.
    pub(super) fn new(
        window: usize,
        bandwidth: Option<NonZeroUsize>,
        places: [u32; 2],
        keepalive: Keepalive,
    ) -> Arc<Self> {
        let news = Arc::<News>::default();
        let places = places.map(|places| {
            let places = usize::try_from(places).unwrap_or(usize::MAX);
            Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)))
        });
        let link = Arc::new(Self {
            state: Mutex::new(State::new(window, bandwidth, news.clone())),
            news,
            places,
            keepalive,
        });
        if bandwidth.is_some() {
            tokio::spawn(drive(Arc::downgrade(&link)));
        }
        link
    }

    /// The state. No code panics while it holds the lock, so a poisoned one is whole.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The places for streams that `side` may open; they are given in the order of asking.
    pub(super) fn places(&self, side: Side) -> &Arc<Semaphore> {
        &self.places[side as usize]
    }

    /// The transport ends, and both sides know.
    pub(super) fn cut(&self) {
        let mut state = self.lock();
        for side in Side::BOTH {
            let error = io::Error::new(io::ErrorKind::ConnectionReset, "the wire was cut");
            state.fail(side, ConnectionError::transport(error));
        }
    }

    /// Keepalive has noticed that the peer says nothing.
    pub(super) fn time_out(&self) {
        let mut state = self.lock();
        for side in Side::BOTH {
            let after = self.keepalive.bound();
            state.fail(side, ConnectionError::TimedOut { after });
        }
    }

    /// Changes whether the wire carries anything.
    pub(super) fn set_up(&self, up: bool) {
        let mut state = self.lock();
        state.set_up(up);
        if !state.is_slow() {
            state.carry();
        }
    }
}

/// Lets a slow wire carry what is queued, until the connection is gone.
async fn drive(link: Weak<Link>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while let Some(link) = link.upgrade() {
        link.lock().carry();
        drop(link);
        tick.tick().await;
    }
}
