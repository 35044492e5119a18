//! Laws 14 and 15: who gets in.

use std::{sync::Arc, time::Duration};

use tokio::{
    join,
    task::JoinSet,
    time::{Instant, timeout},
};
use tunnel_core::{CloseCode, DialError, HandshakeError, Rejection};

use super::{
    fixtures::claim,
    harness::{Harness, Setup, Stage},
    seen::{OrSeen, Seen, Verdict, ensure, within},
    world::{DIAL, Doorman, World, meet, stream},
};
use crate::Side;

/// How many strangers are stuck at once.
const STUCK: usize = 8;

pub(super) async fn law_14_stuck_handshake(harness: &dyn Harness, first: Side) -> Verdict {
    match first {
        Side::Agent => stuck_agents(harness).await,
        Side::Server => stuck_server(harness).await,
    }
}

/// An agent gets in while others are stuck.
async fn stuck_agents(harness: &dyn Harness) -> Verdict {
    let setup = Setup::default();
    let Stage {
        carrier,
        mut listener,
        network,
    } = harness.stage(&setup).await.or_seen("setting the stage")?;
    let mut stuck = Vec::new();
    for _ in 0..STUCK {
        stuck.push(network.knock().await.or_seen("knocking")?);
    }
    let doorman = Arc::new(Doorman::new(&setup));
    let server = async {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                incoming = listener.accept() => {
                    let incoming = incoming.or_seen("accepting a connection")?;
                    let doorman = Arc::clone(&doorman);
                    handshakes.spawn(async move { incoming.handshake(&*doorman).await });
                }
                Some(handshake) = handshakes.join_next(), if !handshakes.is_empty() => {
                    if let Ok(Ok(connection)) = handshake {
                        return Verdict::Ok(connection);
                    }
                }
            }
        }
    };
    let claim = claim();
    let (agent, server) = within(harness.prompt(), "a connection beside stuck handshakes", async {
        join!(carrier.dial(&claim, Instant::now() + DIAL), server)
    })
    .await?;
    let (agent, server) = (agent.or_seen("dialling")?, server?);
    within(harness.prompt(), "a stream", stream(&agent, &server)).await??;

    // An attempt that is turned away knows at once.
    let (dialled, refused) = within(harness.prompt(), "the end of a dial that was refused", async {
        join!(carrier.dial(&claim, Instant::now() + DIAL), async {
            listener.accept().await.or_seen("accepting a connection")?.refuse();
            Verdict::Ok(())
        })
    })
    .await?;
    refused?;
    ensure!(dialled.is_err(), "a dial that was refused gave a connection");
    Ok(())
}

/// An agent gives up on a server that does not answer, and gets in when it does.
async fn stuck_server(harness: &dyn Harness) -> Verdict {
    let setup = Setup::default();
    let Stage {
        carrier, mut listener, ..
    } = harness.stage(&setup).await.or_seen("setting the stage")?;
    let wait = 2 * harness.prompt();
    let start = Instant::now();
    let claim = claim();
    let dial = carrier.dial(&claim, start + wait);
    match within(wait + harness.prompt(), "the end of a dial at its deadline", dial).await? {
        Err(DialError::TimedOut { .. }) => {}
        Err(other) => return Err(Seen(format!("a server that does not answer was seen as: {other}"))),
        Ok(_) => return Err(Seen("a server that does not answer gave a connection".to_owned())),
    }
    let waited = start.elapsed();
    let slack = Duration::from_millis(2);
    ensure!(
        waited + slack >= wait,
        "the dial gave up after {waited:?}, before its deadline"
    );
    let doorman = Arc::new(Doorman::new(&setup));
    // What was abandoned may still be in the queue, and the news of it under way.
    let server = async {
        let mut connected = Vec::new();
        loop {
            match listener.accept().await {
                Ok(incoming) => connected.extend(incoming.handshake(&*doorman).await),
                Err(failed) => return Seen(format!("accepting a connection: {failed}")),
            }
        }
    };
    within(harness.prompt(), "a dial after one that timed out", async {
        tokio::select! {
            dialled = carrier.dial(&claim, Instant::now() + DIAL) => dialled.or_seen("dialling").map(drop),
            failed = server => Err(failed),
        }
    })
    .await?
}

pub(super) async fn law_15_identity(harness: &dyn Harness, first: Side) -> Verdict {
    verified(harness, first).await?;
    rejected(harness).await?;
    untrusted(harness, first).await
}

/// What both ends know of each other is what was proven.
async fn verified(harness: &dyn Harness, first: Side) -> Verdict {
    let world = World::new(harness, first).await?;
    let (agent, server) = match first {
        Side::Agent => (&world.near, &world.far),
        Side::Server => (&world.far, &world.near),
    };
    let arrivals = world.doorman.arrivals();
    let [arrival] = arrivals.as_slice() else {
        return Err(Seen(format!("one agent was judged {} times", arrivals.len())));
    };
    let proven = harness.identity(Side::Agent);
    ensure!(
        arrival.identity == proven,
        "{:?} was judged for {proven:?}",
        arrival.identity
    );
    let said = world.is_own().then(claim);
    ensure!(arrival.claim == said, "the claim arrived as {:?}", arrival.claim);

    let mut identity = proven;
    identity.subject = world.is_own().then(|| Doorman::SUBJECT.to_owned());
    let peer = server.peer();
    ensure!(
        peer.identity == identity,
        "the server knows the agent as {:?}",
        peer.identity
    );
    let mut told = said;
    if let Some(told) = &mut told {
        told.credential = None;
    }
    ensure!(
        peer.claim() == told.as_ref(),
        "the server keeps the claim {:?}",
        peer.claim()
    );
    ensure!(
        peer.remote_addr == arrival.remote_addr,
        "the agent moved from {} to {}",
        arrival.remote_addr,
        peer.remote_addr
    );

    let peer = agent.peer();
    let proven = harness.identity(Side::Server);
    ensure!(
        peer.identity == proven,
        "the agent knows the server as {:?}",
        peer.identity
    );
    let welcome = Some(world.doorman.welcome()).filter(|_| world.is_own());
    ensure!(
        peer.welcome() == welcome,
        "the welcome {welcome:?} arrived as {:?}",
        peer.welcome()
    );
    let carriers = [
        arrival.carrier,
        agent.peer().carrier,
        server.peer().carrier,
        world.listener.name(),
    ];
    ensure!(
        carriers.iter().all(|name| *name == world.carrier.name()),
        "one carrier has the names {carriers:?}"
    );
    Ok(())
}

/// A rejection reaches the agent word for word, or as the end of the connection where there are no words for it; and the
/// next agent may be accepted.
async fn rejected(harness: &dyn Harness) -> Verdict {
    let setup = Setup::default();
    let mut stage = harness.stage(&setup).await.or_seen("setting the stage")?;
    let mut expected = Rejection::new(CloseCode::FORBIDDEN, "agent-7 is somebody else");
    expected.not_before = Some(Duration::from_millis(30_500));
    let is_foreign = !World::new(harness, Side::Agent).await?.is_own();
    let doorman = Doorman::strict(&setup, expected.clone());
    let claim = claim();
    let (dialled, shaken) = within(DIAL, "a rejection", async {
        join!(stage.carrier.dial(&claim, Instant::now() + DIAL), async {
            let incoming = stage.listener.accept().await.or_seen("accepting a connection")?;
            Verdict::Ok(incoming.handshake(&doorman).await)
        })
    })
    .await?;
    match dialled {
        Err(DialError::Rejected { rejection, .. }) => {
            ensure!(
                rejection == expected,
                "the rejection {expected:?} arrived as {rejection:?}"
            );
        }
        Err(DialError::Lost { .. } | DialError::Protocol { .. }) if is_foreign => {}
        Err(other) => return Err(Seen(format!("a rejection was seen as: {other}"))),
        Ok(_) => return Err(Seen("a rejected agent has a connection".to_owned())),
    }
    match shaken? {
        Err(HandshakeError::Rejected(rejection)) => ensure!(rejection == expected, "the server rejected {rejection:?}"),
        Err(other) => return Err(Seen(format!("the server saw its rejection as: {other}"))),
        Ok(_) => return Err(Seen("a rejected agent is connected at the server".to_owned())),
    }
    let doorman = Doorman::new(&setup);
    meet(&*stage.carrier, &mut *stage.listener, &doorman).await?;
    Ok(())
}

/// An end whose certificate the other does not trust gets no connection and gives none.
async fn untrusted(harness: &dyn Harness, side: Side) -> Verdict {
    let setup = Setup {
        untrusted: Some(side),
        ..Setup::default()
    };
    let mut stage = harness.stage(&setup).await.or_seen("setting the stage")?;
    let doorman = Doorman::new(&setup);
    let claim = claim();
    let dial = async {
        let dialled = stage.carrier.dial(&claim, Instant::now() + DIAL).await;
        ensure!(dialled.is_err(), "an untrusted {side} has a connection at the agent");
        Ok(())
    };
    let serve = async {
        let Ok(incoming) = stage.listener.accept().await else {
            return Ok(());
        };
        let shaken = incoming.handshake(&doorman).await;
        ensure!(shaken.is_err(), "an untrusted {side} has a connection at the server");
        Ok(())
    };
    // The server may never get to see an attempt that failed below it.
    let (dialled, served) = join!(dial, timeout(DIAL, serve));
    dialled?;
    served.unwrap_or(Ok(()))?;
    if side == Side::Agent {
        let judged = doorman.arrivals().len();
        ensure!(judged == 0, "the claim of an untrusted agent was judged");
    }
    Ok(())
}
