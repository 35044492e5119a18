//! What streams can rely on beside the laws.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::time::Duration;

use bytes::Bytes;
use carrier_h2::{H2Config, MuxConfig};
use common::{World, raw, with};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, split},
    time::{Instant, sleep, timeout},
};
use tunnel_core::{
    Duplex, Keepalive, OpenError, RecvError, StreamCode,
    proto::mux::{Budget, Config, Windows},
};
use tunnel_testkit::{
    ends::{Ends, echo, head, stream},
    sim::Profile,
};

const PROMPT: Duration = Duration::from_secs(1);

async fn receive_all(stream: &mut Duplex) -> usize {
    let mut received = 0;
    while let Some(bytes) = stream.rx.recv(64 * 1024).await.unwrap() {
        received += bytes.len();
    }
    received
}

#[tokio::test(start_paused = true)]
async fn bytes_come_back_from_both_sides() {
    let mut world = World::plain(H2Config::default());
    let (agent, server) = world.connect().await;
    echo(&agent, &server, 3_000_000).await;
    echo(&server, &agent, 3_000_000).await;
}

/// What was finished is delivered, whatever becomes of the handles and of the other half.
#[tokio::test(start_paused = true)]
async fn a_finished_half_outlives_its_stream() {
    let mut world = World::plain(H2Config::default());
    let (agent, server) = world.connect().await;
    for (opener, acceptor) in [(&agent, &server), (&server, &agent)] {
        for size in [0, 1, 100_000] {
            let (mut near, mut far) = stream(opener, acceptor).await;
            near.tx.send_all(vec![7; size].into()).await.unwrap();
            near.tx.finish().await.unwrap();
            drop(near);
            assert_eq!(timeout(PROMPT, receive_all(&mut far)).await.expect("in time"), size);
            assert_eq!(far.tx.stopped().await.unwrap(), StreamCode::CANCELLED);
        }
        sleep(PROMPT).await;
        assert_eq!((opener.stats().streams_open, acceptor.stats().streams_open), (0, 0));
    }
}

/// The first bytes need no more than the answer does, from either side.
#[tokio::test(start_paused = true)]
async fn a_stream_opens_in_one_round_trip_from_both_sides() {
    let latency = Duration::from_millis(100);
    let profile = Profile::new(latency, 100_000_000);
    let mut world = World::new(profile, H2Config::default());
    let (agent, server) = world.connect().await;
    // The server learns first how many streams the agent takes.
    sleep(PROMPT).await;
    for (opener, acceptor) in [(&agent, &server), (&server, &agent)] {
        let start = Instant::now();
        let streams = stream(opener, acceptor).await;
        let took = start.elapsed();
        assert!(
            (2 * latency..2 * latency + Duration::from_millis(10)).contains(&took),
            "{took:?}"
        );
        drop(streams);
    }
}

/// With windows that fit nothing but a short path, 20 MB/s would be 2.6 MB/s.
#[tokio::test(start_paused = true)]
async fn windows_grow_until_a_long_path_is_full() {
    const RATE: u64 = 20_000_000;
    const SIZE: usize = 60_000_000;
    let profile = Profile::new(Duration::from_millis(50), RATE);
    let mut world = World::new(profile, H2Config::default());
    let (agent, server) = world.connect().await;
    let (mut near, mut far) = stream(&server, &agent).await;
    let start = Instant::now();
    let send = async {
        let chunk = Bytes::from(vec![7; 256 * 1024]);
        let mut left = SIZE;
        while left > 0 {
            let count = left.min(chunk.len());
            near.tx.send_all(chunk.slice(..count)).await.unwrap();
            left -= count;
        }
        near.tx.finish().await.unwrap();
    };
    let (received, ()) = tokio::join!(receive_all(&mut far), send);
    assert_eq!(received, SIZE);
    let rate = SIZE as f64 / start.elapsed().as_secs_f64();
    assert!(rate > 0.8 * RATE as f64, "{rate} bytes a second");
}

#[tokio::test(start_paused = true)]
async fn bulk_goes_on_in_both_directions_at_once() {
    let profile = Profile {
        buffer: 8 * 1024,
        ..Profile::new(Duration::from_millis(2), 30_000_000)
    };
    let mut world = World::new(profile, H2Config::default());
    let (agent, server) = world.connect().await;
    let limit = Duration::from_secs(60);
    timeout(limit, async {
        tokio::join!(echo(&agent, &server, 5_000_000), echo(&server, &agent, 5_000_000),)
    })
    .await
    .expect("it goes on");
}

#[tokio::test(start_paused = true)]
async fn a_short_budget_takes_back_the_streams_that_stalled_longest() {
    const WINDOW: usize = 256 * 1024;
    let budget = Budget::new(1024 * 1024);
    let windows = Config::builder().stream_window(Windows::fixed(WINDOW as u64));
    let mux = MuxConfig::new(windows.build().unwrap(), budget.clone());
    let config = H2Config::builder().mux(mux).build().unwrap();
    let mut world = World::plain(config);
    let (agent, server) = world.connect().await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let (mut near, far) = stream(&server, &agent).await;
        // A full window of which nothing is read.
        near.tx.send_all(vec![7; WINDOW].into()).await.unwrap();
        sleep(PROMPT).await;
        assert!(budget.used() <= budget.limit());
        held.push((near, far));
    }
    sleep(5 * PROMPT).await;
    assert!(budget.used() <= budget.limit() * 7 / 8, "{} is held", budget.used());
    let mut stopped = Vec::new();
    for (near, far) in &mut held {
        let seen = timeout(Duration::from_millis(10), near.tx.stopped()).await;
        if let Ok(code) = seen {
            assert_eq!(code.unwrap(), StreamCode::MEMORY);
            let received = far.rx.recv(100).await;
            assert!(
                matches!(received, Err(RecvError::Stopped(StreamCode::MEMORY))),
                "{received:?}"
            );
        }
        stopped.push(seen_as_stopped(near).await);
    }
    let count = stopped.iter().filter(|stopped| **stopped).count();
    assert!((5..8).contains(&count), "{stopped:?}");
    assert!(stopped.is_sorted_by(|a, b| a >= b), "the oldest first: {stopped:?}");
    // Nobody else is the worse for it, and all comes back.
    timeout(10 * PROMPT, echo(&server, &agent, 2_000_000))
        .await
        .expect("it goes on");
    drop(held);
    sleep(PROMPT).await;
    assert_eq!(budget.used(), 0);
}

/// A half that is over holds nothing of the connection's window, although nobody has read it and the other half goes on.
#[tokio::test(start_paused = true)]
async fn a_half_that_is_over_takes_nothing_from_other_streams() {
    const SIZE: usize = 200_000;
    let mut world = World::plain(H2Config::default());
    let (agent, server) = world.connect().await;
    for (opener, acceptor) in [(&agent, &server), (&server, &agent)] {
        let used = async {
            let mut held = Vec::new();
            for stopped in [true, false].repeat(8) {
                let (mut near, mut far) = stream(opener, acceptor).await;
                near.tx.send_all(vec![7; SIZE].into()).await.unwrap();
                if !stopped {
                    near.tx.finish().await.unwrap();
                }
                sleep(PROMPT).await;
                if stopped {
                    far.rx.stop(StreamCode::CANCELLED);
                }
                held.push((near, far));
            }
            echo(opener, acceptor, 3_000_000).await;
        };
        timeout(30 * PROMPT, used).await.expect("it goes on");
    }
}

/// How often the runtime has come to rest.
fn rests() -> u64 {
    tokio::runtime::Handle::current().metrics().worker_park_count(0)
}

/// With nothing to do the drivers are not woken, whatever was read, is unread or was taken back.
#[tokio::test(start_paused = true)]
async fn a_connection_comes_to_rest() {
    let budget = Budget::new(1024 * 1024);
    let mux = MuxConfig::new(Config::default(), budget.clone());
    let config = H2Config::builder().mux(mux).build().unwrap();
    let mut world = World::plain(config);
    let (agent, server) = world.connect().await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let (mut near, mut far) = stream(&server, &agent).await;
        // While memory is short the window is smaller than that.
        let _ = timeout(PROMPT, near.tx.send_all(vec![7; 200_000].into())).await;
        assert!(far.rx.recv(20_000).await.unwrap().is_some());
        held.push((near, far));
    }
    sleep(20 * PROMPT).await;
    let before = rests();
    sleep(60 * PROMPT).await;
    let woken = rests() - before;
    // Each end probes the other now and then, and looks after windows that memory has made smaller.
    assert!(woken < 500, "{woken} times in a minute");
}

/// What a peer sends that reads nothing itself is read ahead, at the latest when there is memory again.
#[tokio::test(start_paused = true)]
async fn a_stuck_connection_goes_on_when_there_is_memory_again() {
    let budget = Budget::new(1024 * 1024);
    let mux = MuxConfig::new(Config::default(), budget.clone());
    let mut world = World::plain(H2Config::builder().mux(mux).build().unwrap());
    let (io, server) = raw::agent(&mut world).await;
    let (mut rx, mut tx) = split(io);
    let others = budget.account();
    others.charge(budget.limit() - budget.used()).unwrap();

    // SETTINGS, and PINGs whose answers fill both ways (RFC 9113 §6.5, §6.7).
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let mut sent = tokio::spawn(async move {
        tx.write_all(&settings).await.unwrap();
        tx.write_all(&ping.repeat(40_000)).await.unwrap();
        tx.flush().await.unwrap();
        tx
    });
    timeout(PROMPT, &mut sent).await.expect_err("there is no room for it");
    others.release(others.held());
    let _tx = timeout(PROMPT, sent).await.expect("it was read").unwrap();

    let mut answers = vec![0; 17 * 40_000];
    timeout(PROMPT, rx.read_exact(&mut answers))
        .await
        .expect("answers")
        .unwrap();
    timeout(PROMPT, server.closed()).await.expect_err("it goes on");
}

async fn seen_as_stopped(stream: &mut Duplex) -> bool {
    timeout(Duration::from_millis(10), stream.tx.stopped()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_what_was_asked_for_be_answered() {
    let mut world = World::plain(H2Config::default());
    let (agent, server) = world.connect().await;
    let opening = tokio::spawn({
        let agent = std::sync::Arc::clone(&agent);
        async move { agent.open(head()).await }
    });
    let inbound = server.accept().await.unwrap();
    agent.drain();
    sleep(PROMPT).await;
    let mut far = inbound.accept().await.unwrap();
    let mut near = opening.await.unwrap().unwrap();
    assert!(matches!(agent.open(head()).await, Err(OpenError::Draining)));
    near.tx.send_all("still".into()).await.unwrap();
    near.tx.finish().await.unwrap();
    assert_eq!(receive_all(&mut far).await, 5);
    far.tx.finish().await.unwrap();
    assert_eq!(receive_all(&mut near).await, 0);
    for end in [agent, server] {
        let error = timeout(PROMPT, end.closed()).await.expect("drained");
        assert_eq!(error.code(), Some(tunnel_core::CloseCode::DRAINED), "{error}");
    }
}

/// Both ends are probed by PING while nothing moves, and the round trip is known.
#[tokio::test(start_paused = true)]
async fn the_round_trip_is_measured() {
    let config = with(Config::builder().keepalive(Keepalive {
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
    }));
    let latency = Duration::from_millis(30);
    let mut world = World::new(
        Profile {
            latency,
            ..Profile::near()
        },
        config,
    );
    let (agent, server) = world.connect().await;
    sleep(Duration::from_secs(30)).await;
    for end in [agent, server] {
        let rtt = end.stats().rtt.expect("measured");
        assert!((2 * latency..3 * latency).contains(&rtt), "{rtt:?}");
    }
}

/// Nothing of a connection stays behind, whatever is dropped in which order.
#[tokio::test(start_paused = true)]
async fn halves_that_outlive_their_connection_give_their_memory_back() {
    let budget = Budget::new(1024 * 1024);
    let mux = MuxConfig::new(Config::default(), budget.clone());
    let config = H2Config::builder().mux(mux).build().unwrap();
    let mut world = World::plain(config);
    let (agent, server) = world.connect().await;
    let (mut near, far) = stream(&server, &agent).await;
    near.tx.send_all(vec![7; 100_000].into()).await.unwrap();
    sleep(PROMPT).await;
    assert_eq!(budget.used(), 100_000);
    drop((agent, server));
    sleep(2 * PROMPT).await;
    assert_eq!(budget.used(), 100_000, "it can still be read");
    drop((near, far));
    assert_eq!(budget.used(), 0);
}

/// A runtime that shuts down takes the driver with it; who waits elsewhere must learn of it.
#[test]
fn a_connection_whose_runtime_is_gone_has_ended() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
    };
    let first = runtime();
    let (agent, _server) = first.block_on(async { World::plain(H2Config::default()).connect().await });
    drop(first);
    let error = runtime().block_on(async { timeout(PROMPT, agent.closed()).await });
    assert_eq!(
        error.expect("it has ended").initiator(),
        tunnel_core::Initiator::Network
    );
}

/// Who has talked for long, a little at a time, goes before bulk as who has just come.
#[tokio::test(start_paused = true)]
async fn small_exchanges_overtake_bulk_however_long_their_stream_lives() {
    const SMALL: usize = 100;
    let mut world = World::new(Profile::new(Duration::from_millis(5), 10_000_000), H2Config::default());
    let (agent, server) = world.connect().await;
    let (mut near, mut far) = stream(&server, &agent).await;
    near.tx.send_all(vec![7; 100_000].into()).await.unwrap();
    let mut received = 0;
    while received < 100_000 {
        received += far.rx.recv(64 * 1024).await.unwrap().unwrap().len();
    }
    for _ in 0..16 {
        let (mut from, mut to) = stream(&server, &agent).await;
        tokio::spawn(async move {
            let piece = Bytes::from(vec![7; 64 * 1024]);
            while from.tx.send_all(piece.clone()).await.is_ok() {}
        });
        tokio::spawn(async move { while let Ok(Some(_)) = to.rx.recv(64 * 1024).await {} });
    }
    sleep(PROMPT).await;
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        near.tx.send_all(vec![7; SMALL].into()).await.unwrap();
        let mut received = 0;
        while received < SMALL {
            received += far.rx.recv(SMALL).await.unwrap().unwrap().len();
        }
        times.push(start.elapsed());
        sleep(Duration::from_millis(7)).await;
    }
    times.sort_unstable();
    // Behind what is on its way. The sixteen others are at it for 105 ms until each has had a turn.
    let longest = times[times.len() - 1];
    assert!(longest <= Duration::from_millis(30), "{longest:?}");
}
