//! What a stream is, over a simulated network in virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use carrier_quic::QuicConfig;
use common::{World, fill, net::Link, read_all, read_some};
use tokio::time::{Instant, timeout};
use tunnel_core::{CloseCode, Connection, OpenError, RecvError, Refusal, RefusalKind, SendError, StreamCode};
use tunnel_testkit::ends::{Ends, head, stream};

fn world() -> World {
    World::new(QuicConfig::default(), Link::default())
}

#[tokio::test(start_paused = true)]
async fn bytes_flow_both_ways_and_each_half_ends_on_its_own() {
    let (agent, server) = world().connect().await;
    for (opener, acceptor) in [(&agent, &server), (&server, &agent)] {
        let (mut here, mut there) = stream(opener, acceptor).await;
        here.tx.send_all(Bytes::from_static(b"ping")).await.unwrap();
        here.tx.finish().await.unwrap();
        assert_eq!(read_all(&mut *there.rx).await.unwrap(), b"ping");
        there.tx.send_all(Bytes::from_static(b"pong")).await.unwrap();
        there.tx.finish().await.unwrap();
        assert_eq!(read_all(&mut *here.rx).await.unwrap(), b"pong");
    }
    assert_eq!(agent.stats().streams_open, 0);
    assert_eq!(server.stats().bytes_received, 8);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_first_is_heard() {
    let (agent, server) = world().connect().await;
    let (mut here, mut there) = stream(&server, &agent).await;
    there.tx.send_all(Bytes::from_static(b"220 ready")).await.unwrap();
    assert_eq!(here.rx.recv(1024).await.unwrap().unwrap(), "220 ready");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_arrives_with_its_kind_and_text() {
    let (agent, server) = world().connect().await;
    let refusal = Refusal::new(RefusalKind::ConnectionRefused, "nobody listens there");
    let (opened, ()) = tokio::join!(server.open(head()), async {
        agent.accept().await.unwrap().refuse(refusal.clone());
    });
    assert!(matches!(opened, Err(OpenError::Refused(got)) if got == refusal));
    let (opened, ()) = tokio::join!(server.open(head()), async { drop(agent.accept().await.unwrap()) });
    assert!(
        matches!(&opened, Err(OpenError::Refused(got)) if got.kind == RefusalKind::ProxyInternalError),
        "{opened:?}"
    );
    assert_eq!(server.stats().streams_open, 0);
    assert_eq!(agent.stats().streams_open, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_outside_a_runtime_arrives_even_without_room() {
    let config = QuicConfig::builder().send_window(16 * 1024).build().unwrap();
    let (agent, server) = World::new(config, Link::default()).connect().await;
    let (mut here, mut there) = stream(&server, &agent).await;
    let (_sparse_here, mut sparse_there) = stream(&server, &agent).await;
    let opening = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.open(head()).await }
    });
    let inbound = agent.accept().await.unwrap();
    // Nothing that is queued here is acknowledged yet, so it takes up all room, and that of sparse streams, too.
    let mut cx = Context::from_waker(Waker::noop());
    let mut chunk = Bytes::from_static(&[1; 64 * 1024]);
    while there.tx.poll_send(&mut cx, &mut chunk).is_ready() {}
    let mut chunk = Bytes::from_static(&[1; 2 * 1024]);
    while !chunk.is_empty() && sparse_there.tx.poll_send(&mut cx, &mut chunk).is_ready() {}
    std::thread::spawn(move || inbound.refuse(Refusal::new(RefusalKind::DnsError, "no such name")))
        .join()
        .unwrap();
    let opened = opening.await.unwrap();
    assert!(matches!(opened, Err(OpenError::Refused(got)) if got.kind == RefusalKind::DnsError));
    read_some(&mut *here.rx, 14 * 1024).await;
}

#[tokio::test(start_paused = true)]
async fn codes_cross() {
    let (agent, server) = world().connect().await;
    let (mut here, mut there) = stream(&server, &agent).await;
    here.tx.reset(StreamCode::POLICY);
    here.rx.stop(StreamCode::IDLE);
    assert!(matches!(
        there.rx.recv(1).await,
        Err(RecvError::Reset(StreamCode::POLICY))
    ));
    assert_eq!(there.tx.stopped().await.unwrap(), StreamCode::IDLE);
    assert!(matches!(
        there.tx.finish().await,
        Err(SendError::Stopped(StreamCode::IDLE))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_noticed_behind_bytes_that_nobody_takes() {
    let (agent, server) = world().connect().await;
    let (mut here, mut there) = stream(&server, &agent).await;
    here.tx.send_all(Bytes::from_static(b"unread")).await.unwrap();
    let mut noticed = pin!(poll_fn(|cx| there.rx.poll_reset(cx)));
    // The bytes arrive meanwhile, and are no news.
    timeout(Duration::from_secs(1), &mut noticed).await.unwrap_err();
    here.tx.reset(StreamCode::POLICY);
    let error = noticed.await;
    assert!(matches!(error, RecvError::Reset(StreamCode::POLICY)), "{error:?}");
    let error = there.rx.recv(64).await;
    assert!(matches!(error, Err(RecvError::Reset(StreamCode::POLICY))), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_finish_after_a_stop_says_so() {
    let (agent, server) = world().connect().await;
    let (mut here, mut there) = stream(&server, &agent).await;
    there.rx.stop(StreamCode::TARGET_RESET);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(matches!(
        here.tx.finish().await,
        Err(SendError::Stopped(StreamCode::TARGET_RESET))
    ));
}

#[tokio::test(start_paused = true)]
async fn dropped_halves_are_a_reset_and_a_stop() {
    let (agent, server) = world().connect().await;
    let (mut here, there) = stream(&server, &agent).await;
    drop(there);
    assert!(matches!(
        here.rx.recv(1).await,
        Err(RecvError::Reset(StreamCode::CANCELLED))
    ));
    assert_eq!(here.tx.stopped().await.unwrap(), StreamCode::CANCELLED);
}

#[tokio::test(start_paused = true)]
async fn what_is_finished_arrives_although_the_half_is_dropped() {
    let (agent, server) = world().connect().await;
    let (mut here, mut there) = stream(&server, &agent).await;
    let data = Bytes::from(vec![9; 1 << 20]);
    here.tx.send_all(data.clone()).await.unwrap();
    here.tx.finish().await.unwrap();
    drop(here.tx);
    assert_eq!(read_all(&mut *there.rx).await.unwrap(), data);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_stop_does_not_disturb_a_sender_that_waits_for_credit() {
    let (agent, server) = world().connect().await;
    let (mut here, mut there) = stream(&server, &agent).await;
    fill(&mut *here.tx).await;
    let waiting = tokio::spawn(async move {
        // Both wait in one task, as in a relay; the sender is polled first.
        let mut chunk = Bytes::from_static(b"more");
        std::future::poll_fn(|cx| {
            let sent = here.tx.poll_send(cx, &mut chunk);
            let mut other = Context::from_waker(Waker::noop());
            assert!(here.tx.poll_stopped(&mut other).is_pending());
            sent
        })
        .await
    });
    tokio::task::yield_now().await;
    read_some(&mut *there.rx, 1 << 20).await;
    assert_eq!(waiting.await.unwrap().unwrap(), 4);
}

/// Polls this often, then drops the future.
async fn poll_times<F: Future>(future: F, times: usize) {
    let mut future = Box::pin(future);
    for _ in 0..times {
        if std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_ready())).await {
            return;
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_that_is_dropped_at_any_time_leaves_nothing_behind() {
    let (agent, server) = world().connect().await;
    for times in 0..12 {
        poll_times(server.open(head()), times).await;
    }
    // Those that were seen are cancelled, and then a good one comes.
    let (opened, seen) = tokio::join!(server.open(head()), async {
        let mut seen = 0;
        loop {
            let mut inbound = agent.accept().await.unwrap();
            let cancelled = tokio::time::timeout(Duration::from_millis(50), inbound.cancelled()).await;
            if cancelled.is_err() {
                return (seen, inbound.accept().await.unwrap());
            }
            seen += 1;
        }
    });
    let (seen, accepted) = seen;
    drop((opened.unwrap(), accepted));
    assert!(seen > 0);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.stats().streams_open, 0);
    assert_eq!(agent.stats().streams_open, 0);
}

#[tokio::test(start_paused = true)]
async fn accepting_in_vain_loses_no_stream() {
    let (agent, server) = world().connect().await;
    let opening = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.open(head()).await }
    });
    for times in 0..8 {
        let in_vain = agent.accept();
        let waiting = agent.accept();
        poll_times(in_vain, times.min(1)).await;
        if let Ok(inbound) = tokio::time::timeout(Duration::from_micros(300), waiting).await {
            let _accepted = inbound.unwrap().accept().await.unwrap();
            opening.await.unwrap().unwrap();
            return;
        }
    }
    panic!("the stream never came");
}

#[tokio::test(start_paused = true)]
async fn the_limit_holds_streams_back_and_lets_them_through_in_order() {
    for limit in [1, 7, 16] {
        let config = QuicConfig::builder().max_streams(limit).build().unwrap();
        let (agent, server) = World::new(config, Link::default()).connect().await;
        let mut open = Vec::new();
        for _ in 0..limit {
            open.push(stream(&server, &agent).await);
        }
        let mut waiting: Vec<_> = (0..limit)
            .map(|number| {
                let server = Arc::clone(&server);
                let mut head = head();
                assert!(head.metadata.push("number", &number.to_string()));
                tokio::spawn(async move { server.open(head).await })
            })
            .collect();
        let early = tokio::time::timeout(Duration::from_secs(1), agent.accept()).await;
        assert!(early.is_err(), "a stream beyond {limit}");
        for number in 0..limit {
            drop(open.pop());
            let inbound = tokio::time::timeout(Duration::from_secs(1), agent.accept()).await;
            let inbound = inbound.expect("a place was free").unwrap();

            let number = number.to_string();
            assert_eq!(inbound.head().metadata.get("number"), Some(number.as_str()));

            let accepted = inbound.accept().await.unwrap();
            open.insert(0, (waiting.remove(0).await.unwrap().unwrap(), accepted));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn three_thousand_streams_are_open_at_once() {
    let (agent, server) = world().connect().await;
    let accepting = tokio::spawn({
        let agent = Arc::clone(&agent);
        async move {
            let mut all = Vec::new();
            while all.len() < 3000 {
                all.push(agent.accept().await.unwrap().accept().await.unwrap());
            }
            all
        }
    });
    let opening: Vec<_> = (0..3000)
        .map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(async move { server.open(head()).await.unwrap() })
        })
        .collect();
    let mut opened = Vec::new();
    for opening in opening {
        opened.push(opening.await.unwrap());
    }
    let accepted = accepting.await.unwrap();
    assert_eq!(server.stats().streams_open, 3000);
    drop((opened, accepted));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.stats().streams_open, 0);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_everything_once_with_the_first_reason() {
    let (agent, server) = world().connect().await;
    let (mut here, mut there) = stream(&server, &agent).await;
    let opening = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.open(head()).await }
    });
    let _unanswered = agent.accept().await.unwrap();
    agent.close(CloseCode::REPLACED, "a newer one is here");
    agent.close(CloseCode::INTERNAL, "too late");
    let reason = "a newer one is here";
    let local = agent.closed().await.to_string();
    assert_eq!(
        local,
        format!("this side closed the connection: replaced (0x3), {reason}")
    );
    let remote = server.closed().await.to_string();
    assert_eq!(
        remote,
        format!("the peer closed the connection: replaced (0x3), {reason}")
    );
    server.close(CloseCode::INTERNAL, "later still");
    assert_eq!(server.closed().await.to_string(), remote);
    assert!(matches!(opening.await.unwrap(), Err(OpenError::Connection(_))));
    assert!(matches!(here.rx.recv(1).await, Err(RecvError::Connection(_))));
    assert!(matches!(here.tx.finish().await, Err(SendError::Connection(_))));
    assert!(matches!(there.tx.stopped().await, Err(SendError::Connection(_))));
    assert!(server.accept().await.is_err());
    assert!(server.open(head()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_closes() {
    let (agent, server) = world().connect().await;
    let _stream = stream(&server, &agent).await;
    drop(agent);
    assert_eq!(server.closed().await.code(), Some(CloseCode::DONE));
}

/// How long a megabyte takes on a stream of its own.
async fn megabyte(opener: &Arc<dyn Connection>, acceptor: &Arc<dyn Connection>) -> Duration {
    let (mut here, mut there) = stream(opener, acceptor).await;
    let started = Instant::now();
    tokio::join!(
        async {
            here.tx.send_all(Bytes::from(vec![1; 1 << 20])).await.unwrap();
            here.tx.finish().await.unwrap();
        },
        async { read_all(&mut *there.rx).await.unwrap() }
    );
    started.elapsed()
}

#[tokio::test(start_paused = true)]
async fn stalled_readers_up_to_the_limit_less_one_do_not_slow_a_sibling() {
    let config = QuicConfig::builder()
        .max_streams(16)
        .stream_window(256 * 1024)
        .build()
        .unwrap();
    let link = Link {
        latency: Duration::from_millis(5),
        bandwidth: Some(10_000_000),
        ..Link::default()
    };
    let (agent, server) = World::new(config, link).connect().await;
    megabyte(&server, &agent).await;
    let alone = megabyte(&server, &agent).await;
    let mut stalled = Vec::new();
    for _ in 0..15 {
        let (mut here, there) = stream(&server, &agent).await;
        // The head has taken a little of the window.
        assert!(fill(&mut *here.tx).await > 255 * 1024);
        stalled.push((here, there));
    }
    let beside = megabyte(&server, &agent).await;
    assert!(beside < alone.mul_f64(1.1), "{beside:?} beside, {alone:?} alone");
}

#[tokio::test(start_paused = true)]
async fn busy_streams_that_fill_the_send_window_do_not_hold_up_new_ones() {
    let config = QuicConfig::builder()
        .stream_window(64 * 1024)
        .send_window(256 * 1024)
        .build()
        .unwrap();
    let link = Link {
        latency: Duration::from_millis(5),
        bandwidth: Some(2_000_000),
        queue: 64 * 1024,
        ..Link::default()
    };
    let (agent, server) = World::new(config, link).connect().await;
    for number in 0..24 {
        let opened = tokio::time::timeout(Duration::from_secs(1), stream(&server, &agent)).await;
        let (mut here, mut there) = opened.unwrap_or_else(|_| panic!("stream {number} starves"));
        tokio::spawn(async move { while here.tx.send_all(Bytes::from(vec![1; 64 * 1024])).await.is_ok() {} });
        tokio::spawn(async move { while let Ok(Some(_)) = there.rx.recv(64 * 1024).await {} });
    }
}
