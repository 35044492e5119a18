//! The accept loop.
//!
//! It is the only one, for all carriers. It takes attempts as they come and performs no handshake itself: each runs in
//! a task of its own, under a deadline, in one of a bounded number of places.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{
    Inner,
    metrics::{CarrierLabels, Counted, ReasonLabels},
    places::{NoPlace, Place},
    serve,
};
use crate::{
    carrier::{Incoming, Listener},
    error::{AcceptError, HandshakeError},
};

/// The first pause after a failed accept, for example for want of file descriptors; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// How often at most a listener says that it turns connections away.
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

/// Decides by the address alone whether to let somebody try.
pub(super) type AcceptFilter = Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>;

/// Takes connections in until the listener or the server ends.
pub(super) async fn run(server: Arc<Inner>, mut listener: Box<dyn Listener>) {
    let carrier = listener.name();
    let mut door = Door::new(Arc::clone(&server), carrier);
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            () = server.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(incoming) => {
                pause = FIRST_PAUSE;
                door.admit(incoming);
            }
            Err(AcceptError::Closed) => {
                warn!(carrier, "the listener is closed and takes no more agents");
                return;
            }
            Err(error) => {
                server
                    .metrics
                    .accept_errors
                    .get_or_create(&CarrierLabels { carrier })
                    .inc();
                warn!(
                    carrier,
                    error = &error as &dyn std::error::Error,
                    ?pause,
                    "accept failed"
                );
                tokio::select! {
                    () = server.stop.cancelled() => return,
                    () = sleep(pause) => pause = (pause * 2).min(LAST_PAUSE),
                }
            }
        }
    }
}

/// Lets attempts in or turns them away.
struct Door {
    server: Arc<Inner>,
    carrier: &'static str,
    /// Turned away since the last complaint, and when that was.
    silent: u64,
    complained: Option<Instant>,
}

impl Door {
    fn new(server: Arc<Inner>, carrier: &'static str) -> Self {
        Self {
            server,
            carrier,
            silent: 0,
            complained: None,
        }
    }

    fn admit(&mut self, incoming: Box<dyn Incoming>) {
        let remote = incoming.remote_addr();
        if self.server.filter.as_ref().is_some_and(|filter| !filter(remote)) {
            return self.refuse(incoming, "filter");
        }
        match self.server.places.take(remote.ip()) {
            Ok(place) => {
                let task = handshake(Arc::clone(&self.server), self.carrier, incoming, place);
                self.server.tasks.spawn(task);
            }
            Err(NoPlace::Source) => self.refuse(incoming, "source_limit"),
            Err(NoPlace::Total) => self.refuse(incoming, "total_limit"),
        }
    }

    fn refuse(&mut self, incoming: Box<dyn Incoming>, reason: &'static str) {
        let carrier = self.carrier;
        let remote = incoming.remote_addr();
        incoming.refuse();
        let labels = ReasonLabels { carrier, reason };
        self.server.metrics.accept_refusals.get_or_create(&labels).inc();
        self.silent += 1;
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
            warn!(carrier, %remote, reason, count = self.silent, "turned connections away before their handshake");
            self.silent = 0;
            self.complained = Some(Instant::now());
        }
    }
}

/// Performs one handshake, and serves the connection if it succeeds.
async fn handshake(server: Arc<Inner>, carrier: &'static str, incoming: Box<dyn Incoming>, place: Place) {
    let remote = incoming.remote_addr();
    let pending = Counted::in_gauge(&server.metrics.handshakes_pending);
    let limit = server.config.accept.handshake_timeout;
    let outcome = tokio::select! {
        () = server.stop.cancelled() => return,
        outcome = timeout(limit, incoming.handshake(&*server)) => outcome,
    };
    drop((place, pending));
    let reason = match &outcome {
        Ok(Ok(_)) => None,
        Ok(Err(HandshakeError::Rejected(rejection))) => Some(rejection.code.label()),
        Ok(Err(error)) => Some(error.label()),
        Err(_) => Some("timeout"),
    };
    if let Some(reason) = reason {
        let labels = ReasonLabels { carrier, reason };
        server.metrics.handshake_failures.get_or_create(&labels).inc();
    }
    match outcome {
        Ok(Ok(connection)) => serve::run(server, connection).await,
        Ok(Err(error @ HandshakeError::Lost(_))) => {
            debug!(carrier, %remote, error = &error as &dyn std::error::Error, "handshake failed");
        }
        Ok(Err(error)) => info!(carrier, %remote, error = &error as &dyn std::error::Error, "handshake failed"),
        Err(_) => info!(carrier, %remote, ?limit, "handshake failed: the peer did not complete it in time"),
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("carrier", &self.carrier)
            .finish_non_exhaustive()
    }
}
