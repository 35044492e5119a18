//! The accept loop.
//!
//! It is the only one, for all carriers, in servers and in agents. It takes attempts as they come and performs no
//! handshake itself: each runs in a task of its own, under a deadline, in one of a bounded number of places.

mod config;
mod metrics;
mod places;

use std::{error::Error, fmt, net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

pub(crate) use self::metrics::{AcceptMetrics, ReasonLabels};
pub use self::{
    config::AcceptConfig,
    places::{NoPlace, Place, Places},
};
use crate::{
    carrier::{Admission, Connection, Incoming, Listener},
    error::{AcceptError, HandshakeError},
    metrics::{CarrierLabels, Counted},
    threads::Threads,
};

/// The first pause after a failed accept, for example for want of file descriptors; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// How often at most a listener says that it turns connections away.
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);
/// How often at most it is worth a line in the log that accepting fails.
const REMIND_AFTER: Duration = Duration::from_secs(60);

/// Decides by the address alone whether to let somebody try.
pub(crate) type AcceptFilter = Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>;

/// Whoever takes connections in: a server, or an agent at one of its listeners.
pub(crate) trait Host: Admission + 'static {
    /// What stands before every handshake.
    fn gate(&self) -> &Gate;

    /// Where handshakes and connections have their tasks.
    fn tasks(&self) -> &TaskTracker;

    /// Among which threads connections are divided.
    fn threads(&self) -> &Threads;

    /// Waits until nothing is to be taken in any more; cancel safe.
    fn closing(&self) -> impl Future<Output = ()> + Send;

    /// Serves a connection to its end.
    fn serve(self: Arc<Self>, connection: Arc<dyn Connection>) -> impl Future<Output = ()> + Send;
}

/// What stands before every handshake of a server or an agent, whichever listener it came by.
pub(crate) struct Gate {
    filter: Option<AcceptFilter>,
    places: Arc<Places>,
    handshake_timeout: Duration,
    pub(crate) metrics: AcceptMetrics,
}

impl Gate {
    pub(crate) fn new(config: &AcceptConfig, filter: Option<AcceptFilter>, metrics: AcceptMetrics) -> Self {
        Self {
            filter,
            places: Places::new(config.max_pending, config.max_pending_per_source),
            handshake_timeout: config.handshake_timeout,
            metrics,
        }
    }
}

/// Takes connections in until the listener ends or the host is closing, which closes the listener.
pub(crate) async fn run<H: Host>(host: Arc<H>, mut listener: Box<dyn Listener>) {
    let carrier = listener.name();
    listener.divide(host.threads());
    let mut door = Door::new(Arc::clone(&host), carrier);
    let mut pause = FIRST_PAUSE;
    let mut told: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = host.closing() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(incoming) => {
                pause = FIRST_PAUSE;
                door.admit(incoming);
            }
            Err(AcceptError::Closed) => {
                warn!(carrier, "the listener is closed and takes no more connections");
                return;
            }
            Err(error) => {
                let errors = &host.gate().metrics.accept_errors;
                errors.get_or_create(&CarrierLabels { carrier }).inc();
                if told.is_none_or(|at| at.elapsed() >= REMIND_AFTER) {
                    warn!(
                        carrier,
                        error = &error as &dyn Error,
                        "accept failed, and is tried again every second"
                    );
                    told = Some(Instant::now());
                }
                tokio::select! {
                    () = host.closing() => return,
                    () = sleep(pause) => pause = (pause * 2).min(LAST_PAUSE),
                }
            }
        }
    }
}

/// Lets attempts in or turns them away.
struct Door<H> {
    host: Arc<H>,
    carrier: &'static str,
    /// Turned away since the last complaint, and when that was.
    silent: u64,
    complained: Option<Instant>,
}

impl<H: Host> Door<H> {
    fn new(host: Arc<H>, carrier: &'static str) -> Self {
        Self {
            host,
            carrier,
            silent: 0,
            complained: None,
        }
    }

    fn admit(&mut self, incoming: Box<dyn Incoming>) {
        let remote = incoming.remote_addr();
        let gate = self.host.gate();
        if gate.filter.as_ref().is_some_and(|filter| !filter(remote)) {
            return self.refuse(incoming, "filter");
        }
        match gate.places.take(remote.ip()) {
            Ok(place) => {
                let (home, tasks) = (incoming.home(), self.host.tasks());
                let task = tasks.track_future(handshake(Arc::clone(&self.host), self.carrier, incoming, place));
                match home {
                    Some(runtime) => runtime.spawn(task),
                    None => self.host.threads().home().spawn(task),
                };
            }
            Err(NoPlace::Source) => self.refuse(incoming, "source_limit"),
            Err(NoPlace::Total) => self.refuse(incoming, "total_limit"),
        }
    }

    fn refuse(&mut self, incoming: Box<dyn Incoming>, reason: &'static str) {
        let carrier = self.carrier;
        let remote = incoming.remote_addr();
        incoming.refuse();
        let refusals = &self.host.gate().metrics.accept_refusals;
        refusals.get_or_create(&ReasonLabels { carrier, reason }).inc();
        self.silent += 1;
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
            warn!(carrier, %remote, reason, count = self.silent, "turned connections away before their handshake");
            self.silent = 0;
            self.complained = Some(Instant::now());
        }
    }
}

/// Performs one handshake, and serves the connection if it succeeds.
async fn handshake<H: Host>(host: Arc<H>, carrier: &'static str, incoming: Box<dyn Incoming>, place: Place) {
    let remote = incoming.remote_addr();
    let gate = host.gate();
    let pending = Counted::in_gauge(&gate.metrics.handshakes_pending);
    let limit = gate.handshake_timeout;
    let outcome = tokio::select! {
        () = host.closing() => return,
        outcome = timeout(limit, incoming.handshake(&*host)) => outcome,
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
        gate.metrics.handshake_failures.get_or_create(&labels).inc();
    }
    match outcome {
        Ok(Ok(connection)) => host.serve(connection).await,
        Ok(Err(error @ HandshakeError::Lost(_))) => {
            debug!(carrier, %remote, error = &error as &dyn Error, "handshake failed");
        }
        Ok(Err(error)) => info!(carrier, %remote, error = &error as &dyn Error, "handshake failed"),
        Err(_) => info!(carrier, %remote, ?limit, "handshake failed: the peer did not complete it in time"),
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl<H> fmt::Debug for Door<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("carrier", &self.carrier)
            .finish_non_exhaustive()
    }
}
