//! What an agent makes of answers that are no welcome.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{sync::Arc, time::Duration};

use carrier_ws::{WsCarrier, WsConfig, WsUrl};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tunnel_core::{Carrier, CloseCode, DialError};
use tunnel_tcp::{Accept, BoxIo};
use tunnel_testkit::{
    ends::{claim, whole},
    pki::Pki,
    sim::{Net, Profile, SimAcceptor},
};

/// A server of which the test plays the part.
struct Other {
    net: Net,
    acceptor: SimAcceptor,
    config: WsConfig,
}

impl Other {
    fn new() -> Self {
        let net = Net::new(Profile::default());
        Self {
            acceptor: net.listen(),
            net,
            config: WsConfig::default(),
        }
    }

    /// Has an agent come, and gives it what `answer` makes of its request. The pipe ends after that.
    async fn answer(&mut self, answer: impl AsyncFnOnce(String, &mut BoxIo)) -> DialError {
        let after_the_request = async |io: &mut BoxIo| {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(io.read_u8().await.unwrap());
            }
            answer(String::from_utf8(head).unwrap(), io).await;
        };
        self.answer_early(after_the_request).await
    }

    async fn answer_early(&mut self, answer: impl AsyncFnOnce(&mut BoxIo)) -> DialError {
        let port = self.acceptor.local_addr().unwrap().port();
        let url: WsUrl = format!("ws://server.test:{port}").parse().unwrap();
        let carrier = WsCarrier::new(url, None, Arc::new(self.net.clone()), self.config.clone()).unwrap();
        let claim = claim();
        let (dialled, ()) = tokio::join!(carrier.dial(&claim, Instant::now() + Duration::from_secs(10)), async {
            answer(&mut self.acceptor.accept().await.unwrap().open().unwrap()).await;
        });
        dialled.expect_err("no connection")
    }

    async fn says(&mut self, text: &str) -> DialError {
        self.answer(async |_, io| write(io, text.as_bytes()).await).await
    }
}

async fn write(io: &mut BoxIo, bytes: &[u8]) {
    // The agent may have heard enough.
    let _ = io.write_all(bytes).await;
    let _ = io.shutdown().await;
}

/// What goes with the key of a request.
fn accept(request: &str) -> String {
    let key = request
        .lines()
        .find_map(|line| line.strip_prefix("sec-websocket-key: "));
    tungstenite::handshake::derive_accept_key(key.unwrap().as_bytes())
}

/// Says every status of those that a proxy may give, and what the agent tells people.
#[tokio::test(start_paused = true)]
async fn a_status_is_explained() {
    let mut other = Other::new();
    for (status, fields, label, text) in [
        ("200 OK", "", "protocol", "drops the upgrade"),
        (
            "301 Moved",
            "Location: https://elsewhere.example/\r\n",
            "protocol",
            "redirect to https://elsewhere.example/",
        ),
        ("302 Found", "", "protocol", "redirect, which is not followed"),
        ("400 Bad Request", "", "protocol", "wss://?"),
        ("401 Unauthorized", "", "protocol", "who asks"),
        ("403 Forbidden", "", "protocol", "does not let this agent through"),
        ("404 Not Found", "", "protocol", "is the path right"),
        ("407 Proxy Authentication Required", "", "protocol", "who asks"),
        ("414 URI Too Long", "", "protocol", "too long"),
        ("426 Upgrade Required", "", "protocol", "upgrades"),
        ("429 Too Many Requests", "", "protocol", "no more requests"),
        (
            "429 Too Many Requests",
            "Retry-After: 30\r\n",
            "OVERLOADED",
            "429 Too Many Requests",
        ),
        ("431 Fields Too Large", "", "protocol", "in the claim"),
        ("500 Internal Server Error", "", "protocol", "500"),
        (
            "502 Bad Gateway",
            "",
            "unreachable",
            "cannot reach the tunnel-server behind it",
        ),
        (
            "503 Service Unavailable",
            "",
            "unreachable",
            "cannot reach the tunnel-server behind it",
        ),
        ("503 Service Unavailable", "Retry-After: 86400\r\n", "OVERLOADED", "503"),
        (
            "503 Service Unavailable",
            "Retry-After: Tue, 24 Nov 2026 08:00:00 GMT\r\n",
            "unreachable",
            "503",
        ),
        ("504 Gateway Timeout", "", "unreachable", "cannot reach"),
        ("600 What", "", "protocol", "600"),
    ] {
        let error = other
            .says(&format!("HTTP/1.1 {status}\r\n{fields}Content-Length: 0\r\n\r\n"))
            .await;
        let said = whole(&error);
        assert!(
            said.contains(text) && said.contains("ws://server.test"),
            "{status}: {said}"
        );
        if let DialError::Rejected { rejection, .. } = &error {
            assert_eq!(rejection.code, CloseCode::OVERLOADED);
            let wait = rejection.not_before.unwrap();
            assert!(
                (30..=300).contains(&wait.as_secs()),
                "nobody keeps an agent away for a day: {wait:?}"
            );
        } else {
            assert_eq!(error.label(), label, "{status}: {error:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_request_is_suspected_to_be_too_long() {
    let mut other = Other::new();
    other.config = WsConfig::builder().header("X", &"y".repeat(9000)).build().unwrap();
    let error = whole(&other.says("HTTP/1.1 400 Bad Request\r\n\r\n").await);
    assert!(
        error.contains("too long for something on the way") && error.contains("about 9"),
        "{error}"
    );
}

/// Whoever does not like the beginning of a request need not read the rest.
#[tokio::test(start_paused = true)]
async fn an_early_answer_counts() {
    let mut other = Other::new();
    other.net.set_profile(Profile {
        buffer: 1000,
        ..Profile::default()
    });
    other.config = WsConfig::builder().header("X", &"y".repeat(9000)).build().unwrap();
    let refusal = async |io: &mut BoxIo| write(io, b"HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\n\r\n").await;
    let error = other.answer_early(refusal).await;
    assert!(whole(&error).contains("too long for something on the way"), "{error:?}");
}

/// A switch that is not what was asked for, and what is said of it.
#[tokio::test(start_paused = true)]
async fn a_wrong_switch_is_refused() {
    let good = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ACCEPT\r\n\
                Sec-WebSocket-Protocol: tunnel.v1\r\nTunnel-Welcome: Ah4BAQECCHNlcnZlci0xAwEBBASAAEAABQJnEAYCU4g\r\n";
    let without = |name: &str| -> String {
        let lines = good.split_inclusive("\r\n").filter(|line| !line.starts_with(name));
        lines.collect()
    };
    let mut other = Other::new();
    for (fields, text) in [
        (without("Upgrade"), "not WebSocket"),
        (without("Connection"), "not WebSocket"),
        (without("Upgrade") + "Upgrade: h2c\r\n", "not WebSocket"),
        (without("Sec-WebSocket-Accept"), "Sec-WebSocket-Accept"),
        (good.replace("ACCEPT", common::ACCEPT), "Sec-WebSocket-Accept"),
        (without("Sec-WebSocket-Protocol"), "subprotocol tunnel.v1"),
        (good.replace("tunnel.v1", "chat"), "subprotocol tunnel.v1"),
        (
            good.to_owned() + "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            "extension",
        ),
        (without("Tunnel-Welcome"), "no header field tunnel-welcome"),
        (good.to_owned() + "Tunnel-Welcome: AA\r\n", "more than once"),
        (without("Tunnel-Welcome") + "Tunnel-Welcome: ***\r\n", "base64url"),
        (without("Tunnel-Welcome") + "Tunnel-Welcome: AAAA\r\n", "frame"),
    ] {
        let error = other
            .answer(async |request, io| {
                let fields = fields.replace("ACCEPT", &accept(&request));
                write(
                    io,
                    format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n").as_bytes(),
                )
                .await;
            })
            .await;
        assert!(matches!(error, DialError::Protocol { .. }), "{fields}: {error:?}");
        assert!(whole(&error).contains(text), "{fields}: {}", whole(&error));
    }
}

/// What is not even HTTP.
#[tokio::test(start_paused = true)]
async fn anything_else_is_named() {
    let mut other = Other::new();
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(300_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(100));
    for (answer, label, text) in [
        ("", "lost", "ended before the welcome"),
        ("HTTP/1.1 1", "lost", "ended before the welcome"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "protocol", "not HTTP/1.1"),
        ("\x15\x03\x03\x00\x02\x02\x46", "protocol", "wss://?"),
        ("HTTP/2 200 OK\r\n\r\n", "protocol", "not HTTP/1.1"),
        (&long, "protocol", "longer than any"),
        (&many, "protocol", "longer than any"),
    ] {
        let error = other.says(answer).await;
        let shown: String = answer.chars().take(40).collect();
        assert_eq!(error.label(), label, "{shown}: {error:?}");
        assert!(whole(&error).contains(text), "{shown}: {}", whole(&error));
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_deadline() {
    let start = Instant::now();
    for answer in ["", "HTTP/1.1 101 Switching", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let error = Other::new()
            .answer(async |_, io| {
                io.write_all(answer.as_bytes()).await.unwrap();
                io.flush().await.unwrap();
                let _ = io.read_u8().await;
            })
            .await;
        assert!(matches!(error, DialError::TimedOut { .. }), "{error:?}");
    }
    assert_eq!(start.elapsed().as_secs(), 30);
}

/// A slow drip of header bytes is no way around the deadline either.
#[tokio::test(start_paused = true)]
async fn a_dripping_answer_ends_at_the_deadline() {
    let error = Other::new()
        .answer(async |_, io| {
            for byte in b"HTTP/1.1 101 Switching Protocols\r\nX: "
                .iter()
                .chain(std::iter::repeat(&b'y'))
            {
                if io.write_all(&[*byte]).await.is_err() || io.flush().await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
    assert!(matches!(error, DialError::TimedOut { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn the_request_has_what_rfc_6455_asks_for() {
    let mut other = Other::new();
    other.config = WsConfig::builder()
        .header("Host", "gw.example")
        .header("Cookie", "a=b")
        .build()
        .unwrap();
    let mut keys = Vec::new();
    for _ in 0..2 {
        let mut seen = String::new();
        other
            .answer(async |request, io| {
                seen = request;
                write(io, b"HTTP/1.1 404 Not Found\r\n\r\n").await;
            })
            .await;
        assert!(seen.starts_with("GET /tunnel HTTP/1.1\r\n"), "{seen}");
        for line in [
            "host: gw.example\r\n",
            "connection: Upgrade\r\n",
            "upgrade: websocket\r\n",
            "sec-websocket-version: 13\r\n",
            "sec-websocket-protocol: tunnel.v1\r\n",
            "cookie: a=b\r\n",
            &format!("tunnel-claim: {}\r\n", common::CLAIM),
        ] {
            assert_eq!(seen.matches(line).count(), 1, "{line} in {seen}");
        }
        keys.push(accept(&seen));
    }
    assert_ne!(keys[0], keys[1], "a key is used once");
}

#[tokio::test(start_paused = true)]
async fn wss_needs_to_know_whom_to_trust() {
    let net = Arc::new(Net::new(Profile::default()));
    let url: WsUrl = "wss://server.test".parse().unwrap();
    let carrier = |tls| WsCarrier::new(url.clone(), tls, net.clone(), WsConfig::default());
    assert!(matches!(carrier(None), Err(DialError::Unusable(_))));
    let shown = format!("{:?}", carrier(Some(&Pki::new().client())).unwrap());
    assert!(
        shown.contains("secure: true") && !shown.contains("PRIVATE KEY"),
        "{shown}"
    );
}
