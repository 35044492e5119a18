//! The end of a server.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep},
};
use tunnel_core::{
    CloseCode, DialError, Inbound, InboundHandler, OpenError, Peer, Policy, RefusalKind, Selector, StreamHead,
};

use crate::support::{Behaviour, World, claim, common_name, kind, round_trip, settle, soon};

#[tokio::test(start_paused = true)]
async fn a_drain_lets_nothing_start_and_everything_finish() {
    let world = World::new();
    let agent = world.agent("node-7", Behaviour::Echo).await;
    let held = world.open().await.unwrap();
    assert!(!world.server.is_draining());
    world.server.drain();
    assert!(world.server.is_draining());
    soon(world.server.draining()).await;

    soon(agent.connection.draining()).await;
    let failure = world.open().await.unwrap_err();
    assert_eq!(failure.refusal.kind, RefusalKind::DestinationUnavailable);
    assert_eq!(
        failure.refusal.text.as_str(),
        "this server is shutting down; use another one"
    );

    let newcomer = world.carrier.another(common_name("late"));
    match world
        .connect(&newcomer, claim("late", 1), Behaviour::Echo)
        .await
        .map(|agent| agent.id.clone())
    {
        Err(DialError::Rejected { rejection, .. }) => {
            assert_eq!(rejection.code, CloseCode::SHUTDOWN);
            assert_eq!(rejection.not_before, Some(Duration::from_secs(5)));
        }
        other => panic!("not rejected: {other:?}"),
    }

    round_trip(held.stream.into_io(), b"still here").await;
    assert_eq!(agent.end().await.code(), Some(CloseCode::DRAINED));
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_streams_and_no_longer() {
    let world = World::new();
    let _agent = world.agent("node-7", Behaviour::Echo).await;
    let held = world.open().await.unwrap();
    let server = world.server.clone();
    let shutdown = tokio::spawn(async move { server.shutdown(Duration::from_secs(60)).await });
    sleep(Duration::from_secs(5)).await;
    assert!(!shutdown.is_finished());
    round_trip(held.stream.into_io(), b"still here").await;
    assert_eq!(soon(shutdown).await.unwrap(), 0);
    assert_eq!(world.connected(), []);
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_until_the_last_bytes_have_arrived() {
    let world = World::new();
    let agent = world.agent("node-7", Behaviour::Wait).await;
    let connection = Arc::clone(&agent.connection);
    let accepting = tokio::spawn(async move { connection.accept().await.unwrap().accept().await.unwrap() });
    let mut client = world.open().await.unwrap().stream.into_io();
    let mut target = accepting.await.unwrap().into_io();
    target.shutdown().await.unwrap();
    client.write_all(b"the last bytes").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    drop(client);

    let server = world.server.clone();
    let shutdown = tokio::spawn(async move { server.shutdown(Duration::from_secs(60)).await });
    sleep(Duration::from_secs(5)).await;
    let mut received = Vec::new();
    target.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"the last bytes");
    assert_eq!(soon(shutdown).await.unwrap(), 0);
    assert_eq!(agent.end().await.code(), Some(CloseCode::DRAINED));
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_what_does_not_end_itself() {
    let world = World::new();
    let agent = world.agent("node-7", Behaviour::Echo).await;
    let mut held = world.open().await.unwrap().stream.into_io();
    let pending = world.agent("silent", Behaviour::Ignore).await;
    let server = world.server.clone();
    let dial = tokio::spawn(async move {
        server
            .dial(Selector::Agent("silent".parse().unwrap()), "tcp://x:1".parse().unwrap())
            .await
    });
    settle().await;
    let before = Instant::now();
    assert_eq!(world.server.shutdown(Duration::from_secs(10)).await, 1);
    assert_eq!(before.elapsed(), Duration::from_secs(10));
    assert!(held.read_u8().await.is_err());
    assert!(dial.await.unwrap().is_err());
    for agent in [agent, pending] {
        assert_eq!(agent.end().await.code(), Some(CloseCode::SHUTDOWN), "{}", agent.id);
    }
    assert_eq!(world.connected(), []);
    assert_eq!(
        world.metric("streams_open{opener=\"server\"}"),
        1.0,
        "held is still held"
    );
    drop(held);
    assert_eq!(world.metric("streams_open{opener=\"server\"}"), 0.0);
    assert_eq!(
        world.metric("streams_ended_total{opener=\"server\",end=\"shutdown\"}"),
        1.0
    );
}

#[tokio::test(start_paused = true)]
async fn no_task_is_left_after_a_shutdown() {
    let world = World::with(|builder| builder.inbound(Arc::new(Hang)).policy(Arc::new(Policy::allow_all())));
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(before > 0, "the accept loop runs");
    let _knock = world.carrier.knock().await.unwrap();
    let agent = world.agent("node-7", Behaviour::Echo).await;
    let connection = Arc::clone(&agent.connection);
    let opening = tokio::spawn(async move { connection.open(StreamHead::new("tcp://x:1".parse().unwrap())).await });
    settle().await;
    world.server.shutdown(Duration::from_secs(1)).await;
    let _ = opening.await;
    drop(agent);
    settle().await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_server_ends_everything() {
    let world = World::new();
    let agent = world.agent("node-7", Behaviour::Echo).await;
    let carrier = world.carrier.clone();
    let clone = world.server.clone();
    drop(world);
    settle().await;
    assert_eq!(clone.agents().len(), 1);
    drop(clone);
    assert_eq!(agent.end().await.code(), Some(CloseCode::SHUTDOWN));
    assert!(carrier.knock().await.is_err(), "nobody listens any more");
}

/// Takes streams from agents and never answers.
#[derive(Debug)]
struct Hang;

#[async_trait]
impl InboundHandler for Hang {
    async fn handle(&self, _inbound: Box<dyn Inbound>, _: &Peer) {
        std::future::pending().await
    }
}

/// Answers streams from agents with the agent's name.
#[derive(Debug)]
struct Greet;

#[async_trait]
impl InboundHandler for Greet {
    async fn handle(&self, inbound: Box<dyn Inbound>, agent: &Peer) {
        let mut io = inbound.accept().await.unwrap().into_io();
        let name = agent.claim().unwrap().agent.to_string();
        io.write_all(name.as_bytes()).await.unwrap();
        io.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn streams_from_agents_are_refused_unless_somebody_wants_them() {
    let world = World::new();
    let agent = world.agent("node-7", Behaviour::Echo).await;
    let head = StreamHead::new("tcp://x:1".parse().unwrap());
    match agent.connection.open(head.clone()).await {
        Err(OpenError::Refused(refusal)) => {
            assert_eq!(refusal.kind, RefusalKind::HttpRequestDenied);
            assert_eq!(refusal.text.as_str(), "this server takes no streams from agents");
        }
        other => panic!("not refused: {other:?}"),
    }

    let world = World::with(|builder| builder.inbound(Arc::new(Greet)));
    let agent = world.agent("node-7", Behaviour::Echo).await;
    let mut text = String::new();
    let mut io = agent.connection.open(head).await.unwrap().into_io();
    io.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "node-7");
    drop(io);
    settle().await;
    assert_eq!(world.metric("streams_total{opener=\"agent\"}"), 1.0);
    assert_eq!(world.metric("streams_open{opener=\"agent\"}"), 0.0);
    assert_eq!(kind(world.open().await), RefusalKind::HttpRequestDenied);
}
