//! Agents that were admitted and misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{sync::Arc, time::Duration};

use common::{GET, World, request};
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};
use tunnel_core::{Connection, ConnectionError, Initiator};
use tunnel_tcp::BoxIo;
use tunnel_testkit::ends::{Verdict, handshake, whole};

/// A server's connection, and the pipe of the agent behind the upgrade.
async fn admitted(world: &mut World) -> (BoxIo, Arc<dyn Connection>) {
    let mut io = world.dial().await;
    let verdict = Verdict::default();
    let ((), server) = tokio::join!(
        async {
            io.write_all(&request(GET, &[])).await.unwrap();
            io.flush().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(io.read_u8().await.unwrap());
            }
        },
        handshake(&mut world.listener, &verdict)
    );
    (io, server.unwrap())
}

/// A frame of a client; the key is zero, which masks nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).expect("a short payload")];
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// What the agent sends, the code of the close frame that it gets, and what the server says of it.
#[tokio::test(start_paused = true)]
async fn a_broken_rule_ends_the_connection_and_is_named_at_both_ends() {
    let long = [&[0x82, 0xff][..], &131_073_u64.to_be_bytes(), &[0; 4]].concat();
    for (what, sent, code, text) in [
        ("text", frame(0x81, b"hello"), 1003, "text message"),
        ("no mask", vec![0x82, 1, 0], 1002, "mask"),
        ("a long frame", long, 1009, "long"),
        ("an empty message", frame(0x82, b""), 1000, "the bytes ended"),
        ("no frame of the mux", frame(0x82, &[0x1a, 0xff]), 1000, ""),
        ("no HELLO", frame(0x82, &[0x18, 1, 0]), 1000, "HELLO"),
    ] {
        let (mut io, server) = admitted(&mut World::plain()).await;
        io.write_all(&sent).await.unwrap();
        io.flush().await.unwrap();
        let start = Instant::now();
        let (closed, answer) = tokio::join!(server.closed(), async {
            let mut answer = Vec::new();
            timeout(Duration::from_secs(5), io.read_to_end(&mut answer))
                .await
                .unwrap()
                .unwrap();
            answer
        });
        assert!(
            start.elapsed() <= Duration::from_secs(2),
            "{what}: it takes {:?}",
            start.elapsed()
        );
        let ConnectionError::Closed { initiator, .. } = &closed else {
            panic!("{what}: {closed:?}");
        };
        assert_eq!(*initiator, Initiator::Local, "{what}");
        assert!(whole(&closed).contains(text), "{what}: {}", whole(&closed));
        let code = u16::to_be_bytes(code);
        let is_told = answer.windows(4).any(|bytes| bytes[0] == 0x88 && bytes[2..] == code);
        assert!(is_told, "{what}: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_says_nothing_is_given_up() {
    let (mut io, server) = admitted(&mut World::plain()).await;
    let start = Instant::now();
    let error = server.closed().await;
    assert_eq!(start.elapsed().as_secs(), 15);
    assert!(!error.to_string().is_empty());
    // It has heard the pings.
    let mut heard = vec![0; 1000];
    assert_ne!(io.read(&mut heard).await.unwrap(), 0);
}

/// Pings of RFC 6455 are answered, and are no sign of life of the mux behind them.
#[tokio::test(start_paused = true)]
async fn pings_of_the_websocket_keep_nothing_alive() {
    let (mut io, server) = admitted(&mut World::plain()).await;
    let pinging = async {
        while io.write_all(&frame(0x89, b"still here")).await.is_ok() && io.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let start = Instant::now();
    tokio::select! {
        _ = server.closed() => assert_eq!(start.elapsed().as_secs(), 15),
        () = pinging => panic!("it never ends"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is sent, in whatever pieces, the connection ends with the agent at the latest.
    #[test]
    fn any_bytes_end(
        parts in prop::collection::vec((prop::sample::select(vec![0x00, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a, 0xc2]),
            prop::collection::vec(any::<u8>(), 0..100)), 0..20),
        rest in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (mut io, server) = admitted(&mut World::plain()).await;
            for (first, payload) in parts {
                if io.write_all(&frame(first, &payload)).await.is_err() || io.flush().await.is_err() {
                    break;
                }
            }
            let _ = io.write_all(&rest).await;
            drop(io);
            timeout(Duration::from_secs(5), server.closed()).await.expect("an end");
        });
    }
}
