//! The figures add up, and return to zero.

use std::time::Duration;

use tunnel_core::RefusalKind;

use crate::support::{Behaviour, World, request, round_trip, settle};

#[tokio::test(start_paused = true)]
async fn bytes_and_streams_are_counted_as_they_pass() {
    let world = World::new();
    let agent = world.agent("node-7", Behaviour::Echo).await;
    for size in [0, 1, 100_000] {
        let opened = world.open().await.unwrap();
        round_trip(opened.stream.into_io(), &vec![7; size]).await;
    }
    let held = world.open().await.unwrap();
    assert_eq!(world.metric("streams_open{opener=\"server\"}"), 1.0);
    assert_eq!(world.server.streams_open(), 1);
    drop(held);
    settle().await;
    assert_eq!(world.metric("streams_total{opener=\"server\"}"), 4.0);
    assert_eq!(world.metric("streams_open{opener=\"server\"}"), 0.0);
    assert_eq!(world.metric("stream_bytes_total{direction=\"to_agent\"}"), 100_001.0);
    assert_eq!(world.metric("stream_bytes_total{direction=\"from_agent\"}"), 100_001.0);
    assert_eq!(
        world.metric("streams_ended_total{opener=\"server\",end=\"complete\"}"),
        3.0
    );
    assert_eq!(
        world.metric("streams_ended_total{opener=\"server\",end=\"reset\"}"),
        1.0
    );
    assert_eq!(world.metric("dial_duration_seconds_count{result=\"opened\"}"), 4.0);

    let held = world.open().await.unwrap();
    agent.carrier.wire().cut();
    settle().await;
    let mut io = held.stream.into_io();
    assert!(tokio::io::AsyncReadExt::read_u8(&mut io).await.is_err());
    drop(io);
    assert_eq!(
        world.metric("streams_ended_total{opener=\"server\",end=\"connection\"}"),
        1.0
    );
    for gauge in [
        "sessions",
        "connections{carrier=\"memory\"}",
        "dials_pending",
        "handshakes_pending",
    ] {
        assert_eq!(world.metric(gauge), 0.0, "{gauge}");
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_are_counted_by_who_refused() {
    let world = World::new();
    assert!(world.open().await.is_err());
    let _agent = world.agent("node-7", Behaviour::Refuse(RefusalKind::DnsError)).await;
    assert!(world.open().await.is_err());
    assert_eq!(
        world.metric("refusals_total{by=\"server\",kind=\"destination_unavailable\"}"),
        1.0
    );
    assert_eq!(world.metric("refusals_total{by=\"agent\",kind=\"dns_error\"}"), 1.0);
    assert_eq!(world.metric("dial_duration_seconds_count{result=\"dns_error\"}"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn many_streams_given_up_at_any_moment_leave_nothing_behind() {
    let world = World::new();
    let agent = world.agent("node-7", Behaviour::Echo).await;
    let mut tasks = Vec::new();
    for at in 0..500_u64 {
        let server = world.server.clone();
        tasks.push(tokio::spawn(async move {
            let patience = Duration::from_micros(at * 10);
            tokio::time::timeout(patience, async {
                let opened = tunnel_core::Opener::open(&server, request()).await.unwrap();
                let mut io = opened.stream.into_io();
                tokio::io::AsyncWriteExt::write_all(&mut io, &[1; 1000]).await.unwrap();
                std::future::pending::<()>().await
            })
            .await
        }));
    }
    for task in tasks {
        assert!(task.await.unwrap().is_err());
    }
    settle().await;
    assert_eq!(world.metric("streams_open{opener=\"server\"}"), 0.0);
    assert_eq!(world.metric("dials_pending"), 0.0);
    assert_eq!(world.server.streams_open(), 0);
    assert_eq!(agent.connection.stats().streams_open, 0);
    let session = std::sync::Arc::clone(&world.server.agents().sessions()[0]);
    assert_eq!(session.load(tokio::time::Instant::now()).unwrap().streams, 0);
}
