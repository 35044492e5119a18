//! The end of an agent.

use std::time::Duration;

use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep},
};
use tunnel_core::RefusalKind;

use crate::support::{Site, echo_target, id, round_trip, settle, soon, tcp};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_drain_lets_nothing_start_and_everything_finish() {
    let site = Site::new("a");
    let agent = site.agent(|builder| builder).await;
    let target = tcp(echo_target().await);
    let held = soon(site.server.dial(id(), target.clone())).await.unwrap();
    agent.drain();
    site.draining().await;
    settle().await;
    let failure = soon(site.server.dial(id(), target)).await.unwrap_err();
    assert_eq!(failure.refusal.kind, RefusalKind::DestinationUnavailable);
    round_trip(held, b"still here").await;
    site.ended("drained").await;
    assert_eq!(soon(agent.shutdown(3600 * SECOND)).await, 0);
}

#[tokio::test]
async fn shutdown_waits_for_streams_and_no_longer() {
    let site = Site::new("a");
    let agent = site.agent(|builder| builder).await;
    let held = soon(site.server.dial(id(), tcp(echo_target().await))).await.unwrap();
    let waiting = agent.clone();
    let shutdown = tokio::spawn(async move { waiting.shutdown(3600 * SECOND).await });
    site.draining().await;
    assert!(!shutdown.is_finished());
    round_trip(held, b"still here").await;
    assert_eq!(soon(shutdown).await.unwrap(), 0);
    site.ended("drained").await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_what_does_not_end_itself() {
    let site = Site::new("a");
    let agent = site.agent(|builder| builder.handler(std::sync::Arc::new(Hold))).await;
    let mut held = soon(site.server.dial(id(), "tcp://x:1".parse().unwrap()))
        .await
        .unwrap();
    let before = Instant::now();
    assert_eq!(agent.shutdown(7 * SECOND).await, 1);
    assert_eq!(before.elapsed(), 7 * SECOND);
    site.ended("shutdown").await;
    assert!(held.read_u8().await.is_err());
    assert!(!agent.is_connected());
}

#[tokio::test(start_paused = true)]
async fn a_second_call_can_end_at_once() {
    let site = Site::new("a");
    let agent = site.agent(|builder| builder.handler(std::sync::Arc::new(Hold))).await;
    let _held = soon(site.server.dial(id(), "tcp://x:1".parse().unwrap()))
        .await
        .unwrap();
    let waiting = agent.clone();
    let shutdown = tokio::spawn(async move { waiting.shutdown(3600 * SECOND).await });
    sleep(SECOND).await;
    let before = Instant::now();
    assert_eq!(agent.shutdown(Duration::ZERO).await, 1);
    shutdown.await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
}

/// Accepts a stream and holds it.
#[derive(Debug)]
struct Hold;

#[async_trait::async_trait]
impl tunnel_core::InboundHandler for Hold {
    async fn handle(&self, inbound: Box<dyn tunnel_core::Inbound>, _: &tunnel_core::Peer) {
        let _stream = inbound.accept().await;
        std::future::pending().await
    }
}
