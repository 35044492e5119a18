//! Peers whose process was killed are noticed by what their system says; living ones are not taken for dead.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{error::Error as _, sync::Arc, time::Duration};

use carrier_quic::QuicConfig;
use common::{AGENT, SERVER, STRANGER, World, net::Link, raw::RawAgent};
use tokio::time::{Instant, sleep, timeout};
use tunnel_core::{Carrier, Connection, ConnectionError, DialError, Initiator, Keepalive, OpenError};
use tunnel_testkit::ends::{Ends, Verdict, claim, head, stream};

/// Far more time than a report needs to be believed.
const KEEPALIVE: Duration = Duration::from_secs(60);

fn config() -> QuicConfig {
    let keepalive = Keepalive {
        interval: KEEPALIVE * 2 / 3,
        timeout: KEEPALIVE / 3,
    };
    QuicConfig::builder().keepalive(keepalive).build().unwrap()
}

fn world() -> World {
    World::new(config(), Link::default())
}

fn assert_gone(error: &ConnectionError, peer: std::net::SocketAddr) {
    assert!(matches!(error, ConnectionError::Transport(_)), "{error:?}");
    assert_eq!(error.initiator(), Initiator::Network);
    assert_eq!(
        error.source().unwrap().to_string(),
        format!("nobody listens at {peer} any more: its system reports the port as unreachable")
    );
}

#[tokio::test(start_paused = true)]
async fn a_killed_peer_is_noticed_about_a_second_after_something_was_sent() {
    // In either role; and on a path whose round trip is longer than the least patience.
    for (latency, bound) in [(1, 1.2), (300, 3.5)] {
        let link = Link {
            latency: Duration::from_millis(latency),
            ..Link::default()
        };
        for killed in [AGENT, SERVER] {
            let mut world = World::new(config(), link);
            let (agent, server) = world.connect().await;
            sleep(Duration::from_secs(3)).await;
            world.net.kill(killed);
            let survivor = if killed == AGENT { server } else { agent };
            let since = Instant::now();
            let error = survivor.open(head()).await.unwrap_err();
            let noticed = since.elapsed().as_secs_f64();
            assert!((1.0..bound).contains(&noticed), "{noticed} s, {latency} ms, {killed}");
            let OpenError::Connection(error) = error else {
                panic!("{error:?}")
            };
            assert_gone(&error, killed);
            assert_gone(&survivor.closed().await, killed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_that_has_waited_for_long_fails_as_soon() {
    // Its head was acknowledged long ago, so nothing is on its way.
    for waited in [0, 100, 700, 5_300, 17_777] {
        let mut world = world();
        let (agent, server) = world.connect().await;
        let opened = tokio::spawn(async move { server.open(head()).await });
        let _unanswered = agent.accept().await.unwrap();
        sleep(Duration::from_millis(waited)).await;
        world.net.kill(AGENT);
        let since = Instant::now();
        let error = opened.await.unwrap().unwrap_err();
        let noticed = since.elapsed();
        assert!(noticed < Duration::from_millis(2_200), "{noticed:?} after {waited} ms");
        let OpenError::Connection(error) = error else {
            panic!("{error:?}")
        };
        assert_gone(&error, AGENT);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_notices_with_its_next_keepalive() {
    let mut world = world();
    let (agent, server) = world.connect().await;
    sleep(Duration::from_secs(7)).await;
    world.net.kill(AGENT);
    let since = Instant::now();
    assert_gone(&server.closed().await, AGENT);
    let noticed = since.elapsed();
    assert!(noticed < KEEPALIVE / 3 + Duration::from_secs(2), "{noticed:?}");
    drop(agent);
}

/// Reports without end that the server's peer has gone, with whatever can be guessed of a packet.
fn forge(world: &World) -> tokio::task::JoinHandle<()> {
    let reports = world.listener.port_reports().clone();
    tokio::spawn(async move {
        let mut random = fastrand::Rng::with_seed(3);
        loop {
            let mut quoted = [0; 64];
            random.fill(&mut quoted);
            let len = random.usize(..=quoted.len());
            reports.unreachable(AGENT, &quoted[..len]);
            reports.unreachable(STRANGER, &quoted[..len]);
            sleep(Duration::from_millis(5)).await;
        }
    })
}

#[tokio::test(start_paused = true)]
async fn forged_reports_change_nothing_and_cost_a_probe_a_second() {
    let mut world = world();
    let (agent, server) = world.connect().await;
    let forging = forge(&world);
    sleep(Duration::from_secs(10)).await;
    let (sent, seconds) = (world.net.sent(), 600);
    sleep(Duration::from_secs(seconds)).await;
    // A probe and its acknowledgement, with some keepalive among them.
    let sent = world.net.sent() - sent;
    assert!((seconds..=seconds * 3).contains(&sent), "{sent} packets");
    let _ = stream(&server, &agent).await;
    let _ = stream(&agent, &server).await;
    forging.abort();
}

#[tokio::test(start_paused = true)]
async fn forged_reports_do_not_shorten_the_patience_with_a_silent_peer() {
    let mut world = world();
    let (_agent, server) = world.connect().await;
    let _forging = forge(&world);
    sleep(Duration::from_secs(10)).await;
    world.net.set_silent(true);
    let timed_out = server.closed().await;
    assert!(matches!(timed_out, ConnectionError::TimedOut { .. }), "{timed_out:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_is_believed_more_than_true_reports() {
    let mut world = world();
    let (agent, server) = world.connect().await;
    world.net.slander(AGENT);
    for _ in 0..100 {
        let _ = stream(&server, &agent).await;
        sleep(Duration::from_millis(700)).await;
    }
    sleep(Duration::from_secs(600)).await;
    let _ = stream(&server, &agent).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_slow_to_answer_an_open_is_probed_about_once_a_second() {
    let mut world = world();
    let (agent, server) = world.connect().await;
    let opened = {
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.open(head()).await })
    };
    let unanswered = agent.accept().await.unwrap();
    sleep(Duration::from_secs(5)).await;
    let (sent, seconds) = (world.net.sent(), 600);
    sleep(Duration::from_secs(seconds)).await;
    let sent = world.net.sent() - sent;
    assert!((seconds..=seconds * 5 / 2).contains(&sent), "{sent} packets");

    let accepted = unanswered.accept().await.unwrap();
    let opened = opened.await.unwrap().unwrap();
    // Nobody waits any more.
    sleep(Duration::from_secs(5)).await;
    let sent = world.net.sent();
    sleep(Duration::from_secs(600)).await;
    let sent = world.net.sent() - sent;
    assert!(sent < 200, "{sent} packets");
    drop((accepted, opened));
}

#[tokio::test(start_paused = true)]
async fn reports_about_an_address_that_the_peer_has_left_are_not_followed_up() {
    let mut world = world();
    let raw = RawAgent::connect(&mut world, STRANGER).await;
    let next = world.net.free_address(STRANGER);
    raw.endpoint.rebind_abstract(world.net.socket(next)).unwrap();
    // Moves the connection.
    let (mut tx, _rx) = raw.quic.open_bi().await.unwrap();
    tx.write_all(&head().encode()).await.unwrap();
    let _inbound = raw.server.accept().await.unwrap();
    sleep(Duration::from_secs(5)).await;

    let reports = world.listener.port_reports();
    for (addr, probed) in [(STRANGER, false), (next, true), (AGENT, false)] {
        let sent = world.net.sent();
        reports.unreachable(addr, &[]);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(world.net.sent() > sent, probed, "{addr}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_to_a_port_that_nobody_has_fails_at_once() {
    let world = world();
    world.net.kill(SERVER);
    let since = Instant::now();
    let deadline = Instant::now() + Duration::from_secs(10);
    let error = world.carrier.dial(&claim(), deadline).await.unwrap_err();
    assert!(since.elapsed() < Duration::from_millis(100), "{:?}", since.elapsed());
    assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
    assert_eq!(error.source().unwrap().to_string(), "nobody listens on that UDP port");
    assert!(error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn a_dial_heeds_no_forged_report() {
    let mut world = world();
    let verdict = Verdict::default();
    let endpoint_reports = world.net.reports_of(AGENT);
    let forging = tokio::spawn(async move {
        loop {
            endpoint_reports.unreachable(SERVER, &[0xc3; 64]);
            sleep(Duration::from_micros(100)).await;
        }
    });
    let (agent, server) = timeout(Duration::from_secs(5), world.attempt(&verdict)).await.unwrap();
    forging.abort();
    let _ = stream(&(agent.unwrap() as Arc<dyn Connection>), &server.unwrap()).await;
}
