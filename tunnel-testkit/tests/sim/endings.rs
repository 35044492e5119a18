//! How connections end.

use std::{io::ErrorKind, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};
use tunnel_tcp::{Accept, Dial};
use tunnel_testkit::sim::{Net, Profile};

use super::{MS, connect, expect_reset, fill, is_quiet, pair};

fn net() -> Net {
    Net::new(Profile::new(10 * MS, 1_000_000))
}

#[tokio::test(start_paused = true)]
async fn one_direction_ends_behind_its_bytes_and_the_other_goes_on() {
    let (mut near, mut far) = pair(&net()).await;
    let start = Instant::now();
    near.write_all(&[7; 5_000]).await.unwrap();
    near.shutdown().await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(near.write(&[0]).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut received = Vec::new();
    far.read_to_end(&mut received).await.unwrap();
    assert_eq!((received.len(), start.elapsed()), (5_000, 15 * MS));
    for _ in 0..3 {
        far.write_all(&[8; 1_000]).await.unwrap();
        near.read_exact(&mut [0; 1_000]).await.unwrap();
    }
    far.shutdown().await.unwrap();
    assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_a_reset_for_both_behind_what_had_arrived() {
    let net = net();
    let mut listener = net.listen();
    let (mut near, mut far) = connect(&net, &mut listener).await;
    near.write_all(&[7; 5_000]).await.unwrap();
    tokio::time::sleep(12 * MS).await;
    net.cut();
    far.read_exact(&mut [0; 2_000]).await.unwrap();
    expect_reset(&mut far).await;
    expect_reset(&mut near).await;
    connect(&net, &mut listener).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_what_waits() {
    let net = net();
    let (near, mut far) = pair(&net).await;
    let (mut read, mut write) = tokio::io::split(near);
    let reading = tokio::spawn(async move { read.read(&mut [0]).await });
    let writing = tokio::spawn(async move { write.write_all(&[7; 10_000_000]).await });
    tokio::time::sleep(10_000 * MS).await;
    assert!(!reading.is_finished() && !writing.is_finished());
    net.connections()[0].cut();
    for ended in [reading.await.unwrap().map(drop), writing.await.unwrap()] {
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let mut unread = Vec::new();
    assert!(far.read_to_end(&mut unread).await.is_err());
    assert!(!unread.is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_tells_nobody_and_loses_nothing() {
    for net in [net(), Net::new(Profile::default())] {
        let mut listener = net.listen();
        let (mut near, mut far) = connect(&net, &mut listener).await;
        let (dropped, mut left) = connect(&net, &mut listener).await;
        net.silence();
        near.write_all(&[7; 100]).await.unwrap();
        near.shutdown().await.unwrap();
        drop(dropped);
        assert!(is_quiet(&mut far).await && is_quiet(&mut near).await && is_quiet(&mut left).await);
        let server = listener.local_addr().unwrap().to_string().parse().unwrap();
        assert!(timeout(Duration::from_secs(3600), net.dial(&server)).await.is_err());

        net.resume();
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        assert_eq!(received.len(), 100);
        assert_eq!(left.read(&mut [0]).await.unwrap(), 0);
        connect(&net, &mut listener).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_end_that_has_read_everything_ends_cleanly() {
    let (mut near, mut far) = pair(&net()).await;
    near.write_all(&[7; 5_000]).await.unwrap();
    drop(near);
    let mut received = Vec::new();
    far.read_to_end(&mut received).await.unwrap();
    assert_eq!(received.len(), 5_000);
    // Nobody takes what is sent now; that is known after a round trip.
    let start = Instant::now();
    far.write_all(&[7]).await.unwrap();
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    tokio::time::sleep(20 * MS).await;
    far.write_all(&[7]).await.unwrap();
    tokio::time::sleep(MS).await;
    expect_reset(&mut far).await;
    assert_eq!(start.elapsed(), 21 * MS);
}

#[tokio::test(start_paused = true)]
async fn an_end_dropped_with_unread_bytes_resets() {
    for read_ahead in [20 * MS, 5 * MS] {
        let (mut near, mut far) = pair(&net()).await;
        far.write_all(&[7]).await.unwrap();
        tokio::time::sleep(read_ahead).await;
        drop(near.read(&mut []).await);
        let start = Instant::now();
        drop(near);
        if read_ahead < 10 * MS {
            // The byte is still under way, and so the clean end comes first.
            assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
            tokio::time::sleep_until(start + 17 * MS).await;
        }
        let _clean_end_at_the_most = far.read(&mut [0]).await;
        expect_reset(&mut far).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_ends_with_the_reset_of_a_reader_that_is_gone() {
    let (mut near, far) = pair(&net()).await;
    let taken = fill(&mut near).await;
    assert!(taken > 0);
    drop(far);
    tokio::time::sleep(10 * MS).await;
    expect_reset(&mut near).await;
}
