//! Law 7: futures that are dropped early.

use std::{sync::Arc, time::Duration};

use tokio::{
    join,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
    try_join,
};
use tunnel_core::{Carrier, Connection, Duplex, Inbound, Listener, OpenError};

use super::{
    fixtures::{claim, head, name},
    harness::{Harness, Setup},
    seen::{OrSeen, Seen, Verdict, ensure, within},
    traffic::{Background, Dropped, abandon, echo, expect_all, is_pending},
    world::{DIAL, Doorman, World, stream},
};
use crate::Side;

/// More polls than any future needs when every event wakes it a few times.
const MOST_POLLS: usize = 100;

pub(super) async fn law_07_cancellation(harness: &dyn Harness, first: Side) -> Verdict {
    let world = World::new(harness, first).await?;
    if world.can_open() {
        open(&world).await?;
        accept(&world).await?;
        accept_beside_another(&world).await?;
        answer(&world).await?;
        cancelled(&world).await?;
        world.works().await?;
    }
    match first {
        Side::Agent => dial(harness).await,
        Side::Server => {
            accept_attempt(harness).await?;
            handshake(harness).await
        }
    }
}

/// Drops `open` after every number of polls.
async fn open(world: &World) -> Verdict {
    let _echo = echo(&world.far);
    for moment in Dropped::moments(MOST_POLLS) {
        let opened = timeout(world.prompt, abandon(moment, world.near.open(head("open")))).await;
        let opened = opened.ok().flatten().transpose().or_seen("opening a stream")?;
        if let Some(mut stream) = opened {
            stream.tx.send_all("whole".into()).await.or_seen("sending")?;
            stream.tx.finish().await.or_seen("finishing")?;
            within(world.prompt, "an echo", expect_all(&mut stream, b"whole")).await??;
            drop(stream);
            return world.no_streams().await;
        }
        let left = world.no_streams().await;
        left.map_err(|Seen(seen)| Seen(format!("open was {moment}, and {seen}")))?;
    }
    never("open")
}

/// Drops `accept` after every number of polls: the next call has the stream.
async fn accept(world: &World) -> Verdict {
    for moment in Dropped::moments(MOST_POLLS) {
        let stream = format!("stream-{}", moment.polls);
        let opening = open_soon(world, &stream);
        let first = timeout(world.prompt, abandon(moment, world.far.accept())).await;
        let completed = matches!(first, Ok(Some(_)));
        let inbound = match first.ok().flatten() {
            Some(inbound) => inbound,
            None => {
                let what = format!("the stream, after an accept was {moment}");
                within(world.prompt, what, world.far.accept()).await?
            }
        };
        finish_opening(world, opening, inbound.or_seen("accepting")?, &stream).await?;
        if completed {
            return world.no_streams().await;
        }
    }
    never("accept")
}

/// Drops one of two waiting `accept`s when the stream has come: the other one has it.
async fn accept_beside_another(world: &World) -> Verdict {
    let opening = open_soon(world, "beside");
    let woken = Dropped {
        polls: 1,
        when_woken: true,
    };
    let (first, other) = join!(
        timeout(world.prompt, abandon(woken, world.far.accept())),
        timeout(world.prompt, world.far.accept()),
    );
    let inbound = match (first.ok().flatten(), other) {
        (None, Ok(inbound)) => inbound,
        (Some(_), _) => return Err(Seen("an accept completed in one poll without a stream".to_owned())),
        (None, Err(_)) => {
            let seen = "two accepts waited, one was dropped when a stream came, and the other did not get it";
            return Err(Seen(seen.to_owned()));
        }
    };
    finish_opening(world, opening, inbound.or_seen("accepting")?, "beside").await?;
    world.no_streams().await
}

type Opening = tokio::task::JoinHandle<Result<Duplex, OpenError>>;

/// Opens a stream when everybody who waits for it has begun to.
fn open_soon(world: &World, name: &str) -> Opening {
    let (near, head) = (Arc::clone(&world.near), head(name));
    tokio::spawn(async move {
        sleep(Duration::from_millis(1)).await;
        near.open(head).await
    })
}

async fn finish_opening(world: &World, opening: Opening, inbound: Box<dyn Inbound>, expected: &str) -> Verdict {
    let seen = name(inbound.head());
    ensure!(seen == expected, "the stream {seen} was accepted instead of {expected}");
    let mut far = inbound.accept().await.or_seen("answering")?;
    let opened = within(world.prompt, "the answer", opening).await?.or_seen("opening")?;
    let mut near = opened.or_seen("opening")?;
    near.tx.send_all("whole".into()).await.or_seen("sending")?;
    near.tx.finish().await.or_seen("finishing")?;
    within(world.prompt, "the bytes", expect_all(&mut far, b"whole")).await?
}

/// Drops the future of an answer after every number of polls: the opener does not wait for ever.
async fn answer(world: &World) -> Verdict {
    for moment in Dropped::moments(MOST_POLLS) {
        let opening = open_soon(world, "answer");
        let inbound = within(world.prompt, "a stream", world.far.accept()).await?;
        let inbound = inbound.or_seen("accepting")?;
        let answered = timeout(world.prompt, abandon(moment, inbound.accept())).await;
        let answered = answered.ok().flatten().transpose().or_seen("answering")?;
        let what = format!("the outcome of an open whose answer was {moment}");
        let opened = within(world.prompt, &what, opening).await?.or_seen("opening")?;
        match (answered, opened) {
            (Some(_), opened) => {
                opened.or_seen("opening")?;
                return Ok(());
            }
            (None, Ok(mut stream)) => {
                let seen = within(world.prompt, &what, stream.rx.recv(1)).await?;
                ensure!(seen.is_err(), "{what} is a stream that yields {seen:?}");
            }
            (None, Err(_)) => {}
        }
        world.no_streams().await?;
    }
    never("the future of an answer")
}

/// Gives a stream up that the other side holds: it learns of it.
async fn cancelled(world: &World) -> Verdict {
    let opening = open_soon(world, "cancelled");
    let inbound = within(world.prompt, "a stream", world.far.accept()).await?;
    let mut inbound = inbound.or_seen("accepting")?;
    {
        let mut cancelled = inbound.cancelled();
        ensure!(
            is_pending(&mut cancelled).await,
            "a stream was cancelled though its opener waits"
        );
        opening.abort();
        within(world.prompt, "the news that an opener has given up", cancelled).await?;
    }
    if let Ok(mut stream) = inbound.accept().await {
        let seen = within(
            world.prompt,
            "the reset of a stream that was given up",
            stream.rx.recv(1),
        )
        .await?;
        ensure!(seen.is_err(), "a stream that was given up yields {seen:?}");
    }
    world.no_streams().await
}

/// A server that hands out its connections.
struct Server {
    connections: mpsc::Receiver<Arc<dyn Connection>>,
    _task: Background,
}

impl Server {
    fn start(mut listener: Box<dyn Listener>, doorman: Arc<Doorman>) -> Self {
        let (sender, connections) = mpsc::channel(16);
        let task = Background::spawn(async move {
            let mut handshakes = JoinSet::new();
            while let Ok(incoming) = listener.accept().await {
                let (doorman, sender) = (Arc::clone(&doorman), sender.clone());
                handshakes.spawn(async move {
                    if let Ok(connection) = incoming.handshake(&*doorman).await {
                        // Nobody is left to tell when the law is over.
                        let _ = sender.send(connection).await;
                    }
                });
            }
        });
        Self {
            connections,
            _task: task,
        }
    }
}

/// Drops `dial` after every number of polls: the server is left with no connection that seems to live.
async fn dial(harness: &dyn Harness) -> Verdict {
    let setup = Setup::default();
    let stage = harness.stage(&setup).await.or_seen("setting the stage")?;
    let mut server = Server::start(stage.listener, Arc::new(Doorman::new(&setup)));
    let limit = setup.keepalive.bound() + harness.prompt();
    for moment in Dropped::moments(MOST_POLLS) {
        let claim = claim();
        let dial = stage.carrier.dial(&claim, Instant::now() + DIAL);
        let dialled = abandon(moment, dial).await.transpose().or_seen("dialling")?;
        let what = format!("a server's connection whose dial was {moment}");
        if let Some(agent) = dialled {
            // Those of earlier attempts have ended; this one lives.
            while let Some(connection) = within(limit, &what, server.connections.recv()).await? {
                if timeout(harness.prompt(), connection.closed()).await.is_err() {
                    let streams = stream(&agent, &connection);
                    within(harness.prompt(), "a stream", streams).await??;
                    return Ok(());
                }
            }
            return Err(Seen("the server took no connection".to_owned()));
        }
        while let Ok(Some(connection)) = timeout(harness.prompt(), server.connections.recv()).await {
            within(limit, format_args!("the end of {what}"), connection.closed()).await?;
        }
    }
    never("dial")
}

/// Drops a listener's `accept` after every number of polls: the next call has the attempt.
async fn accept_attempt(harness: &dyn Harness) -> Verdict {
    let setup = Setup::default();
    let mut stage = harness.stage(&setup).await.or_seen("setting the stage")?;
    let doorman = Doorman::new(&setup);
    for moment in Dropped::moments(MOST_POLLS) {
        let claim = claim();
        let dial = async {
            sleep(Duration::from_millis(1)).await;
            let dialled = stage.carrier.dial(&claim, Instant::now() + DIAL).await;
            dialled.or_seen(format_args!("a dial, after a listener's accept was {moment},"))
        };
        let serve = async {
            let first = timeout(harness.prompt(), abandon(moment, stage.listener.accept())).await;
            let completed = matches!(first, Ok(Some(_)));
            let incoming = match first.ok().flatten() {
                Some(incoming) => incoming,
                None => {
                    let what = format!("the attempt to connect, after a listener's accept was {moment}");
                    within(harness.prompt(), what, stage.listener.accept()).await?
                }
            };
            let incoming = incoming.or_seen("accepting a connection")?;
            let server = incoming.handshake(&doorman).await.or_seen("the server's handshake")?;
            Ok((server, completed))
        };
        let (_agent, (_server, completed)) = try_join!(dial, serve)?;
        if completed {
            return Ok(());
        }
    }
    never("a listener's accept")
}

/// Drops `handshake` after every number of polls: the agent is left with no connection that seems to live.
async fn handshake(harness: &dyn Harness) -> Verdict {
    let setup = Setup::default();
    let stage = harness.stage(&setup).await.or_seen("setting the stage")?;
    let doorman = Doorman::new(&setup);
    let limit = setup.keepalive.bound() + harness.prompt();
    let carrier: Arc<dyn Carrier> = Arc::from(stage.carrier);
    let mut listener = stage.listener;
    for moment in Dropped::moments(MOST_POLLS) {
        let dialling = {
            let carrier = Arc::clone(&carrier);
            tokio::spawn(async move { carrier.dial(&claim(), Instant::now() + DIAL).await })
        };
        let incoming = within(limit, "an attempt to connect", listener.accept()).await?;
        let incoming = incoming.or_seen("accepting a connection")?;
        let shaken = timeout(harness.prompt(), abandon(moment, incoming.handshake(&doorman))).await;
        let shaken = shaken.ok().flatten().transpose().or_seen("a handshake")?;
        let what = format!("the outcome of a dial whose handshake was {moment}");
        let dialled = within(DIAL + harness.prompt(), &what, dialling)
            .await?
            .or_seen("dialling")?;
        match (shaken, dialled) {
            (Some(server), agent) => {
                let agent = agent.or_seen("dialling")?;
                let streams = stream(&agent, &server);
                within(harness.prompt(), "a stream", streams).await??;
                return Ok(());
            }
            (None, Ok(agent)) => {
                let what = format!("the end of an agent's connection whose handshake was {moment}");
                within(limit, what, agent.closed()).await?;
            }
            (None, Err(_)) => {}
        }
    }
    never("handshake")
}

fn never<T>(what: &str) -> Verdict<T> {
    Err(Seen(format!("{what} did not complete within {MOST_POLLS} polls")))
}
