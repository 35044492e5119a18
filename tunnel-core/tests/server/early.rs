//! What a client has said before its stream is open.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tunnel_core::{OpenRequest, Opened, Opener, RefusalKind};

use crate::support::{Behaviour, World, kind, request, settle};

fn saying(early: impl Into<Bytes>) -> OpenRequest {
    OpenRequest {
        early: early.into(),
        ..request()
    }
}

/// Sends what is left, and reads what an echo gives back.
async fn echoed(opened: Opened) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(opened.stream.into_io());
    let mut back = Vec::new();
    let send = async {
        writer.write_all(&opened.early).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let (read, ()) = tokio::join!(reader.read_to_end(&mut back), send);
    read.unwrap();
    back
}

#[tokio::test(start_paused = true)]
async fn the_first_of_it_goes_with_the_head_and_the_rest_is_left() {
    const MOST: usize = 16 * 1024;
    let world = World::new();
    let _agent = world.agent("node-7", Behaviour::Echo).await;
    let mut moved = 0;
    for size in [0, 1, MOST, MOST + 1, 10 * MOST] {
        let whole: Vec<u8> = (0..251).cycle().take(size).collect();
        let opened = world.server.open(saying(whole.clone())).await.unwrap();
        assert_eq!(opened.early.len(), size.saturating_sub(MOST));
        assert!(echoed(opened).await == whole, "{size} bytes come back as they were");
        moved += size;
        settle().await;
        let counted = world.metric("stream_bytes_total{direction=\"to_agent\"}");
        assert_eq!(counted, moved as f64);
    }
}

#[tokio::test(start_paused = true)]
async fn another_agent_gets_the_whole_of_it_when_the_first_has_refused() {
    for undelivered in [RefusalKind::ConnectionLimitReached, RefusalKind::DestinationUnavailable] {
        let world = World::new();
        let _bad = world.agent("bad", Behaviour::Refuse(undelivered)).await;
        let _good = world.agent("good", Behaviour::Echo).await;
        for _ in 0..20 {
            let opened = world.server.open(saying("hello")).await.unwrap();
            assert_eq!(opened.agent.as_str(), "good");
            assert_eq!(echoed(opened).await, b"hello");
        }
        assert!(world.metric("dial_retries_total") > 0.0);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_else_gets_it_when_there_was_no_answer() {
    let world = World::new();
    let agents = [
        world.agent("a", Behaviour::Ignore).await,
        world.agent("b", Behaviour::Ignore).await,
    ];
    let server = world.server.clone();
    let dial = tokio::spawn(async move { server.open(saying("once")).await });
    settle().await;
    let streams = agents.each_ref().map(|agent| agent.connection.stats().streams_open);
    let (asked, other) = if streams[0] == 1 { (0, 1) } else { (1, 0) };
    assert_eq!((streams[asked], streams[other]), (1, 0));
    agents[asked].carrier.wire().cut();
    assert_eq!(kind(dial.await.unwrap()), RefusalKind::ConnectionTerminated);
    settle().await;
    assert_eq!(agents[other].connection.stats().streams_open, 0);
    assert_eq!(world.metric("dial_retries_total"), 0.0);
}
