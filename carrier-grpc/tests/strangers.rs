//! Clients that were not let in: what they can hold, and for how long.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::time::Duration;

use bytes::Bytes;
use carrier_grpc::{GrpcConfig, METHOD};
use common::{
    World,
    raw::{self, Raw, claim_headers, packet},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};
use tunnel_core::{HandshakeError, HostPort, Listener};
use tunnel_tcp::{BoxIo, Dial};
use tunnel_testkit::{
    ends::{Ends, Verdict, claim, echo},
    sim::{Net, Profile},
};

/// The first bytes of a HTTP/2 connection, and empty SETTINGS.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn pipe(net: &Net, address: &HostPort) -> BoxIo {
    net.dial(address).await.unwrap().io
}

/// How long it takes until the server closes a connection on which this was sent.
async fn patience(world: &mut World, hello: &[u8]) -> Duration {
    let mut io = pipe(&world.net.clone(), &world.address.clone()).await;
    let ended = async {
        io.write_all(hello).await.unwrap();
        let since = Instant::now();
        // A reset is an end, too.
        let _ = io.read_to_end(&mut Vec::new()).await;
        since.elapsed()
    };
    world.serving(ended).await
}

#[tokio::test(start_paused = true)]
async fn who_is_stuck_is_sent_away() {
    let mut world = World::plain();
    for hello in [&b""[..], &HELLO[..10]] {
        assert_eq!(patience(&mut world, hello).await.as_secs(), 10);
    }
    // Asked to go after ten seconds, and closed when it does not.
    for hello in [HELLO, &HELLO[..24]] {
        assert_eq!(patience(&mut world, hello).await.as_secs(), 15);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_http_2_ends_at_once() {
    let mut world = World::plain();
    for garbage in [
        // A frame of 16 MiB, HEADERS of no stream, DATA of a stream that was never opened, a PING of seven bytes.
        &b"\xff\xff\xff\0\0\0\0\0\x01"[..],
        b"\0\0\x01\x01\x04\0\0\0\0\x82",
        b"\0\0\x01\0\0\0\0\0\x01x",
        b"\0\0\x07\x06\0\0\0\0\0abcdefg",
    ] {
        let took = patience(&mut world, &[HELLO, garbage].concat()).await;
        assert!(took < Duration::from_secs(2), "{took:?}: {garbage:?}");
    }
    let (agent, server) = world.connect().await;
    echo(&agent, &server, 1000).await;
}

#[tokio::test(start_paused = true)]
async fn one_address_cannot_take_all_places() {
    let config = GrpcConfig::builder().max_handshakes(8, 4).build().unwrap();
    let mut world = World::new(Profile::near(), config);
    let (net, address) = (world.net.host("198.51.100.66".parse().unwrap()), world.address.clone());
    let many = async {
        let mut held = Vec::new();
        let mut closed = 0;
        for _ in 0..20 {
            let mut io = pipe(&net, &address).await;
            match timeout(Duration::from_millis(100), io.read_u8()).await {
                Ok(_) => closed += 1,
                Err(_) => held.push(io),
            }
        }
        (held, closed)
    };
    let (held, closed) = world.serving(many).await;
    assert_eq!((held.len(), closed), (3, 17));
    let (agent, server) = world.connect().await;
    echo(&agent, &server, 1000).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_was_let_in_needs_no_place() {
    let config = GrpcConfig::builder().max_handshakes(2, 2).build().unwrap();
    let mut world = World::new(Profile::near(), config);
    let mut all = Vec::new();
    for _ in 0..20 {
        all.push(world.connect().await);
    }
    for (agent, server) in &all {
        echo(agent, server, 1000).await;
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_not_the_tunnels_give_no_place_back() {
    let config = GrpcConfig::builder().max_handshakes(2, 2).build().unwrap();
    let mut world = World::new(Profile::near(), config);
    let (net, address) = (world.net.clone(), world.address.clone());
    let attempt = async {
        let mut raw = Raw::new(&net, &address).await;
        let call = raw
            .send(raw::request("POST", "/other.Service/Method", "application/grpc"))
            .await;
        assert_eq!(call.status().await.0, "12");
        let mut second = pipe(&net, &address).await;
        let refused = timeout(Duration::from_secs(1), second.read_u8()).await;
        assert!(refused.is_ok(), "half of what is left is one place");
        drop(raw);
        sleep(Duration::from_secs(1)).await;
    };
    world.serving(attempt).await;
    world.connect().await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_the_welcome_does_not_pile_up() {
    let mut world = World::plain();
    let mut raw = Raw::new(&world.net, &world.address).await;
    let mut call = raw.call(claim_headers(&claim())).await;
    // The call is in nobody's hands yet, and its HTTP/2 window has room for more than a hundred megabytes.
    let early = async {
        let mut sent = 0;
        for _ in 0..1000 {
            call.tx.reserve_capacity(64 * 1024);
            let Some(Ok(_)) = std::future::poll_fn(|cx| call.tx.poll_capacity(cx)).await else {
                break;
            };
            if call.tx.send_data(packet(vec![0; 60 * 1024]), false).is_err() {
                break;
            }
            sent += 1;
        }
        let status = call.response.await.expect("an answer").headers()["grpc-status"].clone();
        (sent, status)
    };
    let accepted = async {
        let call = world.listener.accept().await.unwrap();
        let early = early.await;
        (early, call.handshake(&Verdict::default()).await)
    };
    let ((sent, status), shaken) = accepted.await;
    assert_eq!(status, "3");
    assert!(sent < 50, "{sent} messages");
    let Err(HandshakeError::Protocol { detail }) = shaken else {
        panic!("{shaken:?}")
    };
    assert_eq!(detail, "a message came before the welcome");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_never_ends_is_bounded_too() {
    let mut world = World::plain();
    let mut raw = Raw::new(&world.net, &world.address).await;
    let mut call = raw.call(claim_headers(&claim())).await;
    let incoming = world.listener.accept().await.unwrap();
    let too_long = Bytes::from_static(&[0, 0x7f, 0xff, 0xff, 0xff]);
    call.tx.send_data(too_long, false).unwrap();
    let answer = call.response.await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "3");
    let shaken = incoming.handshake(&Verdict::default()).await;
    assert!(matches!(shaken, Err(HandshakeError::Protocol { .. })), "{shaken:?}");
}

#[tokio::test(start_paused = true)]
async fn only_grpc_with_protobuf_is_spoken() {
    let mut world = World::plain();
    let (net, address) = (world.net.clone(), world.address.clone());
    let calls = async {
        let mut raw = Raw::new(&net, &address).await;
        for kind in [
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc+json",
            "application/grpcx",
        ] {
            let call = raw.send(raw::request("POST", METHOD, kind)).await;
            assert_eq!(call.response.await.unwrap().status(), 415, "{kind}");
        }
    };
    world.serving(calls).await;
    for kind in [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc; charset=utf-8",
        "Application/gRPC",
    ] {
        let mut raw = Raw::new(&world.net, &world.address).await;
        let mut request = raw::request("POST", METHOD, kind);
        request.headers_mut().extend(claim_headers(&claim()));
        let (call, _server) = tokio::join!(raw.send(request), world.accept());
        assert_eq!(call.response.await.unwrap().status(), 200, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn headers_without_end_are_refused() {
    let mut world = World::plain();
    let (net, address) = (world.net.clone(), world.address.clone());
    let calls = async {
        let mut raw = Raw::new(&net, &address).await;
        let mut request = raw::request("POST", METHOD, "application/grpc");
        for index in 0..20 {
            let name: http::HeaderName = format!("x-{index}").parse().unwrap();
            request.headers_mut().insert(name, "a".repeat(10_000).parse().unwrap());
        }
        match raw.send(request).await.response.await {
            Ok(answer) => assert_eq!(answer.status(), 431),
            // A reset of the socket may overtake the words for it.
            Err(error) => assert!(error.is_io() || error.is_reset() || error.is_go_away(), "{error}"),
        }
    };
    world.serving(calls).await;
    world.connect().await;
}
