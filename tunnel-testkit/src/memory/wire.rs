//! The handle that breaks the wire.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::{select, sync::watch, time::sleep};

use super::link::Link;

/// What a carrier's connections run over; breaks on request. Clones are the same wire.
#[derive(Clone, Debug)]
pub struct Wire(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: watch::Sender<WireState>,
    links: Mutex<Vec<Weak<Link>>>,
}

/// What a wire does with what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireState {
    /// It arrives.
    Up,
    /// It is held back, and nobody is told.
    Silent,
    /// There is no wire.
    Cut,
}

impl Wire {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner {
            state: watch::Sender::new(WireState::Up),
            links: Mutex::default(),
        }))
    }

    /// Ends the transport of every connection on the wire; both ends are told at once. Nobody can dial until
    /// [`restore`](Self::restore).
    pub fn cut(&self) {
        self.0.state.send_replace(WireState::Cut);
        self.links().iter().for_each(|link| link.cut());
    }

    /// Holds everything back from now on and tells nobody, as a lost route or a frozen peer does. A connection that
    /// is silent for [`Keepalive::bound`](tunnel_core::Keepalive::bound) ends on both sides; a dial waits for its
    /// deadline.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn silence(&self) {
        if self.0.state.send_replace(WireState::Silent) == WireState::Silent {
            return;
        }
        for link in self.links() {
            link.set_up(false);
            let mut state = self.0.state.subscribe();
            tokio::spawn(async move {
                select! {
                    // The worst case: the last sign of life came right before the silence.
                    () = sleep(link.keepalive.bound()) => link.time_out(),
                    _ = state.changed() => {}
                }
            });
        }
    }

    /// Makes the wire whole again. What was held back arrives; what was cut stays ended.
    pub fn restore(&self) {
        self.0.state.send_replace(WireState::Up);
        self.links().iter().for_each(|link| link.set_up(true));
    }

    /// How many connections run over it.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.links().len()
    }

    pub(super) fn attach(&self, link: &Arc<Link>) {
        let mut links = self.0.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(link));
    }

    /// Waits until the wire is up or cut, and says which.
    pub(super) async fn usable(&self) -> WireState {
        let mut state = self.0.state.subscribe();
        match state.wait_for(|state| *state != WireState::Silent).await {
            Ok(state) => *state,
            Err(_gone) => WireState::Cut,
        }
    }

    /// Waits until the wire is cut.
    pub(super) async fn is_cut(&self) {
        let mut state = self.0.state.subscribe();
        let _: Result<_, _> = state.wait_for(|state| *state == WireState::Cut).await;
    }

    fn links(&self) -> Vec<Arc<Link>> {
        let links = self.0.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.iter().filter_map(Weak::upgrade).collect()
    }
}
