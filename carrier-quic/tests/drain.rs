//! Drain: no new streams, old ones finish, then the connection is closed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use carrier_quic::QuicConfig;
use common::{STRANGER, World, fill, net::Link, raw::RawAgent, read_all};
use tunnel_core::{CloseCode, Connection, Initiator, OpenError, RefusalKind, StreamCode};
use tunnel_testkit::ends::{Ends, head, stream};

fn world() -> World {
    World::new(QuicConfig::default(), Link::default())
}

async fn within_a_second<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(1), future)
        .await
        .expect("in time")
}

async fn is_open(connection: &Arc<dyn Connection>) -> bool {
    tokio::time::timeout(Duration::from_secs(60), connection.closed())
        .await
        .is_err()
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_at_once() {
    let (agent, server) = world().connect().await;
    server.drain();
    let error = within_a_second(server.closed()).await;
    assert_eq!(
        (error.initiator(), error.code()),
        (Initiator::Local, Some(CloseCode::DRAINED))
    );
    let error = within_a_second(agent.closed()).await;
    assert_eq!(
        (error.initiator(), error.code()),
        (Initiator::Remote, Some(CloseCode::DRAINED))
    );
}

#[tokio::test(start_paused = true)]
async fn both_ends_hear_of_it_and_open_nothing_more_while_old_streams_go_on() {
    let (agent, server) = world().connect().await;
    let (mut here, mut there) = stream(&server, &agent).await;
    let waiting = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.draining().await }
    });
    agent.drain();
    within_a_second(waiting).await.unwrap();
    within_a_second(agent.draining()).await;
    assert!(matches!(agent.open(head()).await, Err(OpenError::Draining)));
    assert!(matches!(server.open(head()).await, Err(OpenError::Draining)));
    assert!(is_open(&agent).await);

    here.tx.send_all(Bytes::from_static(b"still here")).await.unwrap();
    here.tx.finish().await.unwrap();
    assert_eq!(read_all(&mut *there.rx).await.unwrap(), b"still here");
    assert!(is_open(&agent).await);
    there.tx.finish().await.unwrap();
    assert_eq!(read_all(&mut *here.rx).await.unwrap(), b"");
    assert_eq!(within_a_second(server.closed()).await.code(), Some(CloseCode::DRAINED));
    assert!(matches!(agent.open(head()).await, Err(OpenError::Connection(_))));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_all_that_was_sent_before_the_end() {
    let (agent, server) = world().connect().await;
    let (mut here, mut there) = stream(&server, &agent).await;
    there.tx.finish().await.unwrap();
    assert_eq!(read_all(&mut *here.rx).await.unwrap(), b"");
    let sent = fill(&mut *here.tx).await;
    // What does not fit the window is queued by the time that the reader has begun.
    here.tx.finish().await.unwrap();
    drop(here);
    server.drain();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(read_all(&mut *there.rx).await.unwrap().len(), sent);
    drop(there);
    assert_eq!(within_a_second(agent.closed()).await.code(), Some(CloseCode::DRAINED));
}

#[tokio::test(start_paused = true)]
async fn both_ends_may_drain() {
    let (agent, server) = world().connect().await;
    let both = stream(&server, &agent).await;
    agent.drain();
    server.drain();
    assert!(is_open(&agent).await);
    drop(both);
    assert_eq!(within_a_second(agent.closed()).await.code(), Some(CloseCode::DRAINED));
    assert_eq!(within_a_second(server.closed()).await.code(), Some(CloseCode::DRAINED));
}

#[tokio::test(start_paused = true)]
async fn an_open_that_waits_for_the_limit_ends_with_the_drain() {
    let config = QuicConfig::builder().max_streams(1).build().unwrap();
    let (agent, server) = World::new(config, Link::default()).connect().await;
    let one = stream(&server, &agent).await;
    let waiting = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.open(head()).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    agent.drain();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(one);
    // It was on its way when the agent began to drain, and is refused so that another agent may be tried.
    let error = within_a_second(waiting).await.unwrap().unwrap_err();
    assert!(error.is_undelivered(), "{error}");
    assert!(matches!(error, OpenError::Refused(refusal) if refusal.kind == RefusalKind::DestinationUnavailable));
    assert_eq!(within_a_second(server.closed()).await.code(), Some(CloseCode::DRAINED));
}

#[tokio::test(start_paused = true)]
async fn a_control_stream_that_ends_without_a_drain_closes_the_connection() {
    for reset in [false, true] {
        let mut world = world();
        let mut raw = RawAgent::connect(&mut world, STRANGER).await;
        if reset {
            raw.control.0.reset(0u32.into()).unwrap();
        } else {
            raw.control.0.finish().unwrap();
        }
        let error = within_a_second(raw.server.closed()).await;
        assert_eq!(
            (error.initiator(), error.code()),
            (Initiator::Local, Some(CloseCode::PROTOCOL))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_drain_on_the_control_stream_closes_the_connection() {
    let mut world = world();
    let mut raw = RawAgent::connect(&mut world, STRANGER).await;
    raw.control.0.write_all(b"\x04\x00").await.unwrap();
    let error = within_a_second(raw.server.closed()).await.to_string();
    assert!(error.ends_with("a HEAD frame came where DRAIN was expected"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_drains_and_never_closes_is_closed() {
    let mut world = world();
    let mut raw = RawAgent::connect(&mut world, STRANGER).await;
    raw.control.0.write_all(b"\x06\x00").await.unwrap();
    raw.control.0.finish().unwrap();
    let error = tokio::time::timeout(Duration::from_secs(6), raw.server.closed())
        .await
        .unwrap();
    assert_eq!(
        (error.initiator(), error.code()),
        (Initiator::Local, Some(CloseCode::DRAINED))
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_makes_way_after_many_resets() {
    let config = QuicConfig::builder().renew_after(100).build().unwrap();
    let (agent, server) = World::new(config, Link::default()).connect().await;
    for reset in 0..100 {
        assert!(!is_draining(&server).await, "after {reset} resets");
        let (mut here, _there) = stream(&server, &agent).await;
        let nothing = tokio::time::timeout(Duration::from_millis(10), here.tx.stopped()).await;
        assert!(nothing.is_err());
        here.tx.reset(StreamCode::CANCELLED);
    }
    within_a_second(agent.draining()).await;
    assert_eq!(within_a_second(server.closed()).await.code(), Some(CloseCode::DRAINED));
}

async fn is_draining(connection: &Arc<dyn Connection>) -> bool {
    tokio::time::timeout(Duration::ZERO, connection.draining())
        .await
        .is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_close_does_not_wait_behind_what_is_under_way() {
    let link = Link {
        latency: Duration::from_millis(100),
        ..Link::default()
    };
    let (agent, server) = World::new(QuicConfig::default(), link).connect().await;
    let (mut here, _there) = stream(&server, &agent).await;
    // More than the congestion window has room for.
    here.tx.send_all(Bytes::from(vec![7; 64 * 1024])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    server.close(CloseCode::SHUTDOWN, "the end");
    let error = within_a_second(agent.closed()).await;
    assert_eq!(
        (error.initiator(), error.code()),
        (Initiator::Remote, Some(CloseCode::SHUTDOWN))
    );
}
