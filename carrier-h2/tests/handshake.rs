//! How connections begin, or do not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{sync::Arc, time::Duration};

use carrier_h2::{H2Carrier, H2Config, PROTOCOL};
use common::{World, raw};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tunnel_core::{Carrier, CloseCode, DialError, HandshakeError, Listener, Rejection};
use tunnel_tcp::{Accept, ClientSecurity, Dial};
use tunnel_testkit::{
    ends::{Ends, Verdict, claim},
    sim::{Net, Profile},
};

/// What an agent tells of a server that answers like this.
async fn dial(answer: &str) -> DialError {
    let net = Net::new(Profile::near());
    let mut accept = net.listen();
    let address = accept.address();
    let carrier = H2Carrier::new(address, ClientSecurity::Plain, Arc::new(net), H2Config::default());
    let claim = claim();
    let (dialled, ()) = tokio::join!(carrier.dial(&claim, Instant::now() + Duration::from_secs(10)), async {
        let mut io = accept.accept().await.unwrap().open().unwrap();
        let request = raw::head(&mut io).await;
        assert!(request.starts_with("GET /tunnel HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("upgrade: {PROTOCOL}\r\n")), "{request}");
        assert!(request.contains("authorization: Bearer s3cr3t\r\n"), "{request}");
        io.write_all(answer.as_bytes()).await.unwrap();
        let _ = io.shutdown().await;
        let _ = io.read_to_end(&mut Vec::new()).await;
    });
    dialled.expect_err("no tunnel")
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_welcome_is_explained() {
    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n";
    for (answer, label, said) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "protocol",
            "drops the upgrade",
        ),
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "protocol",
            "is the path right",
        ),
        (
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "protocol",
            "h2://",
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "unreachable",
            "cannot reach",
        ),
        (
            format!("{switched}Upgrade: websocket\r\n\r\n"),
            "protocol",
            "not tunnel-h2",
        ),
        (
            format!("{switched}Upgrade: tunnel-h2\r\n\r\n"),
            "protocol",
            "no header field tunnel-welcome",
        ),
        (
            format!("{switched}Upgrade: tunnel-h2\r\nTunnel-Welcome: AAAA\r\n\r\n"),
            "protocol",
            "frame",
        ),
        ("\x15\x03\x01\x00\x02\x02\x16".to_owned(), "protocol", "not HTTP/1.1"),
        (String::new(), "lost", "ended before the welcome"),
    ] {
        let error = dial(&answer).await;
        assert_eq!(error.label(), label, "{error}");
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let text: Vec<_> = causes.map(ToString::to_string).collect();
        assert!(text.join(": ").contains(said), "{text:?}");
    }
}

/// Asks a server for something, and gives its answer and what the server makes of it.
async fn ask(request: &str) -> (String, HandshakeError) {
    let mut world = World::plain(H2Config::default());
    let mut io = world.net.dial(&world.address).await.unwrap().io;
    let client = async {
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let server = async {
        let incoming = world.listener.accept().await.unwrap();
        incoming.handshake(&Verdict::default()).await.unwrap_err()
    };
    tokio::join!(client, server)
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_told_what_this_is() {
    for (request, status, label) in [
        ("GET / HTTP/1.1\r\nHost: gw\r\n\r\n", "404", "lost"),
        ("GET /tunnel HTTP/1.1\r\nHost: gw\r\n\r\n", "426", "lost"),
        (
            "POST /tunnel HTTP/1.1\r\nHost: gw\r\nContent-Length: 0\r\n\r\n",
            "405",
            "lost",
        ),
        (
            "GET /tunnel HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade\r\nUpgrade: tunnel-h2\r\n\r\n",
            "400",
            "rejected",
        ),
        (
            "GET /tunnel HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade\r\nUpgrade: tunnel-h2\r\nContent-Length: 1\r\n\r\nx",
            "400",
            "protocol",
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", "protocol"),
    ] {
        let (answer, error) = ask(request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) || status.is_empty(),
            "{request}: {answer}"
        );
        assert_eq!(error.label(), label, "{request}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_arrives_word_for_word() {
    let mut rejection = Rejection::new(CloseCode::CONFLICT, "another one holds \"node-7\", Zürich");
    rejection.not_before = Some(Duration::from_millis(1500));
    let mut world = World::plain(H2Config::default());
    let (agent, server) = world.attempt(&Verdict::reject(rejection.clone())).await;
    assert!(matches!(agent, Err(DialError::Rejected { rejection: seen, .. }) if seen == rejection));
    assert!(matches!(server, Err(HandshakeError::Rejected(seen)) if seen == rejection));
}

/// A server that goes on with something else than HTTP/2 after its welcome has not begun a connection.
#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_up_after_its_welcome_is_lost() {
    let ((), agent) = raw::server_that_leaves().await;
    assert_eq!(agent.unwrap_err().label(), "lost");
}
