//! Serves one connection: takes the streams that the server opens, each in a task of its own.

use std::{future::ready, sync::Arc, time::Duration};

use tokio::{
    task::{JoinError, JoinSet},
    time::timeout,
};
use tracing::{error, info, warn};
use tunnel_proto::{CloseCode, Refusal, RefusalKind};

use super::{
    Inner,
    streams::{Pending, refuse},
};
use crate::{
    carrier::{Connection, Inbound, PeerRole},
    error::ConnectionError,
    keep::{Chain, Demand},
};

/// How long a carrier may take to say that a connection has ended which this side closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Serves a connection to its end, and the streams to theirs; gives the cause of the connection's. `served` is dropped
/// when the connection has ended. If the streams are a reason to have more connections, `demand` counts them.
pub(super) async fn run(
    agent: Arc<Inner>,
    connection: Arc<dyn Connection>,
    served: impl Send,
    demand: Option<Arc<Demand>>,
) -> ConnectionError {
    let carrier = connection.peer().carrier;
    let counted = agent.metrics.traffic.connection(carrier);

    let mut streams = JoinSet::new();
    let Ended { cause, draining } = until_the_end(&agent, &connection, demand.as_ref(), &mut streams).await;

    drop(served);
    counted.end(&cause);
    // A listener tells of the end of each, and who connects to one may leave at any time.
    let is_dialled = !matches!(connection.peer().role, PeerRole::Foreign);
    if is_dialled && cause.code() == Some(CloseCode::DRAINED) {
        info!(carrier, "a drained connection has ended: {}", Chain(&cause));
    } else if is_dialled && draining {
        warn!(carrier, "a draining connection was cut: {}", Chain(&cause));
    }
    // Relays see for themselves that the connection has ended, and pass that on.
    tokio::select! {
        biased;
        () = agent.stop.cancelled() => streams.shutdown().await,
        () = async { while let Some(ended) = streams.join_next().await { note_panic(ended); } } => {}
    }
    cause
}

/// How a connection has ended.
struct Ended {
    cause: ConnectionError,
    /// Whether it was being drained, and this agent did not cut that short. Nobody else tells of its end then.
    draining: bool,
}

/// Takes streams until the connection has ended.
async fn until_the_end(
    agent: &Arc<Inner>,
    connection: &Arc<dyn Connection>,
    demand: Option<&Arc<Demand>>,
    streams: &mut JoinSet<()>,
) -> Ended {
    let mut closed = connection.closed();
    let mut drained = std::pin::pin!(connection.draining());
    let mut leaving = std::pin::pin!(agent.leaving());
    let (mut accepting, mut staying, mut draining) = (true, true, false);
    loop {
        tokio::select! {
            biased;
            cause = &mut closed => return Ended { cause, draining },
            () = agent.stop.cancelled() => break,
            () = &mut leaving, if staying => {
                staying = false;
                connection.drain();
            }
            // One that has ended is said to drain, too.
            () = &mut drained, if !draining => tokio::select! {
                biased;
                cause = &mut closed => return Ended { cause, draining },
                () = ready(()) => draining = true,
            },
            Some(ended) = streams.join_next() => note_panic(ended),
            inbound = connection.accept(), if accepting => match inbound {
                Ok(inbound) => take(agent, connection, demand, inbound, streams),
                Err(_) => accepting = false,
            },
        }
    }
    let reason = "the agent is shutting down";
    connection.close(CloseCode::SHUTDOWN, reason);
    let cause = timeout(CLOSE_LIMIT, closed).await.unwrap_or_else(|_| {
        warn!(
            carrier = connection.peer().carrier,
            "the carrier did not end a closed connection"
        );
        ConnectionError::local(CloseCode::SHUTDOWN, reason)
    });
    Ended { cause, draining: false }
}

/// Gives a stream to the handler, unless too many wait for their answer.
fn take(
    agent: &Arc<Inner>,
    connection: &Arc<dyn Connection>,
    demand: Option<&Arc<Demand>>,
    inbound: Box<dyn Inbound>,
    streams: &mut JoinSet<()>,
) {
    let Ok(permit) = Arc::clone(&agent.pending).try_acquire_owned() else {
        let limit = agent.config.max_pending_dials;
        let text = format!("{limit} streams wait for their target, which is this agent's limit; try again later");
        let refusal = Refusal::new(RefusalKind::ConnectionLimitReached, text);
        return refuse(&agent.metrics, inbound, refusal);
    };
    let inbound = Pending::new(inbound, agent.metrics.clone(), permit);
    let (agent, connection) = (Arc::clone(agent), Arc::clone(connection));
    let demanding = demand.and_then(Demand::count);
    streams.spawn(async move {
        agent.handler.handle(inbound, connection.peer()).await;
        drop(demanding);
    });
}

/// A handler that panics ends its stream and nothing else.
fn note_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!("the handler of a stream panicked: {error}");
    }
}
