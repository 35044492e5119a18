//! Attempts to connect that never become connections must not stand in the way of those that do.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tunnel_core::{AcceptError, Admission, Connection, HandshakeError, Incoming, Listener, Policy, ServerConfig};

use crate::support::{Behaviour, World, claim, common_name, round_trip, settle, soon};

/// A listener that yields what a test gives it.
#[derive(Debug)]
struct Scripted {
    attempts: mpsc::Receiver<Result<Silent, io::Error>>,
}

/// Somebody who connects and says nothing.
#[derive(Debug)]
struct Silent {
    addr: SocketAddr,
    fate: Arc<Fate>,
}

#[derive(Debug, Default)]
struct Fate {
    handshakes: AtomicUsize,
    refused: AtomicUsize,
    gone: AtomicUsize,
}

impl Fate {
    fn all(&self) -> (usize, usize, usize) {
        let load = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (load(&self.handshakes), load(&self.refused), load(&self.gone))
    }
}

#[async_trait]
impl Listener for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(([192, 0, 2, 1], 8091).into())
    }

    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError> {
        match self.attempts.recv().await {
            Some(Ok(silent)) => Ok(Box::new(silent)),
            Some(Err(error)) => Err(AcceptError::Transient(error)),
            None => Err(AcceptError::Closed),
        }
    }
}

#[async_trait]
impl Incoming for Silent {
    fn remote_addr(&self) -> SocketAddr {
        self.addr
    }

    async fn handshake(self: Box<Self>, _: &dyn Admission) -> Result<Arc<dyn Connection>, HandshakeError> {
        self.fate.handshakes.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }

    fn refuse(self: Box<Self>) {
        self.fate.refused.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.fate.gone.fetch_add(1, Ordering::SeqCst);
    }
}

fn scripted(world: &World) -> (mpsc::Sender<Result<Silent, io::Error>>, Arc<Fate>) {
    let (attempt, attempts) = mpsc::channel(4096);
    world.server.listen(Box::new(Scripted { attempts })).unwrap();
    (attempt, Arc::default())
}

fn silent(source: u8, fate: &Arc<Fate>) -> Result<Silent, io::Error> {
    Ok(Silent {
        addr: ([203, 0, 113, source], 50_000).into(),
        fate: Arc::clone(fate),
    })
}

#[tokio::test(start_paused = true)]
async fn peers_stuck_in_their_handshake_delay_nobody() {
    let world = World::new();
    let mut stuck = Vec::new();
    for _ in 0..20 {
        stuck.push(world.carrier.knock().await.unwrap());
    }
    let before = Instant::now();
    let agent = world.agent("node-7", Behaviour::Echo).await;
    assert!(before.elapsed() < Duration::from_millis(10));
    let io = world
        .server
        .dial(agent.id.clone(), "tcp://x:1".parse().unwrap())
        .await
        .unwrap();
    round_trip(io, b"hello").await;
    assert_eq!(world.metric("handshakes_pending"), 20.0);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_a_deadline() {
    let world = World::new();
    let (attempt, fate) = scripted(&world);
    attempt.send(silent(1, &fate)).await.unwrap();
    sleep(Duration::from_millis(9_990)).await;
    assert_eq!(fate.all(), (1, 0, 0));
    sleep(Duration::from_millis(20)).await;
    assert_eq!(fate.all(), (1, 0, 1));
    assert_eq!(
        world.metric("handshake_failures_total{carrier=\"scripted\",reason=\"timeout\"}"),
        1.0
    );
    assert_eq!(world.metric("handshakes_pending"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn one_source_gets_its_share_and_the_others_still_get_in() {
    let world = World::new();
    let (attempt, fate) = scripted(&world);
    for _ in 0..2000 {
        attempt.send(silent(1, &fate)).await.unwrap();
    }
    settle().await;
    assert_eq!(fate.all(), (64, 1936, 1936));
    assert_eq!(
        world.metric("accept_refusals_total{carrier=\"scripted\",reason=\"source_limit\"}"),
        1936.0
    );
    let other = Arc::default();
    attempt.send(silent(2, &other)).await.unwrap();
    settle().await;
    assert_eq!(other.all(), (1, 0, 0));
    // When the handshakes of the first have timed out, it may come again.
    sleep(Duration::from_secs(10)).await;
    attempt.send(silent(1, &fate)).await.unwrap();
    settle().await;
    assert_eq!(fate.all(), (65, 1936, 2000));
}

#[tokio::test(start_paused = true)]
async fn many_sources_together_meet_the_total_limit() {
    let mut config = ServerConfig::default();
    config.accept.max_pending = 100;
    let world = World::with(|builder| builder.config(config));
    let (attempt, fate) = scripted(&world);
    for source in 0..=255 {
        attempt.send(silent(source, &fate)).await.unwrap();
    }
    settle().await;
    assert_eq!(fate.all(), (100, 156, 156));
    assert_eq!(
        world.metric("accept_refusals_total{carrier=\"scripted\",reason=\"total_limit\"}"),
        156.0
    );
}

#[tokio::test(start_paused = true)]
async fn the_filter_decides_before_the_handshake() {
    let world = World::with(|builder| builder.accept_filter(|addr| addr.ip().to_string() != "203.0.113.9"));
    let (attempt, fate) = scripted(&world);
    attempt.send(silent(9, &fate)).await.unwrap();
    settle().await;
    assert_eq!(fate.all(), (0, 1, 1));
    attempt.send(silent(8, &fate)).await.unwrap();
    settle().await;
    assert_eq!(fate.all(), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failing_accept_is_tried_again_without_spinning() {
    let world = World::new();
    let (attempt, fate) = scripted(&world);
    for _ in 0..100 {
        attempt
            .send(Err(io::Error::other("too many open files")))
            .await
            .unwrap();
    }
    attempt.send(silent(1, &fate)).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    let failures = world.metric("accept_errors_total{carrier=\"scripted\"}");
    assert!((10.0..=25.0).contains(&failures), "{failures} failures in 10 s");
    sleep(Duration::from_secs(100)).await;
    assert_eq!(fate.all().0, 1);
}

#[tokio::test(start_paused = true)]
async fn a_closed_listener_leaves_the_others_alone() {
    let world = World::new();
    let (attempt, _) = scripted(&world);
    drop(attempt);
    settle().await;
    world.agent("node-7", Behaviour::Echo).await;
    assert_eq!(world.connected(), [("node-7".to_owned(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_untrusted_certificate_is_counted_as_such() {
    let world = World::with(|builder| builder.policy(Arc::new(Policy::allow_all())));
    let untrusted = world.carrier.untrusted();
    let refused = world.connect(&untrusted, claim("node-7", 1), Behaviour::Echo).await;
    assert!(refused.is_err());
    assert_eq!(
        world.metric("handshake_failures_total{carrier=\"memory\",reason=\"tls\"}"),
        1.0
    );
    let trusted = untrusted.another(common_name("x"));
    drop(trusted);
    soon(world.agent("node-7", Behaviour::Echo)).await;
}
