//! How an agent and a server meet, and what a server says to those who are no agent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use carrier_ws::WsConfig;
use common::{GET, World, carrier, request};
use http::{Response, request::Parts};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tunnel_core::{Carrier, CloseCode, DialError, HandshakeError, Rejection, Secret, Welcome};
use tunnel_tcp::upgrade;
use tunnel_testkit::{
    ends::{Ends, Verdict, claim, echo, handshake, whole},
    pki::Pki,
    sim::{Net, Profile},
};
use tunnel_tls::ClientAuth;

#[tokio::test(start_paused = true)]
async fn bytes_move_both_ways() {
    let mut world = World::plain();
    let (agent, server) = world.connect().await;
    assert_eq!(agent.peer().carrier, "ws");
    assert_eq!(server.peer().claim().unwrap().agent.as_str(), "node-7");
    assert_eq!(agent.peer().welcome().unwrap().server.as_str(), "server-1");
    for size in [0, 1, 70_000, 3_000_000] {
        echo(&agent, &server, size).await;
        echo(&server, &agent, size).await;
    }
}

#[tokio::test(start_paused = true)]
async fn with_tls_each_end_knows_the_other() {
    let pki = Pki::new();
    let (server, client) = (pki.server(), pki.client());
    let mut world = World::tls(&server, &client);
    let (agent, server) = world.connect().await;
    assert_eq!(agent.peer().identity, pki.server_identity());
    assert_eq!(server.peer().identity, pki.client_identity());
    echo(&agent, &server, 100_000).await;
}

#[test]
fn the_document_shows_what_is_sent() {
    let document = include_str!("../../docs/wire.md");
    let mut claim = claim();
    claim.credential = None;
    let welcome = Welcome::new("server-1".parse().unwrap()).encode();
    for (name, value) in [
        ("Tunnel-Claim", common::field(&claim)),
        ("Tunnel-Welcome", upgrade::encode(&welcome).to_str().unwrap().to_owned()),
        ("Sec-WebSocket-Key", common::KEY.to_owned()),
        ("Sec-WebSocket-Accept", common::ACCEPT.to_owned()),
    ] {
        let line = format!("\n{name}: {value}\n");
        assert!(document.contains(&line), "no line {line}");
    }
    assert_eq!(common::field(&claim), common::CLAIM);
}

/// A credential travels in a field of its own where it can, and reaches the admission and nobody else.
#[tokio::test(start_paused = true)]
async fn a_credential_arrives() {
    for (credential, extra) in [
        (&b"abc.DEF-123_~+/=="[..], None),
        (b"two words", None),
        (b"\x00\xff", None),
        (b"token", Some("Basic Zm9v")),
    ] {
        let mut config = WsConfig::builder();
        if let Some(value) = extra {
            config = config.header("Authorization", value);
        }
        let mut world = World::on(&Net::new(Profile::default()), None, config.build().unwrap());
        let mut claim = claim();
        claim.credential = Some(Secret::new(credential).unwrap());
        let verdict = Verdict::default();
        let (agent, server) = world.attempt_with(&claim, &verdict).await;
        agent.unwrap();
        let arrival = verdict.arrival().unwrap();
        assert_eq!(arrival.claim, Some(claim));
        assert_eq!(server.unwrap().peer().claim().unwrap().credential, None);
    }
}

#[tokio::test(start_paused = true)]
async fn the_bearer_of_a_proxy_counts_less_than_the_claim() {
    let mut world = World::plain();
    let mut claim = claim();
    claim.credential = Some(Secret::new("own").unwrap());
    let own = common::field(&claim);
    for (claim, credential) in [(common::CLAIM, "proxy"), (own.as_str(), "own")] {
        let verdict = Verdict::reject(Rejection::new(CloseCode::SHUTDOWN, "seen enough"));
        let fields = [("Tunnel-Claim", claim), ("Authorization", "Bearer proxy")];
        world.attempt_raw(&request(GET, &fields), &verdict).await.1.unwrap_err();
        let seen = verdict.arrival().unwrap().claim.unwrap().credential.unwrap();
        assert_eq!(seen.expose(), credential.as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_reaches_the_agent_whole_and_has_a_status() {
    for (code, status) in [
        (CloseCode::UNAUTHORIZED, "401 Unauthorized"),
        (CloseCode::FORBIDDEN, "403 Forbidden"),
        (CloseCode::CONFLICT, "409 Conflict"),
        (CloseCode::VERSION, "426 Upgrade Required"),
        (CloseCode::PROTOCOL, "400 Bad Request"),
        (CloseCode::FLOOD, "429 Too Many Requests"),
        (CloseCode::TIMEOUT, "408 Request Timeout"),
        (CloseCode::OVERLOADED, "503 Service Unavailable"),
        (CloseCode::SHUTDOWN, "503 Service Unavailable"),
        (CloseCode::INTERNAL, "500 Internal Server Error"),
    ] {
        let mut world = World::plain();
        let mut rejection = Rejection::new(code, "it is so: 100 % é");
        rejection.not_before = Some(Duration::from_millis(6001));
        let verdict = Verdict::reject(rejection.clone());

        let (agent, server) = world.attempt_with(&claim(), &verdict).await;
        let Err(DialError::Rejected { rejection: seen, .. }) = agent else {
            panic!("{agent:?}");
        };
        assert_eq!(seen, rejection);
        assert!(matches!(server, Err(HandshakeError::Rejected(_))), "{server:?}");

        let (answer, _) = world.attempt_raw(&request(GET, &[]), &verdict).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        for line in [
            "retry-after: 7\r\n",
            "connection: close\r\n",
            "\r\n\r\nit is so: 100 % é",
        ] {
            assert!(answer.contains(line), "{answer}");
        }
    }
}

/// What is asked, the status, a part of the answer, and whether it is the attempt of an agent.
#[tokio::test(start_paused = true)]
async fn what_is_no_upgrade_is_told_what_it_lacks() {
    let long = format!("{GET}\r\nx: {}", "a".repeat(200_000));
    let many = format!("{GET}{}", "\r\nx: y".repeat(100));
    let twice = format!("{GET}\r\nTunnel-Claim: AA");
    let two_keys = format!("{GET}\r\nSec-WebSocket-Key: {}", common::KEY);
    let mut world = World::plain();
    for (line, changes, status, text, is_agent) in [
        ("GET /tunnel HTTP/1.0", &[][..], 426, "by WebSocket", true),
        ("POST /tunnel HTTP/1.1", &[], 405, "allow: GET", true),
        ("CONNECT /tunnel HTTP/1.1", &[], 405, "allow: GET", true),
        (GET, &[("Upgrade", "")], 426, "upgrade: websocket", false),
        (GET, &[("Upgrade", "h2c")], 426, "upgrade: websocket", false),
        (
            GET,
            &[("Connection", "keep-alive")],
            426,
            "connection: upgrade, close",
            true,
        ),
        (
            GET,
            &[("Sec-WebSocket-Version", "8")],
            426,
            "sec-websocket-version: 13",
            true,
        ),
        (
            GET,
            &[("Sec-WebSocket-Version", "")],
            426,
            "sec-websocket-version: 13",
            true,
        ),
        (GET, &[("Sec-WebSocket-Key", "")], 400, "Sec-WebSocket-Key", true),
        (GET, &[("Sec-WebSocket-Key", "short")], 400, "Sec-WebSocket-Key", true),
        (&two_keys, &[], 400, "Sec-WebSocket-Key", true),
        (GET, &[("Sec-WebSocket-Protocol", "")], 400, "tunnel.v1", true),
        (
            GET,
            &[("Sec-WebSocket-Protocol", "chat, tunnel.v2")],
            400,
            "tunnel.v1",
            true,
        ),
        (GET, &[("Content-Length", "5")], 400, "body", true),
        (GET, &[("Tunnel-Claim", "")], 400, "no header field tunnel-claim", true),
        (GET, &[("Tunnel-Claim", "***")], 400, "base64url", true),
        (GET, &[("Tunnel-Claim", "AAAA")], 400, "tunnel-rejection: ", true),
        // CLAIM with the version 300 alone.
        (GET, &[("Tunnel-Claim", "AQQBAkEs")], 426, "version", true),
        (&twice, &[], 400, "more than once", true),
        (&long, &[], 431, "", true),
        (&many, &[], 431, "", true),
        ("GET / HTTP/1.1", &[], 404, "nothing here", false),
        ("GET /tunnels HTTP/1.1", &[], 404, "nothing here", false),
        ("GET /tunnel/ HTTP/1.1", &[], 404, "nothing here", false),
        ("OPTIONS * HTTP/1.1", &[], 404, "nothing here", false),
        ("PRI * HTTP/2.0", &[], 400, "", true),
        ("hello", &[], 400, "", true),
    ] {
        let (answer, server) = world.attempt_raw(&request(line, changes), &Verdict::default()).await;
        let shown: String = line.chars().take(60).collect();
        assert!(
            answer[8..].starts_with(&format!(" {status} ")) && answer.contains(text),
            "{shown} {changes:?}: {answer}"
        );
        let error = server.expect_err("no connection");
        let is_lost = matches!(error, HandshakeError::Lost(_));
        assert_eq!(is_lost, !is_agent, "{shown} {changes:?}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_may_be_asked_for_in_other_words() {
    for (line, changes) in [
        (
            GET,
            &[("Connection", "keep-alive, upgrade"), ("Upgrade", "WebSocket")][..],
        ),
        (GET, &[("Sec-WebSocket-Protocol", "chat, tunnel.v1")]),
        (
            GET,
            &[
                ("Sec-WebSocket-Extensions", "permessage-deflate"),
                ("Origin", "https://evil.example"),
            ],
        ),
        ("GET /tunnel?from=here HTTP/1.1", &[]),
        ("GET http://server.test/tunnel HTTP/1.1", &[]),
    ] {
        let mut world = World::plain();
        let mut io = world.dial().await;
        let verdict = Verdict::default();
        let (answer, server) = tokio::join!(
            async {
                io.write_all(&request(line, changes)).await.unwrap();
                io.flush().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(io.read_u8().await.unwrap());
                }
                String::from_utf8(head).unwrap()
            },
            handshake(&mut world.listener, &verdict)
        );
        server.unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
        for line in [
            &format!("sec-websocket-accept: {}\r\n", common::ACCEPT),
            "sec-websocket-protocol: tunnel.v1\r\n",
            "tunnel-welcome: ",
        ] {
            assert!(answer.contains(line), "{answer}");
        }
        assert!(!answer.contains("extensions"), "{answer}");
    }
}

/// One request is all that a connection may have, so that nobody holds a place by asking on and on.
#[tokio::test(start_paused = true)]
async fn a_second_request_is_not_answered() {
    let mut world = World::plain();
    let twice = request("GET / HTTP/1.1", &[]).repeat(2);
    let (answer, _) = world.attempt_raw(&twice, &Verdict::default()).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[tokio::test(start_paused = true)]
async fn other_paths_have_the_fallback() {
    let mut world = World::plain();
    world.listener = world.listener.with_fallback(Arc::new(|request: &Parts| {
        Response::new(Bytes::from(format!("{} is fine\n", request.uri)))
    }));
    let (answer, server) = world
        .attempt_raw(&request("GET /healthz HTTP/1.1", &[]), &Verdict::default())
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n/healthz is fine\n"), "{answer}");
    let error = whole(&server.unwrap_err());
    assert!(
        error.contains("GET /healthz was answered with 200 OK: no agent"),
        "{error}"
    );
}

/// What is not HTTP at all, and what ends too soon.
#[tokio::test(start_paused = true)]
async fn garbage_is_refused() {
    let hello_of_tls = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03";
    for byte in [0, 0x16, b'\n', b'G', b' ', 0x80, 0xff] {
        let mut world = World::plain();
        let mut sent = hello_of_tls.to_vec();
        sent.resize(200_000, byte);
        let (answer, server) = world
            .attempt_raw(&sent[usize::from(byte != 0x16) * 11..], &Verdict::default())
            .await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{byte}: {answer}"
        );
        server.expect_err("no connection");
    }
    for known in 0..request(GET, &[]).len() {
        let mut world = World::plain();
        let mut io = world.dial().await;
        io.write_all(&request(GET, &[])[..known]).await.unwrap();
        io.shutdown().await.unwrap();
        let server = handshake(&mut world.listener, &Verdict::default()).await;
        assert!(matches!(server, Err(HandshakeError::Lost(_))), "{known}: {server:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_tls_and_with_it_do_not_fit() {
    let pki = Pki::new();
    let (server, client) = (pki.server_with(ClientAuth::None), pki.anonymous_client());
    let deadline = Instant::now() + Duration::from_secs(10);

    let mut secure = World::tls(&server, &client);
    let plain = carrier(&secure.net, &secure.listener, None, WsConfig::default(), "/tunnel");
    let claim = claim();
    let verdict = Verdict::default();
    let (agent, server) = tokio::join!(plain.dial(&claim, deadline), handshake(&mut secure.listener, &verdict));
    let agent = whole(&agent.unwrap_err());
    assert!(agent.contains("wss://"), "{agent}");
    server.unwrap_err();

    let mut plain = World::plain();
    let secure = carrier(
        &plain.net,
        &plain.listener,
        Some(&client),
        WsConfig::default(),
        "/tunnel",
    );
    let (agent, server) = tokio::join!(secure.dial(&claim, deadline), handshake(&mut plain.listener, &verdict));
    let (agent, server) = (whole(&agent.unwrap_err()), whole(&server.unwrap_err()));
    assert!(agent.contains("TLS"), "{agent}");
    assert!(server.contains("TLS"), "{server}");
}

/// A server that cannot take it says so as soon as it knows.
#[tokio::test(start_paused = true)]
async fn a_refused_attempt_is_lost() {
    let mut world = World::plain();
    let claim = claim();
    let deadline = Instant::now() + Duration::from_secs(10);
    let (agent, ()) = tokio::join!(world.carrier.dial(&claim, deadline), async {
        use tunnel_core::Listener;
        world.listener.accept().await.unwrap().refuse();
    });
    assert!(matches!(agent, Err(DialError::Lost { .. })), "{agent:?}");
}
