//! What a server lets its clients do, at the opening of a stream and later.

use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tunnel_core::{
    Client, Opener, Policy, PolicyConfig, RecvError, RefusalKind, Selector, SendError, StreamCode, policy::RuleConfig,
};

use crate::support::{Behaviour, World, common_name, kind, request, round_trip, settle, soon};

fn policy(rules: Vec<RuleConfig>) -> Arc<Policy> {
    let config = PolicyConfig {
        rules,
        ..PolicyConfig::default()
    };
    Arc::new(Policy::new(config).unwrap())
}

fn rule(client: &str) -> RuleConfig {
    RuleConfig {
        clients: vec![client.into()],
        ..RuleConfig::default()
    }
}

fn client(name: &str) -> Client {
    Client {
        identity: common_name(name),
        ..Client::default()
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_only_the_program_itself_opens_streams() {
    let world = World::with(|builder| builder);
    let agent = world.agent("node-7", Behaviour::Echo).await;
    let failure = world.open().await.unwrap_err();
    assert_eq!(failure.refusal.kind, RefusalKind::HttpRequestDenied);
    assert_eq!(
        failure.refusal.text.as_str(),
        "the server's policy does not let anonymous reach tcp://db.example:5432: no rule allows it"
    );
    let io = world
        .server
        .dial(agent.id.clone(), "tcp://x:1".parse().unwrap())
        .await
        .unwrap();
    round_trip(io, b"hello").await;
}

#[tokio::test(start_paused = true)]
async fn only_agents_that_the_client_may_use_are_candidates() {
    let for_a = RuleConfig {
        agents: vec!["good-*".into()],
        ..rule("cn:a")
    };
    let world = World::with(|builder| builder.policy(policy(vec![for_a])));
    let mut agents = Vec::new();
    for at in 0..12 {
        agents.push(world.agent(&format!("bad-{at}"), Behaviour::Echo).await);
    }
    let mut wish = request();
    wish.client = client("a");
    assert_eq!(
        kind(world.server.open(wish.clone()).await),
        RefusalKind::HttpRequestDenied
    );
    agents.push(world.agent("good-1", Behaviour::Echo).await);
    for _ in 0..20 {
        assert_eq!(world.server.open(wish.clone()).await.unwrap().agent.as_str(), "good-1");
    }
}

#[tokio::test(start_paused = true)]
async fn choosing_an_agent_needs_leave() {
    let may_select = RuleConfig {
        may_select: true,
        ..rule("cn:admin")
    };
    let world = World::with(|builder| builder.policy(policy(vec![may_select, rule("*")])));
    let agent = world.agent("node-7", Behaviour::Echo).await;
    let mut wish = request();
    wish.selector = agent.id.clone().into();
    let failure = world.server.open(wish.clone()).await.unwrap_err();
    assert_eq!(failure.refusal.kind, RefusalKind::HttpRequestDenied);
    assert!(
        failure.to_string().contains("through an agent of its choice"),
        "{failure}"
    );
    wish.client = client("admin");
    world.server.open(wish).await.unwrap();
    world.open().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_may_not_use_an_agent_is_not_told_whether_it_is_connected() {
    let some = RuleConfig {
        agents: vec!["open-*".into()],
        may_select: true,
        ..rule("*")
    };
    let world = World::with(|builder| builder.policy(policy(vec![some])));
    let _agent = world.agent("secret-1", Behaviour::Echo).await;
    let mut texts = Vec::new();
    for name in ["secret-1", "secret-2"] {
        let mut wish = request();
        wish.selector = Selector::Agent(name.parse().unwrap());
        texts.push(world.server.open(wish).await.unwrap_err().to_string());
    }
    assert_eq!(texts[0], texts[1]);
    let mut wish = request();
    wish.selector = Selector::Agent("open-1".parse().unwrap());
    assert_eq!(kind(world.server.open(wish).await), RefusalKind::DestinationNotFound);
}

#[tokio::test(start_paused = true)]
async fn a_new_policy_ends_the_streams_that_it_does_not_allow() {
    let world = World::with(|builder| builder.policy(policy(vec![rule("*")])));
    let _agent = world.agent("node-7", Behaviour::Echo).await;
    let of = async |name| {
        let mut wish = request();
        wish.client = client(name);
        world.server.open(wish).await.unwrap().stream
    };
    let (mut bad, good) = (of("bad").await, of("good").await);
    let own = world
        .server
        .dial(Selector::Any, "tcp://x:1".parse().unwrap())
        .await
        .unwrap();

    // The receiver waits and must be woken; the sender finds out when it is used.
    let waiting = tokio::spawn(async move {
        let received = bad.rx.recv(1024).await;
        let sent = bad.tx.send_all("x".into()).await;
        (received, sent)
    });
    settle().await;
    assert!(!waiting.is_finished());
    world.server.set_policy(policy(vec![rule("cn:good")]));
    let (received, sent) = soon(waiting).await.unwrap();
    assert!(
        matches!(received, Err(RecvError::Stopped(StreamCode::POLICY))),
        "{received:?}"
    );
    assert!(matches!(sent, Err(SendError::Reset(StreamCode::POLICY))), "{sent:?}");
    round_trip(good.into_io(), b"still here").await;
    round_trip(own, b"me too").await;
    assert_eq!(
        world.metric("streams_ended_total{opener=\"server\",end=\"policy\"}"),
        1.0
    );
}

#[tokio::test(start_paused = true)]
async fn a_revoked_stream_is_reset_even_if_nobody_looks_at_it() {
    let world = World::new();
    let agent = world.agent("node-7", Behaviour::Wait).await;
    let accept = async { agent.connection.accept().await.unwrap().accept().await.unwrap() };
    let (opened, at_agent) = tokio::join!(world.open(), accept);
    let _unused = opened.unwrap();
    world.server.set_policy(Arc::new(Policy::deny_all()));
    let mut io = at_agent.into_io();
    let read = soon(io.read_u8()).await;
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_comes_while_a_dial_is_pending_holds_for_it() {
    let world = World::new();
    let agent = world.agent("node-7", Behaviour::Wait).await;
    let late = async {
        let inbound = agent.connection.accept().await.unwrap();
        world.server.set_policy(Arc::new(Policy::deny_all()));
        inbound.accept().await.unwrap()
    };
    let (opened, at_agent) = tokio::join!(world.open(), late);
    assert_eq!(kind(opened), RefusalKind::HttpRequestDenied);
    let read = soon(at_agent.into_io().read_u8()).await;
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(world.metric("streams_open{opener=\"server\"}"), 0.0);
}
