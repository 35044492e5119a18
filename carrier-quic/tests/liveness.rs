//! Dead paths are noticed in time, live ones are left alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::time::Duration;

use bytes::Bytes;
use carrier_quic::QuicConfig;
use common::{World, net::Link};
use tokio::time::Instant;
use tunnel_core::{ConnectionError, Initiator, Keepalive, OpenError, RecvError};
use tunnel_testkit::ends::{Ends, head, stream};

fn config(interval: u64, timeout: u64) -> QuicConfig {
    let keepalive = Keepalive {
        interval: Duration::from_secs(interval),
        timeout: Duration::from_secs(timeout),
    };
    QuicConfig::builder().keepalive(keepalive).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_within_the_bound_at_both_ends() {
    for (interval, timeout) in [(10, 5), (2, 1)] {
        // Whenever it begins: the keepalive of an idle connection may just have been answered, or be due.
        for quiet_for in [0, 900, 3_100, 4_900, 60_000] {
            let mut world = World::new(config(interval, timeout), Link::default());
            let (agent, server) = world.connect().await;
            tokio::time::sleep(Duration::from_millis(quiet_for)).await;
            world.net.set_silent(true);
            let since = Instant::now();
            for end in [agent.closed().await, server.closed().await] {
                assert!(matches!(end, ConnectionError::TimedOut { .. }), "{end}");
                assert_eq!(end.initiator(), Initiator::Network);
            }
            let noticed = since.elapsed();
            let bound = Duration::from_secs(interval + timeout);
            assert!(noticed <= bound, "{noticed:?} after {quiet_for} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn silence_fails_everything_that_waits() {
    let mut world = World::new(QuicConfig::default(), Link::default());
    let (agent, server) = world.connect().await;
    let (mut here, _there) = stream(&server, &agent).await;
    world.net.set_silent(true);
    let (opened, received, accepted) = tokio::join!(server.open(head()), here.rx.recv(1), server.accept());
    assert!(matches!(
        opened,
        Err(OpenError::Connection(ConnectionError::TimedOut { .. }))
    ));
    assert!(matches!(
        received,
        Err(RecvError::Connection(ConnectionError::TimedOut { .. }))
    ));
    assert!(matches!(accepted, Err(ConnectionError::TimedOut { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_stays() {
    let (agent, server) = World::new(QuicConfig::default(), Link::default()).connect().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let _ = stream(&agent, &server).await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_on_a_slow_line_stays() {
    let link = Link {
        latency: Duration::from_millis(300),
        bandwidth: Some(20_000),
        queue: 20_000,
        loss: 20,
    };
    let mut world = World::new(config(2, 1), link);
    let (agent, server) = world.connect().await;
    let (mut here, mut there) = stream(&server, &agent).await;
    let sending = async {
        for _ in 0..8 {
            here.tx.send_all(Bytes::from(vec![1; 64 * 1024])).await.unwrap();
        }
        here.tx.finish().await.unwrap();
    };
    let ((), received) = tokio::join!(sending, common::read_all(&mut *there.rx));
    assert_eq!(received.unwrap().len(), 512 * 1024);
}

#[tokio::test(start_paused = true)]
async fn ends_with_different_wishes_agree_on_the_shorter() {
    let mut world = World::new(config(2, 1), Link::default());
    let tls = world.pki.client();
    world.carrier = World::carrier(&world.net, common::STRANGER, &tls, config(40, 20));
    let (agent, server) = world.connect().await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    world.net.set_silent(true);
    let since = Instant::now();
    server.closed().await;
    assert!(since.elapsed() <= Duration::from_secs(3));
    agent.closed().await;
    assert!(since.elapsed() <= Duration::from_secs(22));
}
