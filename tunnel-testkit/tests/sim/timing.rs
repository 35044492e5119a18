//! When bytes arrive.

use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, timeout},
};
use tunnel_tcp::{Accept, Dial};
use tunnel_testkit::{
    Side,
    sim::{Net, Profile},
};

use super::{MS, connect, is_quiet, pair};

#[tokio::test(start_paused = true)]
async fn a_byte_takes_the_latency_and_its_time_on_the_wire() {
    for (latency, bandwidth, size, expected) in [
        (0, None, 1000, 0),
        (30, None, 1000, 30),
        (30, Some(1_000_000), 5_000, 35),
        (1, Some(125_000_000), 125_000, 2),
        // What is less than a tick is seen at its end.
        (1, Some(125_000_000), 1, 2),
        (0, Some(3), 3, 1000),
    ] {
        let net = Net::new(Profile {
            latency: latency * MS,
            bandwidth,
            buffer: 1 << 20,
            ..Profile::default()
        });
        let (mut near, mut far) = pair(&net).await;
        let start = Instant::now();
        near.write_all(&vec![7; size]).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO, "there is room");
        far.read_exact(&mut vec![0; size]).await.unwrap();
        assert_eq!(
            start.elapsed(),
            expected * MS,
            "{latency} ms, {bandwidth:?} B/s, {size} B"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_transfer_has_exactly_the_bandwidth_whatever_the_buffer() {
    // 8 KiB are gone long before the next tick.
    for buffer in [8 * 1024, 64 * 1024, 1 << 20] {
        let net = Net::new(Profile {
            buffer,
            ..Profile::new(7 * MS, 3_000_000)
        });
        let (mut near, mut far) = pair(&net).await;
        let size = 3_000_000;
        let start = Instant::now();
        tokio::join!(async { near.write_all(&vec![7; size]).await.unwrap() }, async {
            far.read_exact(&mut vec![0; size]).await.unwrap()
        });
        assert_eq!(start.elapsed(), Duration::from_millis(1007), "a buffer of {buffer}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_wire_saves_nothing_up() {
    let net = Net::new(Profile::new(Duration::ZERO, 1_000_000));
    let (mut near, mut far) = pair(&net).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let start = Instant::now();
        near.write_all(&[7; 50_000]).await.unwrap();
        far.read_exact(&mut [0; 50_000]).await.unwrap();
        assert_eq!(start.elapsed(), 50 * MS);
    }
}

#[tokio::test(start_paused = true)]
async fn directions_have_profiles_of_their_own() {
    let net = Net::asymmetric(Profile::new(10 * MS, 1_000_000), Profile::new(20 * MS, 2_000_000));
    let (mut near, mut far) = pair(&net).await;
    for _ in 0..2 {
        let start = Instant::now();
        near.write_all(&[7; 10_000]).await.unwrap();
        far.read_exact(&mut [0; 10_000]).await.unwrap();
        assert_eq!(start.elapsed(), 20 * MS);
        far.write_all(&[7; 10_000]).await.unwrap();
        near.read_exact(&mut [0; 10_000]).await.unwrap();
        assert_eq!(start.elapsed(), 45 * MS);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_made_within_a_round_trip() {
    let net = Net::asymmetric(
        Profile {
            latency: 10 * MS,
            ..Profile::default()
        },
        Profile {
            latency: 20 * MS,
            ..Profile::default()
        },
    );
    let mut listener = net.listen();
    let server = listener.local_addr().unwrap().to_string().parse().unwrap();
    let start = Instant::now();
    tokio::join!(
        async {
            net.dial(&server).await.unwrap();
            assert_eq!(start.elapsed(), 30 * MS);
        },
        async {
            listener.accept().await.unwrap();
            assert_eq!(start.elapsed(), 10 * MS);
        }
    );
    drop(listener);
    let error = net.dial(&server).await.unwrap_err();
    assert_eq!(error.label(), "unreachable");
    assert_eq!(start.elapsed(), 60 * MS);
}

/// When which number of bytes arrives.
async fn trace(seed: u64) -> Vec<(Duration, usize)> {
    let net = Net::new(Profile {
        jitter: 50 * MS,
        seed,
        ..Profile::new(5 * MS, 1_000_000)
    });
    let (mut near, mut far) = pair(&net).await;
    let start = Instant::now();
    let mut trace = Vec::new();
    tokio::join!(
        async {
            for number in 1..100_u32 {
                near.write_all(&vec![7; number as usize * 10]).await.unwrap();
                tokio::time::sleep(number % 7 * MS).await;
            }
            near.shutdown().await.unwrap();
        },
        async {
            let mut buffer = [0; 4096];
            while let count @ 1.. = far.read(&mut buffer).await.unwrap() {
                trace.push((start.elapsed(), count));
            }
        }
    );
    trace
}

#[tokio::test(start_paused = true)]
async fn a_seed_gives_the_same_times_and_another_gives_others() {
    let first = trace(1).await;
    assert_eq!(trace(1).await, first);
    assert_ne!(trace(2).await, first);
}

#[tokio::test(start_paused = true)]
async fn a_stall_holds_back_one_direction_of_one_connection() {
    let net = Net::new(Profile::new(10 * MS, 1_000_000));
    let mut listener = net.listen();
    let (mut near, mut far) = connect(&net, &mut listener).await;
    let (mut other_near, mut other_far) = connect(&net, &mut listener).await;
    let connections = net.connections();
    assert_eq!(connections.len(), 2);

    near.write_all(&[7; 20_000]).await.unwrap();
    tokio::time::sleep(15 * MS).await;
    connections[0].stall(Side::Agent);
    far.read_exact(&mut [0; 5_000]).await.unwrap();
    assert!(is_quiet(&mut far).await);
    for (from, to) in [(&mut far, &mut near), (&mut other_near, &mut other_far)] {
        let start = Instant::now();
        from.write_all(&[7; 1_000]).await.unwrap();
        to.read_exact(&mut [0; 1_000]).await.unwrap();
        assert_eq!(start.elapsed(), 11 * MS);
    }
    connections[0].resume();
    let start = Instant::now();
    far.read_exact(&mut [0; 15_000]).await.unwrap();
    assert_eq!(start.elapsed(), 15 * MS, "it goes on where it was");
    assert_eq!(connections[0].sent(Side::Agent), 20_000);
}

#[tokio::test(start_paused = true)]
async fn ends_that_flush_whenever_they_are_woken_come_to_rest() {
    let (mut near, mut far) = pair(&Net::new(Profile::default())).await;
    let reader = tokio::spawn(async move {
        poll_fn(|cx| {
            let _ = Pin::new(&mut far).poll_flush(cx);
            Pin::new(&mut far).poll_read(cx, &mut ReadBuf::new(&mut [0]))
        })
        .await
    });
    let mut turns = 0;
    let writer = poll_fn(|cx| {
        turns += 1;
        let _ = Pin::new(&mut near).poll_flush(cx);
        if turns > 100 {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut near).poll_read(cx, &mut ReadBuf::new(&mut [0]))
    });
    assert!(
        timeout(Duration::from_secs(1), writer).await.is_err(),
        "they wake each other"
    );
    reader.abort();
}
