//! Bytes under way.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{task::yield_now, time::timeout, try_join};
use tunnel_proto::{
    StreamCode, VarInt,
    mux::{Budget, Config, Frame, Message, Windows},
};

use super::{
    PROMPT, World, agent_end, head, peer, server_end, settle,
    wire::{UP, Wire},
};
use crate::{
    carrier::PeerRole,
    error::RecvError,
    mux::{Link, LinkError, MuxConfig, start},
};

#[tokio::test(start_paused = true)]
async fn bytes_arrive_in_both_directions_at_once() {
    let world = World::new();
    let (mut near, mut far) = world.stream().await;
    let data: Bytes = (0..3_000_000_u32).map(|index| index.to_le_bytes()[0]).collect();
    let (up, down) = (data.clone(), data.slice(7..));
    let send_up = async {
        near.tx.send_all(up.clone()).await.unwrap();
        near.tx.finish().await.unwrap();
        Ok(())
    };
    let send_down = async {
        far.tx.send_all(down.clone()).await.unwrap();
        far.tx.finish().await.unwrap();
        Ok::<_, ()>(())
    };
    let recv_up = async {
        let mut received = Vec::new();
        while let Some(bytes) = far.rx.recv(70_000).await.unwrap() {
            received.extend_from_slice(&bytes);
        }
        Ok(received)
    };
    let recv_down = async {
        let mut received = Vec::new();
        while let Some(bytes) = near.rx.recv(70_000).await.unwrap() {
            received.extend_from_slice(&bytes);
        }
        Ok(received)
    };
    let ((), (), got_up, got_down) = try_join!(send_up, send_down, recv_up, recv_down).unwrap();
    assert!(got_up == data && got_down == data.slice(7..));
    let (agent, server) = (world.agent.stats(), world.server.stats());
    assert_eq!((agent.bytes_sent, server.bytes_received), (3_000_000, 3_000_000));
    assert_eq!((server.bytes_sent, agent.bytes_received), (2_999_993, 2_999_993));
    drop((near, far));
    settle().await;
    assert_eq!((agent.streams_opened, server.streams_accepted), (1, 1));
    assert_eq!(world.agent.stats().streams_open, 0);
    assert_eq!(world.server.stats().streams_open, 0);
}

#[tokio::test(start_paused = true)]
async fn reading_goes_on_while_writing_is_stuck() {
    let world = World::new();
    let (mut near, mut far) = world.stream().await;
    settle().await;
    world.wire.stick(UP, true);
    // More than the link takes.
    let sending = tokio::spawn(async move { near.tx.send_all(vec![0; 4 << 20].into()).await });
    settle().await;
    for _ in 0..10 {
        far.tx.send_all("still here".into()).await.unwrap();
        let received = timeout(PROMPT, near.rx.recv(100)).await.unwrap();
        assert_eq!(received.unwrap().unwrap(), "still here");
    }
    sending.abort();
}

#[tokio::test(start_paused = true)]
async fn messages_are_flushed_together() {
    let world = World::new();
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(world.stream().await);
    }
    settle().await;
    let before = world.wire.lanes()[UP].flushes;
    for (near, _) in &mut streams {
        near.tx.send_all(vec![0; 2_000].into()).await.unwrap();
    }
    settle().await;
    let lanes = world.wire.lanes();
    assert!(lanes[UP].flushed.is_empty() && lanes[UP].taken.is_empty());
    let flushes = lanes[UP].flushes - before;
    assert!(flushes <= 2, "{flushes} flushes for what is one burst");
}

#[tokio::test(start_paused = true)]
async fn bulk_is_sent_in_several_turns() {
    let world = World::new();
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(world.stream().await);
    }
    settle().await;
    let before = world.wire.lanes()[UP].flushes;
    for (near, _) in &mut streams {
        near.tx.send_all(vec![0; 20_000].into()).await.unwrap();
    }
    settle().await;
    // One for each turn, which ends with the message that goes beyond 64 KiB.
    let flushes = world.wire.lanes()[UP].flushes - before;
    assert!(flushes >= 4, "400,000 bytes in {flushes} turns");
}

/// A link that always has one more message, and takes every message.
#[derive(Debug)]
struct Endless {
    first: VecDeque<Bytes>,
    received: Arc<AtomicUsize>,
    offset: u32,
}

impl Link for Endless {
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, _message: Message) -> Result<(), LinkError> {
        Ok(())
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_recv(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LinkError>> {
        self.received.fetch_add(1, Ordering::Relaxed);
        if let Some(message) = self.first.pop_front() {
            return Poll::Ready(Ok(Some(message)));
        }
        self.offset += 4096;
        let offset = VarInt::from_u32((1 << 29) + self.offset);
        Poll::Ready(Ok(Some(encoded(&Frame::MaxData { offset }))))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(Ok(()))
    }
}

fn encoded(frame: &Frame) -> Bytes {
    let mut out = bytes::BytesMut::new();
    frame.encode(&mut out);
    out.freeze()
}

#[tokio::test(start_paused = true)]
async fn a_link_that_never_pauses_leaves_room_for_others() {
    let received = Arc::new(AtomicUsize::new(0));
    let hello = {
        // What a server says first.
        let (wire, _agent, server) = Wire::new(16);
        let connection = server_end(server, MuxConfig::default());
        settle().await;
        let hello = wire.lanes()[super::wire::DOWN].flushed.pop_front().unwrap();
        drop(connection);
        hello
    };
    let link = Endless {
        first: [hello].into(),
        received: Arc::clone(&received),
        offset: 0,
    };
    let welcome = tunnel_proto::Welcome::new("gw".parse().unwrap());
    let role = PeerRole::Server(Box::new(welcome));
    let connection = start(Box::new(link), peer(role), MuxConfig::default());
    // A task like any other.
    let other = tokio::spawn(async move {
        yield_now().await;
        let first = received.load(Ordering::Relaxed);
        let mut before = first;
        for _ in 0..20 {
            yield_now().await;
            let now = received.load(Ordering::Relaxed);
            // The scheduler has two queues, and takes it from both at times.
            assert!(now - before <= 2 * 32, "{} messages in one turn", now - before);
            before = now;
        }
        assert!(
            before >= first + 10 * 32,
            "the task has come to a halt after {before}: {connection:?}"
        );
    });
    other.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_asked_for_memory_gives_it_back() {
    let budget = Budget::new(1 << 20);
    let windows = Windows::fixed(512 * 1024);
    let proto = Config::builder().stream_window(windows).build().unwrap();
    let config = MuxConfig::new(proto, Budget::default());
    let shared = MuxConfig::new(config.proto.clone(), budget.clone());
    let mut ends = Vec::new();
    // Two connections of one process, whose peers are elsewhere.
    for _ in 0..2 {
        let (_wire, agent, server) = Wire::new(16);
        ends.push((agent_end(agent, config.clone()), server_end(server, shared.clone())));
    }
    let mut held = Vec::new();
    for size in [480 * 1024, 450 * 1024] {
        let (agent, server) = &ends[held.len()];
        let (near, far) = tokio::join!(agent.open(head("stalled")), async {
            server.accept().await.unwrap().accept().await.unwrap()
        });
        let mut near = near.unwrap();
        near.tx.send_all(vec![0; size].into()).await.unwrap();
        settle().await;
        held.push((near, far));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    // The first holds most, and nothing happens there but that it is asked.
    let (_, far) = &mut held[0];
    let read = timeout(PROMPT, far.rx.recv(100)).await.unwrap();
    assert!(matches!(read, Err(RecvError::Stopped(StreamCode::MEMORY))), "{read:?}");
    assert!(budget.used() < 512 * 1024, "{} bytes", budget.used());
}
