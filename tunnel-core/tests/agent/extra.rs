//! Connections that are kept while many streams are open.

use std::{
    collections::HashSet,
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    runtime::{self, Handle},
    time::{Instant, sleep},
};
use tunnel_core::{
    Agent, AgentBuilder, AgentConfig, Carrier, Claim, CloseCode, Connection, DialError, DuplexIo, Inbound,
    InboundHandler, Peer, Rejection, RunningAgent, Server, ServerConfig, ServerId,
    agent::{InvalidAgentConfig, ServerState},
};
use tunnel_testkit::{OtherThread, memory::MemoryCarrier};

use crate::{
    balanced::Balanced,
    log::Log,
    support::{Site, id, metric, round_trip, settle, soon},
};

const SECOND: Duration = Duration::from_secs(1);

/// Sends back what a stream brings.
#[derive(Debug)]
struct Echo;

#[async_trait]
impl InboundHandler for Echo {
    async fn handle(&self, inbound: Box<dyn Inbound>, _: &Peer) {
        let Ok(stream) = inbound.accept().await else { return };
        let (mut read, mut write) = tokio::io::split(stream.into_io());
        if tokio::io::copy(&mut read, &mut write).await.is_ok() {
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
        }
    }
}

/// Panics.
#[derive(Debug)]
struct Clumsy;

#[async_trait]
impl InboundHandler for Clumsy {
    async fn handle(&self, _inbound: Box<dyn Inbound>, _: &Peer) {
        panic!("as it is meant to")
    }
}

/// From one connection to as many.
fn at_most(connections: u32) -> impl FnOnce(AgentBuilder) -> AgentBuilder {
    let mut config = AgentConfig::default();
    config.max_connections = NonZeroU32::new(connections);
    move |builder| builder.config(config).handler(Arc::new(Echo))
}

async fn open(server: &Server, streams: usize) -> Vec<DuplexIo> {
    let mut opened = Vec::new();
    for _ in 0..streams {
        let dialled = server.dial(id(), "tcp://anything:1".parse().unwrap());
        opened.push(soon(dialled).await.unwrap());
    }
    opened
}

/// How many streams each connection has that takes more.
fn loads(server: &Server) -> Vec<u64> {
    let agents = server.agents();
    let session = agents.get(&id()).unwrap();
    let loads = session.connections().iter().map(|live| live.load(Instant::now()));
    let mut loads: Vec<_> = loads.filter(|load| !load.draining).map(|load| load.streams).collect();
    loads.sort_unstable();
    loads
}

/// How many connections there are to be, and how many of them are up.
fn connections(agent: &RunningAgent) -> (usize, usize) {
    let states = agent.status().servers.swap_remove(0).connections;
    let is_up = |state: &&ServerState| matches!(state, ServerState::Connected { .. });
    (states.len(), states.iter().filter(is_up).count())
}

#[tokio::test(start_paused = true)]
async fn every_eight_streams_call_for_one_more() {
    let log = Log::begin();
    let site = Site::new("a");
    let agent = site.agent(at_most(3)).await;
    let mut streams = open(&site.server, 8).await;
    sleep(SECOND).await;
    assert_eq!((connections(&agent), loads(&site.server)), ((1, 1), vec![8]));
    for (more, expected) in [(1, vec![0, 9]), (8, vec![0, 8, 9]), (20, vec![12, 12, 13])] {
        streams.extend(open(&site.server, more).await);
        sleep(SECOND).await;
        assert_eq!(loads(&site.server), expected);
        assert_eq!(connections(&agent), (expected.len(), expected.len()));
    }
    let told = log.lines();
    assert_eq!(
        told,
        [
            "INFO connected with server a at memory://192.0.2.1:8091",
            "INFO 2 of 2 connections are up, the latest with memory://192.0.2.1:8091",
            "INFO 3 of 3 connections are up, the latest with memory://192.0.2.1:8091",
        ]
    );
    for stream in streams {
        round_trip(stream, b"hello").await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_needed_drains_after_a_minute() {
    let site = Site::new("a");
    let agent = site.agent(at_most(2)).await;
    let mut streams = open(&site.server, 9).await;
    sleep(SECOND).await;
    let on_extra = open(&site.server, 1).await.swap_remove(0);
    assert_eq!(loads(&site.server), [1, 9]);

    // Load comes in waves.
    streams.truncate(2);
    sleep(59 * SECOND).await;
    assert_eq!(connections(&agent), (2, 2));
    streams.extend(open(&site.server, 8).await);
    sleep(10 * SECOND).await;
    streams.truncate(2);
    sleep(59 * SECOND).await;
    assert_eq!(connections(&agent), (2, 2));

    let log = Log::begin();
    sleep(2 * SECOND).await;
    assert_eq!(
        log.lines(),
        ["INFO fewer streams are open: a connection with memory://192.0.2.1:8091 drains, connections that stay: 1"]
    );
    assert_eq!((connections(&agent), loads(&site.server)), ((1, 1), vec![2]));
    assert_eq!(agent.status().servers[0].draining_connections, 1);
    round_trip(on_extra, b"what is on it goes on").await;
    settle().await;
    assert_eq!(agent.status().servers[0].draining_connections, 0);

    // And again.
    streams.extend(open(&site.server, 8).await);
    sleep(SECOND).await;
    assert_eq!(connections(&agent), (2, 2));
    assert_eq!(agent.shutdown(Duration::ZERO).await, 10);
}

#[tokio::test(start_paused = true)]
async fn waves_leave_no_more_than_one_behind_that_drains() {
    let site = Site::new("a");
    let agent = site.agent(at_most(2)).await;
    let connections_at_server = || site.server.agents().get(&id()).unwrap().connections().len();
    let mut watches = Vec::new();
    for wave in 0..10 {
        let streams = open(&site.server, 17).await;
        sleep(SECOND).await;
        assert_eq!(connections(&agent), (2, 2), "wave {wave}");
        // One on each connection stays for long, the first is that with the fewest.
        watches.extend(open(&site.server, 2).await);
        drop(streams);
        sleep(200 * SECOND).await;
        assert!(connections_at_server() <= 3, "wave {wave}");
    }
    assert_eq!(agent.status().servers[0].draining_connections, 1);

    drop(watches);
    sleep(130 * SECOND).await;
    assert_eq!((connections(&agent), connections_at_server()), ((1, 1), 1));
}

#[tokio::test(start_paused = true)]
async fn an_extra_one_that_is_lost_returns_while_it_is_needed() {
    let site = Site::new("a");
    let agent = site.agent(at_most(2)).await;
    let streams = open(&site.server, 9).await;
    sleep(SECOND).await;
    agent.connections()[1].close(CloseCode::INTERNAL, "");
    settle().await;
    assert_eq!(connections(&agent), (2, 1));
    sleep(SECOND).await;
    assert_eq!(connections(&agent), (2, 2));
    drop(streams);
    sleep(62 * SECOND).await;
    assert_eq!(connections(&agent), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_no_more_is_asked_rarely() {
    let log = Log::begin();
    let mut config = ServerConfig::default();
    config.max_connections_per_agent = 1;
    let site = Site::with("a", |builder| builder.config(config));
    let agent = site.agent(at_most(2)).await;
    let _streams = open(&site.server, 9).await;
    sleep(600 * SECOND).await;
    assert_eq!(connections(&agent), (2, 1));
    let told = log.lines();
    assert!(
        told.len() == 2 && told[1].starts_with("INFO 1 of 2 connections are up and no more are taken: "),
        "{told:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_leads_to_another_server_is_not_kept() {
    let log = Log::begin();
    let sites = ["a", "b"].map(Site::new);
    let servers = [sites[0].server.clone(), sites[1].server.clone()];
    let carrier = Arc::new(Balanced::new(sites.into()));
    let builder = Agent::builder(id()).server(vec![carrier]);
    let agent = at_most(2)(builder).build().unwrap().start();
    soon(servers[0].wait_for(&id())).await;
    let streams = open(&servers[0], 9).await;
    sleep(SECOND).await;
    assert_eq!(connections(&agent), (2, 1));
    assert!(servers[1].agents().get(&id()).is_none());
    assert_eq!(
        log.lines(),
        [
            "INFO connected with server a at wss://gw.example/tunnel",
            "INFO 1 of 2 connections are up and no more are taken: wss://gw.example/tunnel leads to another server now; the \
             next try is in …",
        ]
    );
    // The next try leads to the right one, and nothing was wrong.
    sleep(300 * SECOND).await;
    assert!(agent.status().servers[0].last_error.is_none());
    assert_eq!(connections(&agent), (2, 2));
    assert_eq!(loads(&servers[0]), [0, 9]);
    drop(streams);
}

#[tokio::test]
async fn as_many_as_threads_by_default() {
    let (_others, threads) = OtherThread::several::<3>();
    let site = Site::new("a");
    let divided = threads.clone();
    let agent = site
        .agent(|builder| builder.threads(divided).handler(Arc::new(Echo)))
        .await;
    assert_eq!(format!("{threads:?}"), "Threads([1, 0, 0])");
    let _streams = open(&site.server, 30).await;
    soon(async {
        while connections(&agent) != (3, 3) {
            settle().await;
        }
    })
    .await;
    assert_eq!(format!("{threads:?}"), "Threads([1, 1, 1])");
}

#[tokio::test(start_paused = true)]
async fn without_threads_there_is_one() {
    let site = Site::new("a");
    let agent = site.agent(|builder| builder.handler(Arc::new(Echo))).await;
    let _streams = open(&site.server, 30).await;
    sleep(SECOND).await;
    assert_eq!(connections(&agent), (1, 1));
}

/// Leads to a server, unless it is told to be overloaded.
#[derive(Debug)]
struct Guarded {
    carrier: MemoryCarrier,
    is_overloaded: AtomicBool,
}

#[async_trait]
impl Carrier for Guarded {
    fn name(&self) -> &'static str {
        self.carrier.name()
    }

    fn remote(&self) -> String {
        self.carrier.remote()
    }

    async fn dial(&self, claim: &Claim, deadline: Instant) -> Result<Arc<dyn Connection>, DialError> {
        if self.is_overloaded.load(Ordering::Relaxed) {
            let rejection = Rejection::new(CloseCode::OVERLOADED, "come back later");
            let remote = self.remote();
            return Err(DialError::Rejected { remote, rejection });
        }
        self.carrier.dial(claim, deadline).await
    }
}

#[tokio::test(start_paused = true)]
async fn the_only_one_that_is_up_stays() {
    let site = Site::new("a");
    let carrier = Arc::new(Guarded {
        carrier: site.carrier.clone(),
        is_overloaded: AtomicBool::new(false),
    });
    let builder = Agent::builder(id()).server(vec![Arc::clone(&carrier) as _]);
    let agent = at_most(2)(builder).build().unwrap().start();
    soon(site.server.wait_for(&id())).await;
    let streams = open(&site.server, 9).await;
    sleep(SECOND).await;
    assert_eq!(connections(&agent), (2, 2));

    carrier.is_overloaded.store(true, Ordering::Relaxed);
    agent.connections()[0].close(CloseCode::INTERNAL, "");
    sleep(SECOND).await;
    carrier.is_overloaded.store(false, Ordering::Relaxed);
    drop(streams);
    sleep(140 * SECOND).await;
    assert_eq!(connections(&agent), (2, 1), "the other one was told to stay away");
    assert!(agent.is_connected());
    // It is back some time, and then one is enough.
    sleep(170 * SECOND).await;
    assert_eq!(connections(&agent), (1, 1));
    assert_eq!(open(&site.server, 1).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_forgotten_between_waves() {
    let mut config = ServerConfig::default();
    config.max_connections_per_agent = 1;
    let site = Site::with("a", |builder| builder.config(config));
    let agent = site.agent(at_most(4)).await;
    let start = Instant::now();
    while start.elapsed() < 3600 * SECOND {
        let streams = open(&site.server, 40).await;
        sleep(SECOND).await;
        drop(streams);
        sleep(70 * SECOND).await;
    }
    let refused = metric(
        &agent,
        "connect_failures_total{carrier=\"memory\",cause=\"overloaded\"}",
    );
    // Three loops, at most every 150 seconds.
    assert!((12.0..=72.0).contains(&refused), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn one_that_never_was_has_not_ended() {
    let site = Site::new("a");
    let agent = site.agent(at_most(4)).await;
    let _streams = open(&site.server, 9).await;
    sleep(SECOND).await;
    agent.drain();
    settle().await;
    let states = agent.status().servers.swap_remove(0).connections;
    assert_eq!(states, [ServerState::Ended, ServerState::Ended]);
}

#[tokio::test(start_paused = true)]
async fn what_panics_is_not_counted_any_more() {
    let site = Site::new("a");
    let agent = site
        .agent(|builder| at_most(2)(builder).handler(Arc::new(Clumsy)))
        .await;
    for _ in 0..20 {
        let dialled = site.server.dial(id(), "tcp://anything:1".parse().unwrap());
        assert!(soon(dialled).await.is_err());
    }
    sleep(SECOND).await;
    assert_eq!(connections(&agent), (1, 1));
}

/// Notes on which threads the streams of each server are served.
#[derive(Debug, Default)]
struct Places(Mutex<HashSet<(ServerId, runtime::Id)>>);

#[async_trait]
impl InboundHandler for Places {
    async fn handle(&self, inbound: Box<dyn Inbound>, peer: &Peer) {
        let server = peer.welcome().unwrap().server.clone();
        self.0.lock().unwrap().insert((server, Handle::current().id()));
        Echo.handle(inbound, peer).await;
    }
}

#[tokio::test]
async fn an_extra_one_has_another_thread_than_its_sibling() {
    let (_others, threads) = OtherThread::several::<2>();
    let sites = ["a", "b", "c"].map(Site::new);
    let places = Arc::new(Places::default());
    let mut builder = Agent::builder(id()).threads(threads).handler(Arc::clone(&places) as _);
    for site in &sites {
        builder = builder.server(vec![Arc::new(site.carrier.clone())]);
    }
    let _agent = builder.build().unwrap().start();
    let mut streams = Vec::new();
    // Not that of the first.
    for site in &sites[1..] {
        soon(site.server.wait_for(&id())).await;
        streams.extend(open(&site.server, 9).await);
        soon(async {
            while loads(&site.server).len() < 2 {
                settle().await;
            }
        })
        .await;
        streams.extend(open(&site.server, 1).await);
    }
    let places = places.0.lock().unwrap();
    assert_eq!(places.len(), 4, "{places:?}");
}

#[test]
fn at_most_is_at_least_at_least() {
    let mut config = AgentConfig::default();
    config.connections = NonZeroU32::new(3).unwrap();
    let mut built = |most| {
        config.max_connections = NonZeroU32::new(most);
        Agent::builder(id()).config(config).build()
    };
    let errors = [2, 3, 32, 33].map(|most| built(most).err());
    assert!(matches!(
        errors,
        [
            Some(InvalidAgentConfig::TooFewConnections { .. }),
            None,
            None,
            Some(InvalidAgentConfig::TooManyConnections(_))
        ]
    ));
    assert_eq!(
        errors[0].unwrap().to_string(),
        "max_connections is 2, less than connections, which is 3"
    );
}
