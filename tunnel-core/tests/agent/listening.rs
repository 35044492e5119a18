//! What an agent does with connections that others make with it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tunnel_core::{
    AcceptError, Admission, Agent, AgentBuilder, AgentConfig, Arrival, Callers, Claim, CloseCode, Connection,
    ConnectionError, Generation, HandshakeError, Identity, Incoming, Listener, RefusalKind, RunningAgent, StreamHead,
    Target,
};
use tunnel_testkit::memory;

use crate::support::{common_name, echo_target, id, metric, round_trip, settle, soon, tcp};

const SECOND: Duration = Duration::from_secs(1);

/// Whoever connects with the agent.
#[derive(Clone, Debug)]
struct Doorstep(mpsc::Sender<Visit>);

/// A listener, and those who ring at it.
#[derive(Debug)]
struct Door(mpsc::Receiver<Visit>);

/// One who rings.
#[derive(Debug)]
struct Visit {
    identity: Identity,
    /// None for one who says nothing.
    outcome: Option<oneshot::Sender<Result<Arc<dyn Connection>, String>>>,
}

impl Doorstep {
    /// Connects as this identity; gives the end that opens streams.
    async fn ring(&self, name: &str) -> Result<Arc<dyn Connection>, String> {
        let (outcome, came_of_it) = oneshot::channel();
        let visit = Visit {
            identity: common_name(name),
            outcome: Some(outcome),
        };
        self.0.send(visit).await.map_err(|_| "nobody listens".to_owned())?;
        soon(came_of_it).await.map_err(|_| "no answer".to_owned())?
    }

    async fn stand_silently(&self) {
        let visit = Visit {
            identity: Identity::anonymous(),
            outcome: None,
        };
        self.0.send(visit).await.unwrap();
    }
}

#[async_trait]
impl Listener for Door {
    fn name(&self) -> &'static str {
        "door"
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(([192, 0, 2, 9], 15_008).into())
    }

    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError> {
        let visit = self.0.recv().await.ok_or(AcceptError::Closed)?;
        Ok(Box::new(visit))
    }
}

#[async_trait]
impl Incoming for Visit {
    fn remote_addr(&self) -> SocketAddr {
        ([198, 51, 100, 1], 1024).into()
    }

    async fn handshake(self: Box<Self>, admission: &dyn Admission) -> Result<Arc<dyn Connection>, HandshakeError> {
        let Some(outcome) = self.outcome else {
            return std::future::pending().await;
        };
        let claim = Claim::new(id(), Generation(1));
        let arrival = Arrival::new("door", ([198, 51, 100, 1], 1024).into(), self.identity, claim.clone());
        if let Err(rejection) = admission.admit(&arrival).await {
            let _ = outcome.send(Err(rejection.to_string()));
            return Err(HandshakeError::Rejected(rejection));
        }
        let ends = memory::ends(memory::Config::default(), &claim).await;
        let ends = ends.map_err(|error| HandshakeError::Lost(ConnectionError::transport(error)))?;
        let _ = outcome.send(Ok(ends.server));
        Ok(ends.agent)
    }

    fn refuse(self: Box<Self>) {}
}

fn agent(callers: Callers, change: impl FnOnce(AgentBuilder) -> AgentBuilder) -> (RunningAgent, Doorstep) {
    let (visits, door) = mpsc::channel(64);
    let agent = change(Agent::builder(id())).build().unwrap().start();
    let addr = agent.listen(Box::new(Door(door)), callers).unwrap();
    assert_eq!(addr.port(), 15_008);
    (agent, Doorstep(visits))
}

fn open_to_all() -> (RunningAgent, Doorstep) {
    agent(Callers::Anyone, |builder| builder)
}

async fn exchange(connection: &dyn Connection, target: Target) {
    let stream = soon(connection.open(StreamHead::new(target))).await.unwrap();
    round_trip(stream.into_io(), b"hello").await;
}

#[tokio::test]
async fn streams_that_come_by_a_listener_are_served_as_a_server_s() {
    let (agent, doorstep) = open_to_all();
    let target = tcp(echo_target().await);
    let (first, second) = (doorstep.ring("a").await.unwrap(), doorstep.ring("b").await.unwrap());
    exchange(&*first, target.clone()).await;
    exchange(&*second, target).await;
    // The agent's policy holds for them, too.
    let metadata = soon(first.open(StreamHead::new("tcp://169.254.169.254:80".parse().unwrap()))).await;
    match metadata.unwrap_err() {
        tunnel_core::OpenError::Refused(refusal) => {
            assert_eq!(refusal.kind, RefusalKind::DestinationIpProhibited);
        }
        other => panic!("{other:?}"),
    }
    let listener = agent.status().listeners.swap_remove(0);
    assert_eq!((listener.carrier, listener.addr.port()), ("door", 15_008));
    assert_eq!(listener.connections, 2);
    assert_eq!(metric(&agent, "streams_total{opener=\"server\"}"), 2.0);
    first.close(CloseCode::DONE, "");
    soon(async {
        while agent.status().listeners[0].connections > 1 {
            settle().await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn only_those_who_may_connect_do() {
    let patterns = ["cn:gateway-*", "spiffe://example/*"].map(|pattern| pattern.parse().unwrap());
    let (agent, doorstep) = agent(Callers::These(patterns.into()), |builder| builder);
    doorstep.ring("gateway-1").await.unwrap();
    for stranger in ["stranger", "cn:gateway-1"] {
        let refused = doorstep.ring(stranger).await.unwrap_err();
        assert!(refused.contains("not among those who may connect"), "{refused}");
    }
    let failures = "handshake_failures_total{carrier=\"door\",reason=\"forbidden\"}";
    assert_eq!(metric(&agent, failures), 2.0);
}

#[test]
fn any_of_a_caller_s_names_is_enough() {
    let mut identity = common_name("x");
    identity.spiffe = Some("spiffe://example/gw".to_owned());
    identity.dns = vec!["a.example".to_owned(), "b.example".to_owned()];
    for (pattern, included) in [
        ("spiffe://example/gw", true),
        ("dns:b.example", true),
        ("cn:x", true),
        ("b.example", false),
        ("spiffe://example", false),
    ] {
        let callers = Callers::These(vec![pattern.parse().unwrap()]);
        assert_eq!(callers.include(&identity), included, "{pattern}");
        assert!(!callers.include(&Identity::anonymous()));
    }
    assert!(!Callers::These(Vec::new()).include(&identity));
    assert!(Callers::Anyone.include(&Identity::anonymous()));
}

#[tokio::test(start_paused = true)]
async fn callers_stuck_in_their_handshake_delay_nobody_and_have_a_deadline() {
    let (agent, doorstep) = open_to_all();
    for _ in 0..20 {
        doorstep.stand_silently().await;
    }
    let before = Instant::now();
    doorstep.ring("a").await.unwrap();
    assert!(before.elapsed() < SECOND / 100);
    assert_eq!(metric(&agent, "handshakes_pending"), 20.0);
    sleep(11 * SECOND).await;
    assert_eq!(metric(&agent, "handshakes_pending"), 0.0);
    let late = "handshake_failures_total{carrier=\"door\",reason=\"timeout\"}";
    assert_eq!(metric(&agent, late), 20.0);
}

#[tokio::test(start_paused = true)]
async fn there_are_so_many_connections_and_no_more() {
    let mut config = AgentConfig::default();
    config.max_accepted = 2;
    let (_agent, doorstep) = agent(Callers::Anyone, |builder| builder.config(config));
    let first = doorstep.ring("a").await.unwrap();
    let _second = doorstep.ring("b").await.unwrap();
    settle().await;
    let third = doorstep.ring("c").await.unwrap();
    assert_eq!(soon(third.closed()).await.code(), Some(CloseCode::OVERLOADED));
    first.close(CloseCode::DONE, "");
    soon(first.closed()).await;
    sleep(SECOND).await;
    let fourth = doorstep.ring("d").await.unwrap();
    sleep(SECOND).await;
    let echo = soon(fourth.open(StreamHead::new("tcp://127.0.0.1:1".parse().unwrap()))).await;
    assert!(echo.is_err(), "refused by the target, not by the agent");
}

#[tokio::test]
async fn a_drain_closes_the_listener_and_lets_streams_finish() {
    let (agent, doorstep) = open_to_all();
    let connection = doorstep.ring("a").await.unwrap();
    let stream = connection.open(StreamHead::new(tcp(echo_target().await)));
    let held = soon(stream).await.unwrap();
    doorstep.stand_silently().await;
    let waiting = agent.clone();
    let shutdown = tokio::spawn(async move { waiting.shutdown(3600 * SECOND).await });
    soon(connection.draining()).await;
    soon(doorstep.0.closed()).await;
    assert!(!shutdown.is_finished());
    round_trip(held.into_io(), b"still here").await;
    assert_eq!(soon(shutdown).await.unwrap(), 0);
    assert_eq!(soon(connection.closed()).await.code(), Some(CloseCode::DRAINED));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_agent_ends_everything() {
    let (agent, doorstep) = open_to_all();
    let connection = doorstep.ring("a").await.unwrap();
    drop(agent);
    assert_eq!(soon(connection.closed()).await.code(), Some(CloseCode::SHUTDOWN));
    soon(doorstep.0.closed()).await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_comes_after_the_drain_is_closed_at_once() {
    let (agent, _doorstep) = open_to_all();
    agent.drain();
    let (visits, door) = mpsc::channel(1);
    agent.listen(Box::new(Door(door)), Callers::Anyone).unwrap();
    soon(visits.closed()).await;
    assert_eq!(soon(agent.shutdown(SECOND)).await, 0);
}
