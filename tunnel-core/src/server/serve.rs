//! The life of one connection.

use std::{error::Error, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::timeout};
use tracing::{info, warn};
use tunnel_proto::{CloseCode, Rejection};

use super::{Inner, SHUTTING_DOWN, streams::Tracked};
use crate::{
    accept::ReasonLabels,
    carrier::{Connection, Inbound},
    error::ConnectionError,
    registry::{Joined, LiveConnection, Origin},
};

/// How long a carrier may take to say that a connection has ended which this side closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Registers an agent's connection and serves it to its end.
pub(super) async fn run(server: Arc<Inner>, connection: Arc<dyn Connection>) {
    let peer = connection.peer();
    let (carrier, remote) = (peer.carrier, peer.remote_addr);
    match server.join(&connection, Origin::Agent) {
        Ok(live) => {
            let agent = live.agent();
            let generation = peer.claim().map(|claim| tracing::field::display(claim.generation));
            info!(carrier, %remote, %agent, generation, identity = %peer.identity, "agent connected");
            let cause = attend(&server, &live).await;
            let age = live.age();
            info!(carrier, %remote, %agent, ?age, cause = &cause as &dyn Error, "agent disconnected");
        }
        Err(rejection) => {
            // Time has passed since the welcome, and somebody else was faster.
            let reason = rejection.code.label();
            let labels = ReasonLabels { carrier, reason };
            let failures = &server.metrics.accept.handshake_failures;
            failures.get_or_create(&labels).inc();
            info!(carrier, %remote, %rejection, "connection closed after its handshake");
            connection.close(rejection.code, rejection.text.as_str());
        }
    }
}

/// Takes the streams of a registered connection, and takes it out of the registry when it has ended.
pub(super) async fn attend(server: &Arc<Inner>, live: &Arc<LiveConnection>) -> ConnectionError {
    let counted = server.metrics.traffic.connection(live.carrier());

    let cause = until_the_end(server, live).await;

    server.registry.leave(live.agent(), live);
    live.set_ended(cause.clone());
    counted.end(&cause);
    cause
}

impl Inner {
    /// Registers a connection, which from then on carries streams.
    pub(super) fn join(
        &self,
        connection: &Arc<dyn Connection>,
        origin: Origin,
    ) -> Result<Arc<LiveConnection>, Rejection> {
        let Joined { live, replaced } = self.registry.join(Arc::clone(connection), origin)?;
        // The policy or the state may have changed since the welcome; whoever changes it looks at the registry after.
        let peer = connection.peer();
        if origin == Origin::Agent
            && let Some(claim) = peer.claim()
            && let Err(rejection) = self.may_claim(&peer.identity, claim)
        {
            self.registry.leave(&claim.agent, &live);
            // They are in the registry no more, where whoever changes the policy would find them.
            for old in replaced {
                old.close(rejection.code, rejection.text.as_str());
            }
            return Err(rejection);
        }
        if let Some(claim) = peer.claim() {
            let generation = claim.generation;
            for old in replaced {
                old.close(CloseCode::REPLACED, &format!("generation {generation} has connected"));
            }
        }
        if self.is_draining() {
            connection.drain();
        }
        Ok(live)
    }
}

/// Watches a connection and takes its agent's streams.
async fn until_the_end(server: &Arc<Inner>, live: &Arc<LiveConnection>) -> ConnectionError {
    let connection = live.connection();
    let places = Arc::new(Semaphore::new(server.config.max_inbound_per_connection as usize));
    let mut closed = connection.closed();
    let mut draining = connection.draining();
    let mut accepting = true;
    loop {
        let next_inbound = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((place, connection.accept().await.ok()?))
        };
        tokio::select! {
            biased;
            cause = &mut closed => return cause,
            () = server.stop.cancelled() => break,
            () = &mut draining, if !live.is_draining() => live.set_draining(),
            inbound = next_inbound, if accepting => match inbound {
                Some((place, inbound)) => {
                    let task = handle(Arc::clone(server), Arc::clone(live), inbound);
                    server.tasks.spawn(async move {
                        task.await;
                        drop(place);
                    });
                }
                None => accepting = false,
            },
        }
    }
    connection.close(CloseCode::SHUTDOWN, SHUTTING_DOWN);
    let closed = timeout(CLOSE_LIMIT, closed).await;
    closed.unwrap_or_else(|_| {
        warn!(carrier = live.carrier(), "the carrier did not end a closed connection");
        ConnectionError::local(CloseCode::SHUTDOWN, SHUTTING_DOWN)
    })
}

/// Gives a stream that the agent has opened to the embedder.
async fn handle(server: Arc<Inner>, live: Arc<LiveConnection>, inbound: Box<dyn Inbound>) {
    let inbound = Tracked::inbound(&server, &live, inbound);
    let peer = live.connection().peer();
    tokio::select! {
        () = server.stop.cancelled() => {}
        () = server.inbound.handle(inbound, peer) => {}
    }
}
