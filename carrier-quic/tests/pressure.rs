//! Stalled streams that hold all of the receive budget.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use carrier_quic::QuicConfig;
use common::{World, fill, net::Link, read_all};
use tunnel_core::{RecvError, SendError, StreamCode};
use tunnel_testkit::ends::{Ends, stream};

/// Sixteen streams of 64 KiB fit the budget of a megabyte.
fn config() -> QuicConfig {
    QuicConfig::builder()
        .stream_window(64 * 1024)
        .receive_budget(1024 * 1024)
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_longest_stalled_make_way_for_the_others() {
    let (agent, server) = World::new(config(), Link::default()).connect().await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let (mut here, there) = stream(&server, &agent).await;
        fill(&mut *here.tx).await;
        stalled.push((here, there));
    }
    let (mut here, mut there) = stream(&server, &agent).await;
    let transfer = async {
        tokio::join!(
            async {
                here.tx.send_all(Bytes::from(vec![1; 4 << 20])).await.unwrap();
                here.tx.finish().await.unwrap();
            },
            read_all(&mut *there.rx)
        )
    };
    let ((), received) = tokio::time::timeout(Duration::from_secs(30), transfer)
        .await
        .expect("the sibling is not held up for long");
    assert_eq!(received.unwrap().len(), 4 << 20);

    let mut reclaimed = Vec::new();
    for (number, (here, there)) in stalled.iter_mut().enumerate() {
        match there.rx.recv(1).await {
            Ok(_) => {}
            Err(RecvError::Stopped(StreamCode::MEMORY)) => {
                assert!(matches!(
                    here.tx.finish().await,
                    Err(SendError::Stopped(StreamCode::MEMORY))
                ));
                reclaimed.push(number);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!((1..=8).contains(&reclaimed.len()), "{reclaimed:?}");
    let oldest: Vec<_> = (0..reclaimed.len()).collect();
    assert_eq!(reclaimed, oldest, "the longest stalled");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_reset_of_a_stream_hears_that_it_made_way() {
    let (agent, server) = World::new(config(), Link::default()).connect().await;
    // A relay does so while its socket takes nothing more.
    let (mut first, mut stalled) = stream(&server, &agent).await;
    fill(&mut *first.tx).await;
    let waiting = tokio::spawn(async move { poll_fn(|cx| stalled.rx.poll_reset(cx)).await });
    let mut others = Vec::new();
    for _ in 0..20 {
        let (mut here, there) = stream(&server, &agent).await;
        fill(&mut *here.tx).await;
        others.push((here, there));
    }
    let heard = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    let error = heard.expect("the one who waits is woken").unwrap();
    assert!(matches!(error, RecvError::Stopped(StreamCode::MEMORY)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_merely_not_read_are_left_alone() {
    let (agent, server) = World::new(config(), Link::default()).connect().await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(stream(&server, &agent).await);
    }
    let (mut here, mut there) = stream(&server, &agent).await;
    let sending = tokio::spawn(async move {
        for _ in 0..64 {
            here.tx.send_all(Bytes::from(vec![1; 64 * 1024])).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        here.tx.finish().await.unwrap();
    });
    assert_eq!(read_all(&mut *there.rx).await.unwrap().len(), 4 << 20);
    sending.await.unwrap();
    for (here, there) in &mut idle {
        here.tx.send_all(Bytes::from_static(b"late")).await.unwrap();
        assert_eq!(there.rx.recv(4).await.unwrap().unwrap(), "late");
    }
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_passed_only_by_reclaiming() {
    let (agent, server) = World::new(config(), Link::default()).connect().await;
    let agent = Arc::clone(&agent);
    let mut taken = 0;
    let mut streams = Vec::new();
    for _ in 0..30 {
        let (mut here, there) = stream(&server, &agent).await;
        let filled = fill(&mut *here.tx).await;
        assert!(filled <= 64 * 1024);
        taken += filled;
        streams.push((here, there));
        if taken > 1024 * 1024 {
            break;
        }
    }
    // One was filled beyond the budget because another one had to make way.
    assert!(matches!(
        streams[0].1.rx.recv(1).await,
        Err(RecvError::Stopped(StreamCode::MEMORY))
    ));
}
