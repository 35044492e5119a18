//! Paths that lose packets, over a simulated network in virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use carrier_quic::{Congestion, QuicConfig};
use common::{World, net::Link, read_some};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tunnel_core::Connection;
use tunnel_testkit::ends::{Ends, stream};

const RATE: u64 = 12_500_000;

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

/// What so many streams move in two seconds, after a second, as a part of what the link carries.
async fn share(from: &Arc<dyn Connection>, to: &Arc<dyn Connection>, streams: usize) -> f64 {
    let (start, end) = (Duration::from_secs(1), Duration::from_secs(3));
    let (start, end) = (Instant::now() + start, Instant::now() + end);
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
    moved as f64 / (2 * RATE) as f64
}

#[tokio::test(start_paused = true)]
async fn either_end_fills_a_path_that_loses_packets() {
    for streams in [1, 16] {
        let (agent, server) = world(Congestion::Adaptive).await;
        let down = share(&agent, &server, streams).await;
        assert!(down > 0.85, "{down} down with {streams} streams");
        let (agent, server) = world(Congestion::Adaptive).await;
        let up = share(&server, &agent, streams).await;
        assert!(up > 0.85, "{up} up with {streams} streams");
    }
}

/// If this fails, the controller that is there for it may no longer be needed.
#[tokio::test(start_paused = true)]
async fn cubic_alone_does_not() {
    let (agent, server) = world(Congestion::Cubic).await;
    assert!(share(&agent, &server, 1).await < 0.2);
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
    let (bulk, took) = tokio::join!(share(&agent, &server, 16), requests);
    assert!(bulk > 0.85, "{bulk}");
    assert!(took[50] < Duration::from_millis(40), "{took:?}");
    assert!(took[97] < Duration::from_millis(120), "{took:?}");
}
