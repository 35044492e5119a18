//! Several connections with each server.

use std::{collections::BTreeSet, io, num::NonZeroU32, sync::Arc, time::Duration};

use async_trait::async_trait;
use proptest::{collection::vec, prelude::*};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Handle,
    time::{Instant, sleep},
};
use tunnel_core::{
    Agent, AgentBuilder, AgentConfig, Carrier, CloseCode, Connection, Inbound, InboundHandler, Peer, RunningAgent,
    ServerConfig, StreamHead,
    agent::{InvalidAgentConfig, ServerState},
};

use tunnel_testkit::OtherThread;

use crate::{
    balanced::Balanced,
    log::Log,
    scripted::{
        Fake,
        Outcome::{self, Connected, Hangs, Refused, Rejected, Slow},
        Scripted,
    },
    support::{Site, echo_target, id, metric, round_trip, settle, soon, tcp},
};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const LIMIT: Outcome = Rejected(CloseCode::OVERLOADED, Some(Duration::from_secs(15)));

fn several(connections: u32) -> impl FnOnce(AgentBuilder) -> AgentBuilder {
    let mut config = AgentConfig::default();
    config.connections = NonZeroU32::new(connections).unwrap();
    move |builder| builder.config(config)
}

fn agent(carrier: &Arc<impl Carrier + 'static>, connections: u32) -> RunningAgent {
    let builder = Agent::builder(id()).server(vec![Arc::clone(carrier) as _]);
    several(connections)(builder).build().unwrap().start()
}

fn states(agent: &RunningAgent) -> Vec<ServerState> {
    agent.status().servers.swap_remove(0).connections
}

/// How many connections are up.
fn up(agent: &RunningAgent) -> usize {
    let is_up = |state: &&ServerState| matches!(state, ServerState::Connected { .. });
    states(agent).iter().filter(is_up).count()
}

/// Waits for the connections with these numbers.
async fn connections(carrier: &Scripted, numbers: std::ops::Range<usize>) -> Vec<Arc<Fake>> {
    let mut all = Vec::new();
    for number in numbers {
        all.push(soon(carrier.connection(number)).await);
    }
    all
}

#[test]
fn there_can_be_too_many() {
    let built = |connections| several(connections)(Agent::builder(id())).build();
    assert!(built(32).is_ok());
    let error = built(33).unwrap_err();
    assert!(matches!(error, InvalidAgentConfig::TooManyConnections(_)));
    assert_eq!(
        error.to_string(),
        "33 connections with each server are too many; the most is 32"
    );
}

#[tokio::test(start_paused = true)]
async fn several_connections_are_one_session_and_share_the_streams() {
    let site = Site::new("a");
    let agent = site.agent(several(4)).await;
    sleep(SECOND).await;
    assert_eq!(up(&agent), 4);
    assert_eq!(agent.connections().len(), 4);
    assert_eq!(metric(&agent, "connections{carrier=\"memory\"}"), 4.0);
    let target = tcp(echo_target().await);
    let mut streams = Vec::new();
    for _ in 0..12 {
        streams.push(soon(site.server.dial(id(), target.clone())).await.unwrap());
    }
    let session = soon(site.server.wait_for(&id())).await;
    let loads = session
        .connections()
        .iter()
        .map(|live| live.load(Instant::now()).streams);
    assert_eq!(loads.collect::<Vec<_>>(), [3, 3, 3, 3]);

    // Those that end make room.
    let freed = streams.split_off(8);
    for stream in freed {
        round_trip(stream, b"hello").await;
    }
    settle().await;
    for _ in 0..4 {
        streams.push(soon(site.server.dial(id(), target.clone())).await.unwrap());
    }
    let loads = session
        .connections()
        .iter()
        .map(|live| live.load(Instant::now()).streams);
    assert_eq!(loads.collect::<Vec<_>>(), [3, 3, 3, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_takes_only_its_own_streams_along() {
    let site = Site::new("a");
    let agent = site.agent(several(3)).await;
    sleep(SECOND).await;
    let target = tcp(echo_target().await);
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(soon(site.server.dial(id(), target.clone())).await.unwrap());
    }
    agent.connections()[1].close(CloseCode::INTERNAL, "");
    let mut ended = 0;
    for mut stream in streams {
        match soon(stream.write_all(b"x")).await.is_ok() && soon(stream.read_u8()).await.is_ok() {
            true => round_trip(stream, b"still here").await,
            false => ended += 1,
        }
    }
    assert_eq!(ended, 1);
    assert!(agent.is_connected());
    soon(async {
        while up(&agent) < 3 || site.server.agents().get(&id()).unwrap().connections().len() < 3 {
            sleep(MILLISECOND).await;
        }
    })
    .await;
    round_trip(soon(site.server.dial(id(), target)).await.unwrap(), b"anew").await;
}

#[tokio::test(start_paused = true)]
async fn they_are_dialled_one_after_the_other() {
    let start = Instant::now();
    let carrier = Scripted::new("quic", [Slow(SECOND), Slow(SECOND), Slow(SECOND), Slow(SECOND)]);
    let agent = agent(&carrier, 4);
    settle().await;
    let queued = ServerState::Queued;
    assert_eq!(states(&agent)[0], ServerState::Connecting);
    assert_eq!(states(&agent)[1..], [queued.clone(), queued.clone(), queued.clone()]);
    agent.connected().await;
    assert_eq!(start.elapsed(), SECOND, "one is enough to be connected");
    sleep(3 * SECOND + 10 * MILLISECOND).await;
    let dialled = carrier.dialled(start).into_iter().map(|at| at.as_secs());
    assert_eq!(dialled.collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(up(&agent), 4);
    assert!(
        carrier.claims().windows(2).all(|pair| pair[0] == pair[1]),
        "one life of one agent"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_is_dialled_as_by_one_connection() {
    let start = Instant::now();
    let carrier = Scripted::new("quic", vec![Refused; 100]);
    let agent = agent(&carrier, 8);
    sleep(600 * SECOND).await;
    // About twenty in the first ten seconds, then one every fifteen.
    let dialled = carrier.dialled(start);
    assert!((30..=100).contains(&dialled.len()), "{}", dialled.len());
    assert!(!agent.is_connected());
    let status = agent.status().servers.swap_remove(0);
    let queued = status.connections.iter().filter(|state| **state == ServerState::Queued);
    assert_eq!(queued.count(), 7, "{:?}", status.connections);
    assert!(
        matches!(status.state, ServerState::Waiting { .. }),
        "{:?}",
        status.state
    );
    // Something has changed: the one that waits tries again.
    agent.redial();
    settle().await;
    assert_eq!(carrier.dialled(start).len(), dialled.len() + 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lets_nobody_stay_is_dialled_as_by_one_connection() {
    let start = Instant::now();
    let carrier = Scripted::new("quic", []);
    let _agent = agent(&carrier, 8);
    let mut number = 0;
    while start.elapsed() < 600 * SECOND {
        carrier.connection(number).await.lose();
        number += 1;
    }
    assert!((30..=110).contains(&carrier.connections()), "{}", carrier.connections());
    // One lasts at last, and the others follow.
    carrier.connection(number).await;
    sleep(SECOND - 10 * MILLISECOND).await;
    assert_eq!(carrier.connections(), number + 1);
    sleep(20 * MILLISECOND).await;
    assert_eq!(carrier.connections(), number + 8);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_all_is_told_once_and_so_is_their_return() {
    let log = Log::begin();
    let carrier = Scripted::new("quic", [Connected, Connected, Connected, Connected, Refused, Refused]);
    let agent = agent(&carrier, 4);
    let all = connections(&carrier, 0..4).await;
    sleep(20 * SECOND).await;
    assert_eq!(
        log.lines(),
        [
            "INFO connected with server gw at quic://gw.example",
            "INFO 4 of 4 connections are up, the latest with quic://gw.example",
        ]
    );
    // What a process leaves behind that was killed is noticed in more than one way.
    all[0].lose();
    all[1].lose_by(io::ErrorKind::BrokenPipe);
    settle().await;
    all[2].lose();
    all[3].lose();
    settle().await;
    assert!(!agent.is_connected());
    sleep(SECOND).await;
    let because = "the transport of the connection failed: connection reset";
    assert_eq!(
        log.lines(),
        [
            format!(
                "WARN a connection with quic://gw.example lost: {because}; 3 of 4 connections are left, connecting again in …"
            ),
            format!("WARN connection with quic://gw.example lost: {because}; connecting again in …"),
            "WARN not connected: cannot reach quic://gw.example: connection refused; trying again in …".to_owned(),
            "INFO connected with server gw at quic://gw.example".to_owned(),
            "INFO 4 of 4 connections are up, the latest with quic://gw.example".to_owned(),
        ]
    );
    assert_eq!(up(&agent), 4);
}

#[tokio::test(start_paused = true)]
async fn those_that_return_after_others_are_told_of() {
    let log = Log::begin();
    let carrier = Scripted::new("quic", []);
    let _agent = agent(&carrier, 3);
    let all = connections(&carrier, 0..3).await;
    sleep(20 * SECOND).await;
    let whole = "INFO 3 of 3 connections are up, the latest with quic://gw.example";
    assert_eq!(log.lines().last().unwrap(), whole);

    // Their waits differ, but none is long.
    all[1].lose();
    all[2].lose();
    sleep(SECOND).await;
    let told = log.lines();
    assert!(told.len() == 2 && told[1] == whole, "{told:#?}");

    // One that keeps going and coming is no news.
    for number in 5..8 {
        connections(&carrier, number - 1..number).await[0].lose();
        connections(&carrier, number..number + 1).await;
    }
    assert_eq!(log.lines(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_of_the_server_moves_them_all() {
    let log = Log::begin();
    let carrier = Scripted::new("quic", []);
    let agent = agent(&carrier, 3);
    let old = connections(&carrier, 0..3).await;
    sleep(20 * SECOND).await;
    log.lines();
    let asked = Instant::now();
    old.iter().for_each(|connection| connection.drain_by_server());
    connections(&carrier, 3..6).await;
    sleep(MILLISECOND).await;
    assert!(asked.elapsed() <= 60 * MILLISECOND, "{:?}", asked.elapsed());
    assert!(old.iter().all(|connection| connection.end().is_none()));
    let status = agent.status().servers.swap_remove(0);
    assert_eq!((up(&agent), status.draining_connections), (3, 3));
    sleep(SECOND).await;
    let told = log.lines();
    let drains = told.iter().filter(|line| line.contains("is draining; connecting anew"));
    assert!(drains.count() <= 2 && told.len() <= 4, "{told:#?}");
    assert_eq!(
        told.last().unwrap(),
        "INFO 3 of 3 connections are up, the latest with quic://gw.example"
    );
    assert_eq!(agent.shutdown(Duration::ZERO).await, 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_long_after_the_others_is_told_of() {
    let log = Log::begin();
    let carrier = Scripted::new("quic", [Connected, Rejected(CloseCode::UNAUTHORIZED, None)]);
    let _agent = agent(&carrier, 3);
    sleep(9 * SECOND).await;
    let up = |up: u32| format!("INFO {up} of 3 connections are up, the latest with quic://gw.example");
    assert_eq!(*log.lines().last().unwrap(), up(2));
    sleep(30 * SECOND).await;
    assert_eq!(log.lines(), [up(3)]);
}

#[tokio::test(start_paused = true)]
async fn a_drained_connection_was_not_lost() {
    let log = Log::begin();
    let carrier = Scripted::new("quic", []);
    let agent = agent(&carrier, 1);
    let connection = soon(carrier.connection(0)).await;
    sleep(20 * SECOND).await;
    log.lines();
    // Without streams it ends in the same moment.
    connection.drain_by_server();
    connection.close(CloseCode::DRAINED, "");
    soon(carrier.connection(1)).await;
    let told = log.lines();
    let line = told.iter().find(|line| line.contains("connecting"));
    assert_eq!(
        line.unwrap(),
        "INFO quic://gw.example is draining; connecting anew in …, open streams go on"
    );
    assert!(agent.status().servers[0].last_error.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_fewer_is_told_of_once_and_asked_rarely() {
    let log = Log::begin();
    let mut config = ServerConfig::default();
    config.max_connections_per_agent = 2;
    let site = Site::with("a", |builder| builder.config(config));
    let agent = site.agent(several(4)).await;
    sleep(SECOND).await;
    assert_eq!(
        log.lines(),
        [
            "INFO connected with server a at memory://192.0.2.1:8091",
            "WARN 2 of 4 connections are up and no more are taken: memory://192.0.2.1:8091 rejected this agent: agent node-7 has 2 \
             connections, which is the limit; let it make fewer (overloaded (0x9)); the next try is in …",
        ]
    );
    sleep(3600 * SECOND).await;
    assert_eq!(up(&agent), 2);
    assert_eq!(site.server.agents().get(&id()).unwrap().connections().len(), 2);
    let failures = metric(
        &agent,
        "connect_failures_total{carrier=\"memory\",cause=\"overloaded\"}",
    );
    // Two loops, every 150 to 300 seconds.
    assert!((24.0..=50.0).contains(&failures), "{failures}");
    assert_eq!(log.lines(), [""; 0]);
    let error = agent.status().servers.swap_remove(0).last_error.unwrap();
    assert!(error.text.contains("which is the limit"), "{error:?}");

    // What is lost of those that are taken is replaced at once.
    agent.connections()[0].close(CloseCode::INTERNAL, "");
    settle().await;
    assert_eq!(up(&agent), 1);
    sleep(SECOND).await;
    assert_eq!(up(&agent), 2);
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_nobody_stays_away_for_what_was_before() {
    let carrier = Scripted::new("quic", [Connected, LIMIT, LIMIT]);
    let agent = agent(&carrier, 3);
    let first = soon(carrier.connection(0)).await;
    sleep(20 * SECOND).await;
    assert_eq!(up(&agent), 1);
    first.lose();
    sleep(SECOND).await;
    assert_eq!(up(&agent), 3);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_one_too_many_after_its_welcome_is_asked_for_rarely() {
    let start = Instant::now();
    let carrier = Scripted::new("quic", []);
    let agent = agent(&carrier, 2);
    let all = connections(&carrier, 0..2).await;
    all[1].close_by_server(CloseCode::OVERLOADED);
    sleep(140 * SECOND).await;
    assert_eq!((up(&agent), carrier.dialled(start).len()), (1, 2));
    sleep(170 * SECOND).await;
    assert_eq!((up(&agent), carrier.dialled(start).len()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_made_does_not_hold_up_the_others() {
    let rejected = Rejected(CloseCode::UNAUTHORIZED, None);
    let log = Log::begin();
    let carrier = Scripted::new("quic", [Connected, rejected, Connected, Hangs, Hangs]);
    let agent = agent(&carrier, 4);
    sleep(SECOND).await;
    assert_eq!(up(&agent), 2);
    let told = log.lines();
    assert_eq!(
        told[1],
        "WARN only 1 of 4 connections are up: quic://gw.example rejected this agent: no (unauthorized (0x6)); trying \
         again in …"
    );
    sleep(120 * SECOND).await;
    assert_eq!(up(&agent), 4);
    assert_eq!(carrier.most_at_once(), 1);
}

#[tokio::test(start_paused = true)]
async fn behind_a_load_balancer_every_server_is_told_of_once_and_has_what_it_got() {
    let log = Log::begin();
    let sites = ["a", "b"].map(Site::new);
    let servers = [sites[0].server.clone(), sites[1].server.clone()];
    let balanced = Arc::new(Balanced::new(sites.into()));
    let agent = agent(&balanced, 4);
    sleep(SECOND).await;
    assert_eq!(up(&agent), 4);
    assert_eq!(
        log.lines(),
        [
            "INFO connected with server a at wss://gw.example/tunnel",
            "INFO connected with server b at wss://gw.example/tunnel",
            "INFO 4 of 4 connections are up, the latest with wss://gw.example/tunnel",
        ]
    );
    let target = tcp(echo_target().await);
    for server in &servers {
        assert_eq!(server.agents().get(&id()).unwrap().connections().len(), 2);
        round_trip(soon(server.dial(id(), target.clone())).await.unwrap(), b"hello").await;
    }
    assert_eq!(agent.status().servers[0].same_as, None);

    // One server goes away; its connections come back, wherever that is.
    servers[0].shutdown(Duration::ZERO).await;
    sleep(60 * SECOND).await;
    assert!(up(&agent) >= 2, "{:?}", states(&agent));
    round_trip(soon(servers[1].dial(id(), target)).await.unwrap(), b"hello").await;
}

/// Takes streams and leaves them open.
#[derive(Debug)]
struct Sink;

#[async_trait]
impl InboundHandler for Sink {
    async fn handle(&self, inbound: Box<dyn Inbound>, _: &Peer) {
        let mut stream = inbound.accept().await.unwrap().into_io();
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_agent_opens_goes_to_the_least_busy_one() {
    let site = Site::with("a", |builder| builder.inbound(Arc::new(Sink)));
    let agent = site.agent(several(3)).await;
    sleep(SECOND).await;
    let open = async || {
        let head = StreamHead::new("tcp://service:1".parse().unwrap());
        soon(agent.open(head)).await.unwrap()
    };
    let mut streams = Vec::new();
    for _ in 0..9 {
        streams.push(open().await);
    }
    let busy = || {
        agent
            .connections()
            .into_iter()
            .map(|connection| connection.stats().streams_open)
    };
    assert_eq!(busy().collect::<Vec<_>>(), [3, 3, 3]);

    // What has ended or drains before the agent has noticed is passed over.
    let all = agent.connections();
    all[0].close(CloseCode::DONE, "");
    all[1].drain();
    for _ in 0..2 {
        streams.push(open().await);
    }
    assert_eq!(all[2].stats().streams_open, 5);
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Connected),
        2 => Just(Refused),
        1 => Just(Hangs),
        1 => Just(LIMIT),
        1 => Just(Rejected(CloseCode::UNAUTHORIZED, None)),
        1 => (1..5000u64).prop_map(|wait| Slow(Duration::from_millis(wait))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever dials come to, and whenever connections are lost, no two dials are under way at once, failures while
    /// none is up are followed by a wait, and all are up in the end.
    #[test]
    fn whatever_happens_all_are_up_in_the_end(
        number in 1..6u32,
        script in vec(outcome(), 0..40),
        losses in vec((0..40usize, 0..60_000u64), 0..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let carrier = Scripted::new("quic", script);
            let agent = agent(&carrier, number);
            for (which, wait) in losses {
                sleep(Duration::from_millis(wait)).await;
                if carrier.connections() > 0 {
                    carrier.connection(which % carrier.connections()).await.lose();
                }
            }
            // Every outcome of the script may cost a wait for a surplus connection.
            sleep(20_000 * SECOND).await;
            prop_assert_eq!(up(&agent), number as usize, "{:?}", states(&agent));
            prop_assert_eq!(carrier.most_at_once(), 1);
            let status = agent.status().servers.swap_remove(0);
            prop_assert_eq!(status.draining_connections, 0);
            Ok(())
        })?;
    }
}

/// Says in which runtime it is.
#[derive(Debug)]
struct Whereabouts;

#[async_trait]
impl InboundHandler for Whereabouts {
    async fn handle(&self, inbound: Box<dyn Inbound>, _: &Peer) {
        let mut stream = inbound.accept().await.unwrap().into_io();
        let here = format!("{}", Handle::current().id());
        stream.write_all(here.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn each_has_a_thread_of_its_own() {
    let (others, threads) = OtherThread::several::<3>();
    let site = Site::new("a");
    let _agent = site
        .agent(|builder| several(3)(builder).threads(threads).handler(Arc::new(Whereabouts)))
        .await;
    soon(async {
        while site.server.agents().get(&id()).unwrap().connections().len() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // What is open makes the next one go elsewhere.
    let (mut held, mut seen) = (Vec::new(), BTreeSet::new());
    for _ in 0..3 {
        let mut stream = soon(site.server.dial(id(), "tcp://x:1".parse().unwrap()))
            .await
            .unwrap();
        let mut said = String::new();
        soon(stream.read_to_string(&mut said)).await.unwrap();
        seen.insert(said);
        held.push(stream);
    }
    let all = others.iter().map(|other| other.runtime().id().to_string()).collect();
    assert_eq!(seen, all);
}
