//! Through which agent a stream goes, and what happens when that fails.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tunnel_core::{
    CloseCode, Labels, Opened, Opener, Policy, RefusalKind, Selector, ServerConfig,
    registry::{Session, View},
    route::{self, Candidates, RouteRequest, Strategy},
};

use crate::support::{Agent, Behaviour, World, claim, common_name, kind, request, round_trip, settle, soon};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let mut labels = Labels::default();
    for (name, value) in pairs {
        assert!(labels.insert(name, value));
    }
    labels
}

#[tokio::test(start_paused = true)]
async fn without_an_agent_the_answer_comes_at_once() {
    let world = World::new();
    let before = Instant::now();
    let failure = world.open().await.unwrap_err();
    assert_eq!(failure.refusal.kind, RefusalKind::DestinationUnavailable);
    assert_eq!(failure.refusal.text.as_str(), "no agent is connected to this server");
    assert_eq!(failure.agent, None);

    let mut named = request();
    named.selector = Selector::Agent("node-7".parse().unwrap());
    let failure = world.server.open(named).await.unwrap_err();
    assert_eq!(failure.refusal.kind, RefusalKind::DestinationNotFound);
    assert_eq!(
        failure.refusal.text.as_str(),
        "agent node-7 is not connected to this server"
    );

    let _agent = world.agent("node-8", Behaviour::Echo).await;
    let mut labelled = request();
    labelled.selector = labels(&[("zone", "b"), ("arch", "arm64")]).into();
    let failure = world.server.open(labelled).await.unwrap_err();
    assert_eq!(failure.refusal.kind, RefusalKind::DestinationUnavailable);
    assert_eq!(
        failure.refusal.text.as_str(),
        "none of the 1 connected agents has the labels arch=arm64,zone=b"
    );
    assert!(before.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn an_agent_can_be_chosen_by_id_or_by_labels() {
    let world = World::new();
    let mut agents = Vec::new();
    for (name, zone) in [("a", "x"), ("b", "y"), ("c", "y")] {
        let mut claim = claim(name, 1);
        claim.labels = labels(&[("zone", zone), ("name", name)]);
        let carrier = world.carrier.another(common_name(name));
        agents.push(world.connect(&carrier, claim, Behaviour::Echo).await.unwrap());
    }
    for _ in 0..20 {
        let mut wish = request();
        wish.selector = Selector::Agent("b".parse().unwrap());
        assert_eq!(world.server.open(wish).await.unwrap().agent.as_str(), "b");
        let mut wish = request();
        wish.selector = Selector::Labels(labels(&[("zone", "y")]));
        assert_ne!(world.server.open(wish).await.unwrap().agent.as_str(), "a");
    }
}

#[tokio::test(start_paused = true)]
async fn streams_are_spread_over_agents_and_over_their_connections() {
    let world = World::new();
    let mut agents = Vec::new();
    for (name, connections) in [("a", 1), ("b", 4)] {
        let carrier = world.carrier.another(common_name(name));
        for _ in 0..connections {
            agents.push(world.connect(&carrier, claim(name, 1), Behaviour::Echo).await.unwrap());
        }
    }
    let mut streams = Vec::new();
    for _ in 0..40 {
        streams.push(world.open().await.unwrap());
    }
    let counts: Vec<_> = agents
        .iter()
        .map(|agent| agent.connection.stats().streams_open)
        .collect();
    assert_eq!(counts, [20, 5, 5, 5, 5]);
    drop(streams);
    settle().await;
    let view = world.server.agents();
    let now = Instant::now();
    assert!(
        view.sessions()
            .iter()
            .all(|session| session.load(now).unwrap().streams == 0)
    );
}

#[tokio::test(start_paused = true)]
async fn another_agent_is_tried_if_the_stream_was_not_delivered() {
    for undelivered in [RefusalKind::ConnectionLimitReached, RefusalKind::DestinationUnavailable] {
        let world = World::new();
        let _bad = world.agent("bad", Behaviour::Refuse(undelivered)).await;
        let _good = world.agent("good", Behaviour::Echo).await;
        for _ in 0..20 {
            let opened = world.open().await.unwrap();
            assert_eq!(opened.agent.as_str(), "good");
            round_trip(opened.stream.into_io(), b"hello").await;
        }
        assert!(world.metric("dial_retries_total") > 0.0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_target_s_own_refusal_is_final() {
    for (behaviour, expected) in [
        (
            Behaviour::Refuse(RefusalKind::ConnectionRefused),
            RefusalKind::ConnectionRefused,
        ),
        (Behaviour::Refuse(RefusalKind::DnsError), RefusalKind::DnsError),
        (
            Behaviour::Refuse(RefusalKind::DestinationIpProhibited),
            RefusalKind::DestinationIpProhibited,
        ),
    ] {
        let world = World::new();
        let _agents = [
            world.agent("a", behaviour.clone()).await,
            world.agent("b", behaviour.clone()).await,
        ];
        let failure = world.open().await.unwrap_err();
        assert_eq!(failure.refusal.kind, expected);
        assert!(failure.agent.is_some());
        assert_eq!(world.metric("dial_retries_total"), 0.0);
    }
}

#[tokio::test(start_paused = true)]
async fn tries_are_bounded_and_the_last_reason_is_given() {
    let world = World::new();
    let mut agents = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        agents.push(
            world
                .agent(name, Behaviour::Refuse(RefusalKind::ConnectionLimitReached))
                .await,
        );
    }
    assert_eq!(kind(world.open().await), RefusalKind::ConnectionLimitReached);
    assert_eq!(world.metric("dial_retries_total"), 2.0);
}

#[tokio::test(start_paused = true)]
async fn a_pending_dial_fails_at_once_when_the_agent_is_cut() {
    let world = World::new();
    let agent = world.agent("node-7", Behaviour::Ignore).await;
    let server = world.server.clone();
    let dial = tokio::spawn(async move { server.open(request()).await });
    sleep(Duration::from_secs(3)).await;
    assert!(!dial.is_finished());
    let before = Instant::now();
    agent.carrier.wire().cut();
    assert_eq!(kind(dial.await.unwrap()), RefusalKind::ConnectionTerminated);
    assert!(before.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_dial_may_have_all_the_time_there_is() {
    let mut config = ServerConfig::default();
    config.dial_timeout = Duration::MAX;
    let world = World::with(|builder| builder.policy(Arc::new(Policy::allow_all())).config(config));
    let _agent = world.agent("node-7", Behaviour::Echo).await;
    round_trip(world.open().await.unwrap().stream.into_io(), b"hello").await;
}

#[tokio::test(start_paused = true)]
async fn a_dial_has_a_deadline_and_the_agent_hears_of_it() {
    let world = World::new();
    let agent = world.agent("node-7", Behaviour::Ignore).await;
    let before = Instant::now();
    assert_eq!(kind(world.open().await), RefusalKind::ConnectionTimeout);
    assert_eq!(before.elapsed(), Duration::from_secs(30));

    let mut hurried = request();
    hurried.head.deadline = Some(Duration::from_secs(2));
    let before = Instant::now();
    let failure = world.server.open(hurried).await.unwrap_err();
    assert_eq!(failure.refusal.kind, RefusalKind::ConnectionTimeout);
    assert_eq!(
        failure.to_string(),
        "agent node-7: the agent did not answer within 2s (connection_timeout)"
    );
    assert_eq!(before.elapsed(), Duration::from_secs(2));
    assert_eq!(agent.connection.stats().streams_open, 0);
}

#[tokio::test(start_paused = true)]
async fn the_agent_is_told_to_answer_a_little_before_the_deadline() {
    let world = World::new();
    let carrier = world.carrier.another(common_name("a"));
    let deadline = Instant::now() + Duration::from_secs(5);
    let connection = tunnel_core::Carrier::dial(&carrier, &claim("a", 1), deadline)
        .await
        .unwrap();
    settle().await;
    let mut hurried = request();
    hurried.head.deadline = Some(Duration::from_secs(2));
    let open = world.server.open(hurried);
    let answer = async {
        let inbound = connection.accept().await.unwrap();
        assert_eq!(inbound.head().deadline, Some(Duration::from_millis(1800)));
        sleep(inbound.head().deadline.unwrap()).await;
        let text = "the target did not accept within 1.8s";
        inbound.refuse(tunnel_core::Refusal::new(RefusalKind::ConnectionTimeout, text));
    };
    let (opened, ()) = tokio::join!(open, answer);
    assert!(opened.unwrap_err().to_string().contains("the target did not accept"));
}

#[tokio::test(start_paused = true)]
async fn giving_up_a_dial_gives_it_up_on_the_agent_s_side() {
    let world = World::new();
    let agent = world.agent("node-7", Behaviour::Ignore).await;
    let dial = tokio::time::timeout(Duration::from_millis(100), world.open()).await;
    assert!(dial.is_err());
    settle().await;
    assert_eq!(agent.connection.stats().streams_open, 0);
    assert_eq!(world.metric("dials_pending"), 0.0);
    assert_eq!(
        world.server.agents().sessions()[0]
            .load(Instant::now())
            .unwrap()
            .streams,
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_frozen_agent_loses_its_share_before_its_connection_ends() {
    let world = World::new();
    let frozen = world.agent("frozen", Behaviour::Echo).await;
    let _well = world.agent("well", Behaviour::Echo).await;
    frozen.carrier.wire().silence();
    // Two clients in a row wait in vain; both leave before keepalive has noticed.
    for _ in 0..2 {
        let mut wish = request();
        wish.selector = frozen.id.clone().into();
        wish.head.deadline = Some(Duration::from_secs(2));
        assert_eq!(kind(world.server.open(wish).await), RefusalKind::ConnectionTimeout);
    }
    assert_eq!(world.connected().len(), 2, "keepalive has not noticed yet");
    let mut streams = Vec::new();
    for _ in 0..50 {
        let opened = soon(world.open()).await.unwrap();
        assert_eq!(opened.agent.as_str(), "well");
        streams.push(opened);
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspect_agent_that_answers_is_trusted_again() {
    let world = World::new();
    let agent = world.agent("node-7", Behaviour::Echo).await;
    agent.carrier.wire().silence();
    for _ in 0..2 {
        let mut wish = request();
        wish.head.deadline = Some(Duration::from_secs(1));
        assert_eq!(kind(world.server.open(wish).await), RefusalKind::ConnectionTimeout);
    }
    let suspect = || {
        world.server.agents().sessions()[0]
            .load(Instant::now())
            .unwrap()
            .suspect
    };
    assert!(suspect());
    agent.carrier.wire().restore();
    world.open().await.unwrap();
    assert!(!suspect());
}

#[tokio::test(start_paused = true)]
async fn a_draining_agent_is_passed_over() {
    let world = World::new();
    let draining = world.agent("draining", Behaviour::Echo).await;
    let _well = world.agent("well", Behaviour::Echo).await;
    let mut wish = request();
    wish.selector = draining.id.clone().into();
    let held = world.server.open(wish.clone()).await.unwrap();
    draining.connection.drain();
    settle().await;
    let mut agents = BTreeMap::new();
    let mut streams = Vec::new();
    for _ in 0..20 {
        let opened = world.open().await.unwrap();
        *agents.entry(opened.agent.to_string()).or_insert(0) += 1;
        streams.push(opened);
    }
    assert_eq!(agents, [("well".to_owned(), 20)].into());
    assert_eq!(
        world.metric("dial_retries_total"),
        0.0,
        "the draining one was not even tried"
    );
    assert_eq!(kind(world.server.open(wish).await), RefusalKind::DestinationUnavailable);
    round_trip(held.stream.into_io(), b"still here").await;
    assert_eq!(draining.end().await.code(), Some(CloseCode::DRAINED));
}

/// Two connections of one agent, of which the second is the less busy one by a stream.
async fn busy_and_idle(world: &World) -> (Agent, Agent, [Opened; 3]) {
    let carrier = world.carrier.another(common_name("a"));
    let first = world.connect(&carrier, claim("a", 1), Behaviour::Echo).await.unwrap();
    let second = world.connect(&carrier, claim("a", 1), Behaviour::Echo).await.unwrap();
    let held = [
        world.open().await.unwrap(),
        world.open().await.unwrap(),
        world.open().await.unwrap(),
    ];
    let (busy, idle) = match first.connection.stats().streams_open {
        2 => (first, second),
        _ => (second, first),
    };
    assert_eq!(busy.connection.stats().streams_open, 2);
    (busy, idle, held)
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_nobody_has_noticed_yet_costs_another_try() {
    let world = World::new();
    let (busy, idle, _held) = busy_and_idle(&world).await;
    idle.connection.drain();
    let _opened = world.open().await.unwrap();
    assert_eq!(busy.connection.stats().streams_open, 3);
    assert_eq!(world.metric("dial_retries_total"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_nobody_has_noticed_yet_costs_another_try() {
    let world = World::new();
    let (busy, idle, _held) = busy_and_idle(&world).await;
    idle.connection.close(CloseCode::DONE, "");
    let _opened = world.open().await.unwrap();
    assert_eq!(busy.connection.stats().streams_open, 3);
    assert_eq!(world.metric("dial_retries_total"), 1.0);

    busy.connection.close(CloseCode::DONE, "");
    let failure = world.open().await.unwrap_err();
    assert_eq!(failure.refusal.kind, RefusalKind::DestinationUnavailable);
    assert_eq!(
        failure.to_string(),
        "agent a: the agent's connection has ended: the peer closed the connection: done (0x0) \
         (destination_unavailable)"
    );
}

#[tokio::test(start_paused = true)]
async fn connections_that_turn_out_to_drain_do_not_use_up_the_tries() {
    let world = World::new();
    let carrier = world.carrier.another(common_name("leaving"));
    let mut leaving = Vec::new();
    for _ in 0..6 {
        leaving.push(
            world
                .connect(&carrier, claim("leaving", 1), Behaviour::Echo)
                .await
                .unwrap(),
        );
    }
    let well = world.agent("well", Behaviour::Echo).await;
    let mut busy = request();
    busy.selector = well.id.clone().into();
    let _busy = world.server.open(busy).await.unwrap();
    for (number, agent) in leaving.iter().enumerate() {
        match number % 2 {
            0 => agent.connection.drain(),
            _ => agent.connection.close(CloseCode::DONE, ""),
        }
    }
    let opened = world.open().await.unwrap();
    assert_eq!(opened.agent.as_str(), "well");
    assert_eq!(world.metric("dial_retries_total"), 6.0);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_connection_is_that_of_its_streams_alone() {
    let world = World::new();
    let connect = async |behaviour| {
        let carrier = world.carrier.another(common_name("a"));
        world.connect(&carrier, claim("a", 1), behaviour).await.unwrap()
    };
    let echo = connect(Behaviour::Echo).await;
    let held = world.open().await.unwrap();
    // The next one goes to the connection that has none.
    let silent = connect(Behaviour::Ignore).await;
    let server = world.server.clone();
    let pending = tokio::spawn(async move { server.open(request()).await });
    settle().await;
    let streams = |agent: &Agent| agent.connection.stats().streams_open;
    assert_eq!((streams(&echo), streams(&silent)), (1, 1));

    silent.carrier.wire().cut();
    // The agent may have seen it, so it is not tried once more.
    assert_eq!(kind(pending.await.unwrap()), RefusalKind::ConnectionTerminated);
    settle().await;
    assert_eq!(world.connected(), [("a".to_owned(), 1)]);
    round_trip(held.stream.into_io(), b"still here").await;
    round_trip(world.open().await.unwrap().stream.into_io(), b"and anew").await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_answers_nothing_loses_its_share_to_its_siblings() {
    let world = World::new();
    let (one, other) = (
        world.carrier.another(common_name("a")),
        world.carrier.another(common_name("a")),
    );
    let mute = world.connect(&one, claim("a", 1), Behaviour::Echo).await.unwrap();
    let well = world.connect(&other, claim("a", 1), Behaviour::Echo).await.unwrap();
    mute.carrier.wire().silence();
    let mut failed = 0;
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut wish = request();
        wish.head.deadline = Some(Duration::from_secs(2));
        match world.server.open(wish).await {
            Ok(opened) => held.push(opened),
            Err(failure) => {
                assert_eq!(failure.refusal.kind, RefusalKind::ConnectionTimeout);
                failed += 1;
            }
        }
    }
    assert_eq!((failed, held.len()), (2, 18));
    assert_eq!(well.connection.stats().streams_open, 18);
}

#[tokio::test(start_paused = true)]
async fn pending_dials_are_limited() {
    let mut config = ServerConfig::default();
    config.max_pending_dials = 1;
    let world = World::with(|builder| builder.policy(Arc::new(Policy::allow_all())).config(config));
    let _agent = world.agent("node-7", Behaviour::Ignore).await;
    let server = world.server.clone();
    let first = tokio::spawn(async move { server.open(request()).await });
    settle().await;
    assert_eq!(kind(world.open().await), RefusalKind::ConnectionLimitReached);
    first.abort();
    let _ = first.await;
    let dial = tokio::time::timeout(Duration::from_secs(1), world.open()).await;
    assert!(dial.is_err(), "the place is free again, and the agent still silent");
}

#[tokio::test(start_paused = true)]
async fn a_suspect_agent_gets_another_chance() {
    let world = World::new();
    let agent = world.agent("mute", Behaviour::Ignore).await;
    for _ in 0..2 {
        let mut wish = request();
        wish.head.deadline = Some(Duration::from_secs(1));
        assert_eq!(kind(world.server.open(wish).await), RefusalKind::ConnectionTimeout);
    }
    let load = || {
        world
            .server
            .agents()
            .get(&agent.id)
            .unwrap()
            .load(Instant::now())
            .unwrap()
    };
    assert!(load().suspect);
    sleep(Duration::from_secs(30)).await;
    assert!(!load().suspect && load().unanswered == 0);
    // One more failure is enough this time.
    let mut wish = request();
    wish.head.deadline = Some(Duration::from_secs(1));
    assert_eq!(kind(world.server.open(wish).await), RefusalKind::ConnectionTimeout);
    assert!(load().suspect);
}

/// Takes requests for a host that an agent says it has.
#[derive(Debug)]
struct ByHostLabel;

impl Strategy for ByHostLabel {
    fn name(&self) -> &'static str {
        "host-label"
    }

    fn candidates<'v>(&self, request: &RouteRequest<'_>, view: &'v View) -> Option<Candidates<'v>> {
        let host = request.target.host_port()?.host().to_string();
        let having = |session: &&Arc<Session>| session.labels().get("host") == Some(&host);
        let having: Vec<_> = view.sessions().iter().filter(having).collect();
        (!having.is_empty()).then_some(Candidates::These(having))
    }
}

#[tokio::test(start_paused = true)]
async fn strategies_are_asked_in_order() {
    let world = World::with(|builder| {
        let mut strategies = route::strategies();
        strategies.insert(0, Arc::new(ByHostLabel));
        builder.policy(Arc::new(Policy::allow_all())).strategies(strategies)
    });
    let mut special = claim("special", 1);
    special.labels = labels(&[("host", "db.example")]);
    let carrier = world.carrier.another(common_name("special"));
    let _special = world.connect(&carrier, special, Behaviour::Echo).await.unwrap();
    let _plain = world.agent("plain", Behaviour::Echo).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        let opened = world.open().await.unwrap();
        assert_eq!(opened.agent.as_str(), "special");
        held.push(opened);
    }
    let mut other = request();
    other.head.target = "tcp://elsewhere.example:80".parse().unwrap();
    assert_eq!(world.server.open(other).await.unwrap().agent.as_str(), "plain");
}
