//! What arrives: every byte, once, in order, and no more of them at once than there is room for.

use std::time::Duration;

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};
use tunnel_tcp::BoxIo;
use tunnel_testkit::sim::{Net, Profile};

use super::{MS, fill, pair};

#[tokio::test(start_paused = true)]
async fn a_writer_gets_rid_of_the_buffers_and_what_is_on_the_wire() {
    for (bandwidth, latency, expected, waiting) in [
        (None, 0, 20_000, 20_000),
        (None, 50, 20_000, 20_000),
        (Some(1_000_000), 50, 70_000, 10_000),
    ] {
        let net = Net::new(Profile {
            bandwidth,
            latency: latency * MS,
            buffer: 10_000,
            ..Profile::default()
        });
        let (mut near, mut far) = pair(&net).await;
        assert_eq!(fill(&mut near).await, expected);
        far.read_exact(&mut [0; 1000]).await.unwrap();
        assert_eq!(fill(&mut near).await, 1000);

        net.silence();
        let mut received = vec![0; expected];
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(fill(&mut near).await, waiting, "a silent wire takes what waits for it");
    }
}

#[tokio::test(start_paused = true)]
async fn one_byte_at_a_time() {
    let net = Net::new(Profile {
        max_write: Some(1),
        max_read: Some(1),
        ..Profile::default()
    });
    let (mut near, mut far) = pair(&net).await;
    for _ in 0..3 {
        assert_eq!(near.write(b"abc").await.unwrap(), 1);
    }
    let mut three = [0; 3];
    for byte in 0..3 {
        assert_eq!(far.read(&mut three[byte..]).await.unwrap(), 1);
    }
    assert_eq!(three, [b'a'; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_flushes_slowly_keeps_what_is_not_flushed() {
    let net = Net::new(Profile {
        flush_delay: Some(30 * MS),
        buffer: 1000,
        ..Profile::default()
    });
    let (mut near, mut far) = pair(&net).await;
    near.write_all(b"first").await.unwrap();
    let mut five = [0; 5];
    let hour = Duration::from_secs(3600);
    assert!(timeout(hour, far.read_exact(&mut five)).await.is_err());

    let start = Instant::now();
    near.flush().await.unwrap();
    assert_eq!(start.elapsed(), 30 * MS);
    near.flush().await.unwrap();
    assert_eq!(start.elapsed(), 30 * MS, "there was nothing to flush");
    far.read_exact(&mut five).await.unwrap();

    // A full buffer needs no flush.
    near.write_all(&[7; 1500]).await.unwrap();
    far.read_exact(&mut [0; 1000]).await.unwrap();
    near.shutdown().await.unwrap();
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest.len(), 500);
    // What nobody flushed is lost with its owner.
    far.write_all(b"lost").await.unwrap();
    drop(far);
    assert_eq!(near.read(&mut five).await.unwrap(), 0);
}

pub(super) fn profiles() -> impl Strategy<Value = Profile> {
    let small = prop::option::of(1_usize..2000);
    (
        0_u32..200,
        prop::option::of(1_000_u64..200_000_000),
        0_u32..50,
        1_usize..100_000,
        small.clone(),
        small,
        prop::option::of(0_u32..20),
        any::<u64>(),
    )
        .prop_map(
            |(latency, bandwidth, jitter, buffer, max_write, max_read, flush_delay, seed)| Profile {
                latency: latency * MS,
                bandwidth,
                jitter: jitter * MS,
                buffer,
                max_write,
                max_read,
                flush_delay: flush_delay.map(|delay| delay * MS),
                seed,
            },
        )
}

/// Sends in pieces and ends.
async fn send(io: &mut (impl AsyncWriteExt + Unpin), data: &[u8], piece: usize) {
    for piece in data.chunks(piece) {
        io.write_all(piece).await.unwrap();
        io.flush().await.unwrap();
    }
    io.shutdown().await.unwrap();
}

/// Sends and receives at once.
async fn converse(io: BoxIo, data: &[u8], piece: usize) -> Vec<u8> {
    let (mut read, mut write) = tokio::io::split(io);
    let mut received = Vec::new();
    tokio::join!(send(&mut write, data, piece), async {
        read.read_to_end(&mut received).await.unwrap();
    });
    received
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_byte_arrives_once_and_in_order(
        ways in [profiles(), profiles()],
        data in [prop::collection::vec(any::<u8>(), 0..20_000), prop::collection::vec(any::<u8>(), 0..20_000)],
        pieces in [1_usize..5_000, 1_usize..5_000],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let [up, down] = ways;
        let fastest = [&up, &down].map(|profile| profile.latency);
        let (at_near, at_far, took) = runtime.block_on(async {
            let net = Net::asymmetric(up, down);
            let (near, far) = pair(&net).await;
            let start = Instant::now();
            let (at_near, at_far) = tokio::join!(
                converse(near, &data[0], pieces[0]),
                converse(far, &data[1], pieces[1]),
            );
            (at_near, at_far, start.elapsed())
        });
        prop_assert!(at_near == data[1], "{} of {} bytes", at_near.len(), data[1].len());
        prop_assert!(at_far == data[0], "{} of {} bytes", at_far.len(), data[0].len());
        prop_assert!(fastest.iter().all(|latency| *latency <= took));
    }
}
