//! Clients that break the rules of gRPC or of HTTP/2, and what becomes of the server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use carrier_grpc::GrpcConfig;
use common::{
    World,
    raw::{self, Raw, RawEnd, claim_headers, message, now, packet},
};
use h2::Reason;
use http::HeaderMap;
use tokio::time::{Instant, sleep, timeout};
use tunnel_core::{
    CloseCode, Connection, ConnectionError, Initiator, Listener,
    proto::mux::{CloseReason, Side},
};
use tunnel_testkit::{
    ends::{Ends, claim, echo, head},
    sim::Profile,
};

/// A client that was let in, and the server's view of it.
async fn guest(world: &mut World, raw: &mut Raw) -> (RawEnd, Arc<dyn Connection>) {
    let (call, server) = tokio::join!(raw.call(claim_headers(&claim())), world.accept());
    let response = call.response.await.expect("a welcome");
    (RawEnd::new(Side::Agent, call.tx, response.into_body()), server)
}

/// What both ends learn when this comes from a client: the server's error, and the reason that it tells.
async fn sent(data: Bytes, is_last: bool) -> (ConnectionError, Option<CloseReason>, HeaderMap) {
    let mut world = World::plain();
    let mut raw = Raw::new(&world.net, &world.address).await;
    let (mut guest, server) = guest(&mut world, &mut raw).await;
    guest.speak();
    guest.tx.send_data(data, is_last).expect("room");
    let (reason, trailers) = guest.verdict().await;
    (server.closed().await, reason, trailers)
}

#[tokio::test(start_paused = true)]
async fn messages_that_break_the_rules_close_the_connection_and_both_ends_learn_why() {
    let trailing = {
        let mut lie = packet("abcdef").to_vec();
        lie[6] = 200;
        Bytes::from(lie)
    };
    let cases: [(Bytes, bool, &str); 8] = [
        (message(1, b"x"), false, "a message is compressed"),
        (message(7, b"x"), false, "a message has the flag 7"),
        (
            Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]),
            false,
            "a message announces 4294967295 bytes; at most 132096 are allowed",
        ),
        (Bytes::from_static(&[0, 0, 2, 4, 1]), false, "announces 132097 bytes"),
        (trailing, false, "a packet ends inside a field"),
        (message(0, b"\x08\x01"), false, "a field 1 that is not of bytes"),
        (
            Bytes::from_static(&[0, 0, 0, 0, 9, 1]),
            true,
            "the call ended inside a message",
        ),
        (packet(vec![0x13]), false, "frame"),
    ];
    for (data, is_last, words) in cases {
        let (error, reason, trailers) = sent(data, is_last).await;
        assert_eq!(error.initiator(), Initiator::Local, "{error}");
        assert_eq!(error.code(), Some(CloseCode::PROTOCOL), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        let Some(CloseReason::Remote { code, text }) = reason else {
            panic!("{words}: {reason:?}")
        };
        assert_eq!(code, CloseCode::PROTOCOL);
        assert!(text.as_str().contains(words), "{text}");
        assert_eq!(trailers["grpc-status"], "0");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_without_a_close_has_failed() {
    let mut world = World::plain();
    let mut raw = Raw::new(&world.net, &world.address).await;
    for is_reset in [true, false] {
        let (mut guest, server) = guest(&mut world, &mut raw).await;
        guest.speak();
        if is_reset {
            guest.tx.send_reset(Reason::CANCEL);
        } else {
            guest.tx.send_trailers(HeaderMap::new()).unwrap();
        }
        let since = Instant::now();
        let error = server.closed().await;
        assert!(matches!(error, ConnectionError::Transport(_)), "{error:?}");
        assert!(since.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn messages_may_come_a_byte_at_a_time() {
    let mut world = World::plain();
    let mut raw = Raw::new(&world.net, &world.address).await;
    let (mut guest, server) = guest(&mut world, &mut raw).await;
    while let Some(message) = guest.mux.poll_message(now()) {
        for byte in packet(message.into_bytes()) {
            guest.tx.send_data(Bytes::copy_from_slice(&[byte]), false).unwrap();
            guest.tx.send_data(Bytes::new(), false).unwrap();
        }
    }
    let opened = tokio::spawn(async move { server.open(head()).await });
    guest.accept().await;
    opened.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_holds_little_and_is_given_up() {
    let mut world = World::plain();
    let mut raw = Raw::new(&world.net, &world.address).await;
    let (mut guest, server) = guest(&mut world, &mut raw).await;
    guest.speak();
    let opener = Arc::clone(&server);
    let opened = tokio::spawn(async move { opener.open(head()).await.unwrap() });
    guest.accept().await;
    let mut stream = opened.await.unwrap();

    // From here on nothing is read, though the mux would allow 256 KiB.
    let since = Instant::now();
    let mut taken = 0;
    while stream.tx.send_all(Bytes::from(vec![7; 16 * 1024])).await.is_ok() {
        taken += 16 * 1024;
        assert!(taken < 1024 * 1024, "it takes no end");
    }
    // The HTTP/2 window of the client, a message, and what the mux queues.
    assert!((128..=400).contains(&(taken / 1024)), "{taken} bytes");
    let error = server.closed().await;
    assert!(matches!(error, ConnectionError::TimedOut { .. }), "{error:?}");
    assert!(since.elapsed() <= Duration::from_secs(17), "{:?}", since.elapsed());
    drop(stream);
    // As long as the server tries to say why.
    sleep(Duration::from_secs(2)).await;
    let error = timeout(Duration::from_secs(5), async {
        while guest.listen().await? {}
        Ok(())
    });
    let error: h2::Error = error.await.expect("the call ends, too").unwrap_err();
    assert!(error.is_reset(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_is_not_read_is_closed() {
    let mut world = World::plain();
    let (agent, server) = world.connect().await;
    world.net.silence();
    let since = Instant::now();
    let error = server.closed().await;
    assert!(matches!(error, ConnectionError::TimedOut { .. }), "{error:?}");
    agent.closed().await;
    while !world.net.connections().is_empty() {
        sleep(Duration::from_secs(1)).await;
        assert!(since.elapsed() < Duration::from_secs(60), "the socket stays open");
    }
}

#[tokio::test(start_paused = true)]
async fn rapid_resets_end_the_connection_and_nothing_else() {
    let mut world = World::plain();
    let (agent, server) = world.connect().await;
    let (net, address) = (world.net.clone(), world.address.clone());
    let attack = async {
        let mut raw = Raw::new(&net, &address).await;
        for _ in 0..5_000 {
            let Ok(mut http) = raw.http.clone().ready().await else {
                break;
            };
            let request = raw::request("POST", "/some.Service/Method", "application/grpc");
            let (_, mut tx) = http.send_request(request, false).unwrap();
            tx.send_reset(Reason::CANCEL);
        }
        timeout(Duration::from_secs(30), &mut raw.connection).await
    };
    let ended = world.serving(attack).await.expect("it is ended").unwrap();
    // A reset of the socket may overtake the words for it.
    let error = ended.expect_err("and not in peace");
    assert!(
        error.is_io() || error.reason() == Some(Reason::ENHANCE_YOUR_CALM),
        "{error}"
    );
    echo(&agent, &server, 10_000).await;
    let (agent, server) = world.connect().await;
    echo(&agent, &server, 10_000).await;
}

#[tokio::test(start_paused = true)]
async fn many_agents_share_a_connection_and_are_told_apart() {
    let mut world = World::plain();
    let mut raw = Raw::new(&world.net, &world.address).await;
    let mut guests = Vec::new();
    for _ in 0..50 {
        guests.push(guest(&mut world, &mut raw).await);
    }
    let (mut bad, server) = guests.pop().unwrap();
    bad.tx.send_data(message(1, b"x"), false).unwrap();
    assert_eq!(server.closed().await.code(), Some(CloseCode::PROTOCOL));
    for (mut guest, server) in guests {
        guest.speak();
        let opened = tokio::spawn(async move { server.open(head()).await });
        guest.accept().await;
        opened.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_limit_wait_at_the_client() {
    let config = GrpcConfig::builder().max_calls(2).build().unwrap();
    let mut world = World::new(Profile::near(), config);
    let mut raw = Raw::new(&world.net, &world.address).await;
    let _two = [guest(&mut world, &mut raw).await, guest(&mut world, &mut raw).await];
    let third = raw.call(claim_headers(&claim())).await;
    // Before keepalive ends one of the two.
    let accepted = timeout(Duration::from_secs(10), world.listener.accept()).await;
    assert!(accepted.is_err(), "HTTP/2 says that two are the limit");
    drop(third);
    assert!(!raw.connection.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_goodbye_keeps_its_calls() {
    let mut world = World::plain();
    let mut raw = Raw::new(&world.net, &world.address).await;
    let (guest, server) = guest(&mut world, &mut raw).await;
    // Its last handle: HTTP/2's GOAWAY follows when the calls have ended.
    let Raw { http, connection } = raw;
    drop(http);
    sleep(Duration::from_secs(2)).await;
    server.close(CloseCode::SHUTDOWN, "enough");
    let (reason, trailers) = guest.verdict().await;
    assert!(
        matches!(
            reason,
            Some(CloseReason::Remote {
                code: CloseCode::SHUTDOWN,
                ..
            })
        ),
        "{reason:?}"
    );
    assert_eq!(trailers["grpc-status"], "0");
    assert!(timeout(Duration::from_secs(5), connection).await.is_ok());
}
