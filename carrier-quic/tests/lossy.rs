//! Paths that lose packets, over a simulated network in virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{mem, sync::Arc, time::Duration};

use bytes::Bytes;
use carrier_quic::{Congestion, QuicConfig};
use common::{STRANGER, World, net::Link, read_some};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tunnel_core::Connection;
use tunnel_testkit::ends::{Ends, stream};

const RATE: u64 = 12_500_000;
const SHORT: Duration = Duration::from_secs(3);

/// 100 Mbit/s, 20 ms, and one packet of a hundred lost.
fn link() -> Link {
    Link {
        latency: Duration::from_millis(10),
        bandwidth: Some(RATE),
        queue: RATE / 10,
        loss: 10,
    }
}

async fn world(congestion: Congestion) -> (Arc<dyn Connection>, Arc<dyn Connection>) {
    let config = QuicConfig::builder().congestion(congestion).build().unwrap();
    World::new(config, link()).connect().await
}

/// What so many streams move in this time, after its first third, as a part of what the link carries.
async fn share(from: &Arc<dyn Connection>, to: &Arc<dyn Connection>, streams: usize, time: Duration) -> f64 {
    let now = Instant::now();
    let (start, end) = (now + time / 3, now + time);
    let mut readers = JoinSet::new();
    for _ in 0..streams {
        let (mut here, mut there) = stream(from, to).await;
        tokio::spawn(async move { while here.tx.send_all(Bytes::from_static(&[7; 64 * 1024])).await.is_ok() {} });
        readers.spawn(async move {
            let mut moved = 0;
            while let Ok(bytes) = timeout_at(end, there.rx.recv(64 * 1024)).await {
                if Instant::now() > start {
                    moved += bytes.unwrap().unwrap().len();
                }
            }
            moved
        });
    }
    let moved: usize = readers.join_all().await.into_iter().sum();
    moved as f64 / (RATE as f64 * (end - start).as_secs_f64())
}

#[tokio::test(start_paused = true)]
async fn either_end_fills_a_path_that_loses_packets() {
    for streams in [1, 16] {
        let (agent, server) = world(Congestion::Adaptive).await;
        let down = share(&agent, &server, streams, SHORT).await;
        assert!(down > 0.85, "{down} down with {streams} streams");
        let (agent, server) = world(Congestion::Adaptive).await;
        let up = share(&server, &agent, streams, SHORT).await;
        assert!(up > 0.85, "{up} up with {streams} streams");
    }
}

/// If this fails, the controller that is there for it may no longer be needed.
#[tokio::test(start_paused = true)]
async fn cubic_alone_does_not() {
    let (agent, server) = world(Congestion::Cubic).await;
    assert!(share(&agent, &server, 1, SHORT).await < 0.2);
}

#[tokio::test(start_paused = true)]
async fn requests_are_answered_soon_beside_bulk_that_fills_it() {
    let (agent, server) = world(Congestion::Adaptive).await;
    let (mut here, mut there) = stream(&server, &agent).await;
    tokio::spawn(async move {
        loop {
            read_some(&mut *there.rx, 100).await;
            there.tx.send_all(Bytes::from_static(&[7; 100])).await.unwrap();
        }
    });
    let requests = async {
        sleep(Duration::from_secs(1)).await;
        let mut took = Vec::new();
        for _ in 0..100 {
            let start = Instant::now();
            here.tx.send_all(Bytes::from_static(&[7; 100])).await.unwrap();
            read_some(&mut *here.rx, 100).await;
            took.push(start.elapsed());
        }
        took.sort_unstable();
        took
    };
    let (bulk, took) = tokio::join!(share(&agent, &server, 16, SHORT), requests);
    assert!(bulk > 0.85, "{bulk}");
    assert!(took[50] < Duration::from_millis(40), "{took:?}");
    assert!(took[97] < Duration::from_millis(120), "{took:?}");
}

/// Two agents send to a server over the same line, which loses packets only when its queue is full.
#[tokio::test(start_paused = true)]
async fn a_sender_with_cubic_beside_it_is_not_starved() {
    let carried_in_a_round_trip = RATE / 50;
    for (queue, least) in [(carried_in_a_round_trip, 0.4), (carried_in_a_round_trip / 8, 0.15)] {
        let link = Link {
            queue,
            loss: 0,
            ..link()
        };
        let config = |congestion| QuicConfig::builder().congestion(congestion).build().unwrap();
        let mut world = World::new(config(Congestion::Adaptive), link);
        world.net.share_lines();
        let (adaptive, server) = world.connect().await;
        let tls = world.pki.client();
        let other = World::carrier(&world.net, STRANGER, &tls, config(Congestion::Cubic));
        let _first = mem::replace(&mut world.carrier, other);
        let (cubic, server_of_cubic) = world.connect().await;
        let time = Duration::from_secs(15);
        let (adaptive, cubic) = tokio::join!(
            share(&adaptive, &server, 1, time),
            share(&cubic, &server_of_cubic, 1, time)
        );
        assert!(cubic > least, "{cubic} beside {adaptive} with a queue of {queue}");
        assert!(
            cubic + adaptive > 0.85,
            "{cubic} beside {adaptive} with a queue of {queue}"
        );
    }
}
