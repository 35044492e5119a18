//! A peer that was let in and misbehaves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::time::Duration;

use carrier_quic::QuicConfig;
use common::{STRANGER, World, net::Link, raw::RawAgent, read_all};
use tokio::time::Instant;
use tunnel_core::{Answer, CloseCode, ConnectionError, Initiator, OpenError, StreamCode};
use tunnel_testkit::ends::head;

async fn raw() -> RawAgent {
    let config = QuicConfig::builder().max_half_open(8).build().unwrap();
    RawAgent::connect(&mut World::new(config, Link::default()), STRANGER).await
}

#[tokio::test(start_paused = true)]
async fn a_half_head_delays_nobody_and_is_given_up_in_time() {
    let raw = raw().await;
    let started = Instant::now();
    let (mut slow, mut slow_rx) = raw.quic.open_bi().await.unwrap();
    slow.write_all(&head().encode()[..5]).await.unwrap();
    let (mut good, _good_rx) = raw.quic.open_bi().await.unwrap();
    good.write_all(&head().encode()).await.unwrap();
    let inbound = raw.server.accept().await.unwrap();
    assert_eq!(inbound.head(), &head());
    assert!(started.elapsed() < Duration::from_secs(1));

    let protocol = quinn::VarInt::from_u32(6);
    assert_eq!(slow.stopped().await.unwrap(), Some(protocol));
    assert_eq!(slow_rx.received_reset().await.unwrap(), Some(protocol));
    assert_eq!(started.elapsed().as_secs(), 10);
    assert_eq!(StreamCode::PROTOCOL.value().into_inner(), 6);
}

#[tokio::test(start_paused = true)]
async fn half_heads_are_bounded_and_make_way() {
    let raw = raw().await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        let (mut tx, rx) = raw.quic.open_bi().await.unwrap();
        tx.write_all(b"\x04").await.unwrap();
        slow.push((tx, rx));
    }
    let (mut good, _rx) = raw.quic.open_bi().await.unwrap();
    good.write_all(&head().encode()).await.unwrap();
    let early = tokio::time::timeout(Duration::from_secs(9), raw.server.accept()).await;
    assert!(early.is_err(), "more half heads than allowed");
    let inbound = tokio::time::timeout(Duration::from_secs(2), raw.server.accept()).await;
    inbound.expect("the half heads were given up").unwrap();
}

/// Why the connection ends when this comes in place of a head.
async fn head_of(bytes: &[u8]) -> ConnectionError {
    let raw = raw().await;
    let (mut tx, _rx) = raw.quic.open_bi().await.unwrap();
    tx.write_all(bytes).await.unwrap();
    let _ = tx.finish();
    raw.server.closed().await
}

#[tokio::test(start_paused = true)]
async fn what_is_no_head_closes_the_connection_and_is_named() {
    let cases: [(&[u8], &str); 5] = [
        (
            b"\x04\xbf\xff\xff\xff",
            "the HEAD frame announces 1073741823 bytes; at most 16384 are allowed",
        ),
        (b"\x05\x00", "a ANSWER frame came where HEAD was expected"),
        (b"\x04\x00", "HEAD frame"),
        (b"\x04\x05\x01", "the bytes ended inside the HEAD frame"),
        (b"", "the bytes ended inside the header of a frame"),
    ];
    for (bytes, expected) in cases {
        let error = head_of(bytes).await;
        assert_eq!(
            (error.initiator(), error.code()),
            (Initiator::Local, Some(CloseCode::PROTOCOL))
        );
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn frames_of_later_versions_are_skipped() {
    let raw = raw().await;
    let (mut tx, mut rx) = raw.quic.open_bi().await.unwrap();
    tx.write_all(b"\x40\x7f\x03abc").await.unwrap();
    tx.write_all(&head().encode()).await.unwrap();
    tx.write_all(b"early payload").await.unwrap();
    tx.finish().unwrap();
    let inbound = raw.server.accept().await.unwrap();
    let mut stream = inbound.accept().await.unwrap();
    assert_eq!(read_all(&mut *stream.rx).await.unwrap(), b"early payload");
    let mut answer = vec![0; Answer::Accepted.encode().len()];
    rx.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, Answer::Accepted.encode());
}

#[tokio::test(start_paused = true)]
async fn a_bad_answer_closes_the_connection() {
    let raw = raw().await;
    let (opened, ()) = tokio::join!(raw.server.open(head()), async {
        let (mut tx, _rx) = raw.quic.accept_bi().await.unwrap();
        tx.write_all(b"HTTP/1.1 200 OK").await.unwrap();
        tx.finish().unwrap();
        raw.quic.closed().await;
    });
    assert!(matches!(opened, Err(OpenError::Protocol(_))), "{opened:?}");
    assert_eq!(raw.server.closed().await.code(), Some(CloseCode::PROTOCOL));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_reset_without_an_answer_is_only_that() {
    let raw = raw().await;
    let (opened, ()) = tokio::join!(raw.server.open(head()), async {
        let (mut tx, _rx) = raw.quic.accept_bi().await.unwrap();
        tx.reset(8u32.into()).unwrap();
    });
    assert!(
        matches!(opened, Err(OpenError::Reset(StreamCode::SHUTDOWN))),
        "{opened:?}"
    );
    assert!(raw.quic.close_reason().is_none());
}

#[tokio::test(start_paused = true)]
async fn unidirectional_streams_are_not_to_be_had() {
    let raw = raw().await;
    let opened = tokio::time::timeout(Duration::from_secs(5), raw.quic.open_uni()).await;
    assert!(opened.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_reset_or_never_accepted_leaves_nothing_behind() {
    let raw = raw().await;
    for _ in 0..100 {
        let (mut tx, _) = raw.quic.open_bi().await.unwrap();
        tx.write_all(b"\x04").await.unwrap();
        tx.reset(0u32.into()).unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(raw.server.stats().streams_open, 0);
    assert!(raw.quic.close_reason().is_none());
}
