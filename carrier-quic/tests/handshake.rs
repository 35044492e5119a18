//! Who gets a connection, and what the others are told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{sync::Arc, time::Duration};

use carrier_quic::{ALPN, QuicConfig};
use common::{AGENT, STRANGER, World, net::Link, raw};
use tokio::time::Instant;
use tunnel_core::{Carrier, CloseCode, ConnectionError, DialError, HandshakeError, Listener, Rejection};
use tunnel_testkit::{
    ends::{Attempt, Ends, Verdict, claim},
    pki::Pki,
};
use tunnel_tls::{ClientAuth, ClientTls, ServerTls};

fn world() -> World {
    World::new(QuicConfig::default(), Link::default())
}

fn world_with(tls: impl FnOnce(&Pki) -> (ServerTls, ClientTls)) -> World {
    let pki = Arc::new(Pki::new());
    let (server, client) = tls(&pki);
    World::with_tls(pki, &server, &client, QuicConfig::default(), Link::default())
}

/// What the agent and the server say of an attempt that must fail on both sides.
fn words((dialled, accepted): Attempt) -> (String, String) {
    (dialled.unwrap_err().to_string(), accepted.unwrap_err().to_string())
}

#[tokio::test(start_paused = true)]
async fn both_ends_know_each_other_before_the_first_stream() {
    let (agent, server) = world().connect().await;
    let peer = server.peer();
    assert_eq!(peer.identity.dns, ["node-7.test"]);
    assert_eq!(peer.claim().unwrap().agent, claim().agent);
    assert_eq!(peer.remote_addr, AGENT);
    let peer = agent.peer();
    assert_eq!(peer.identity.dns, ["server.test"]);
    assert_eq!(peer.welcome().unwrap().server.to_string(), "server-1");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_arrives_whole() {
    let mut rejection = Rejection::new(CloseCode::OVERLOADED, "too many agents");
    rejection.not_before = Some(Duration::from_secs(30));
    let (dialled, accepted) = world().attempt(&Verdict::reject(rejection.clone())).await;
    assert!(matches!(dialled, Err(DialError::Rejected { rejection: got, .. }) if got == rejection));
    assert!(matches!(accepted, Err(HandshakeError::Rejected(got)) if got == rejection));
}

#[tokio::test(start_paused = true)]
async fn a_missing_client_certificate_is_explained_to_both() {
    let mut world = world_with(|pki| (pki.server(), pki.anonymous_client()));
    let (agent, server) = words(world.attempt(&Verdict::default()).await);
    assert!(
        agent.ends_with("the peer requires a certificate, and this side sent none"),
        "{agent}"
    );
    assert!(
        server.ends_with("the peer sent no certificate, and this side requires one"),
        "{server}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_certificate_of_another_ca_is_explained_to_both() {
    let mut world = world_with(|pki| (pki.server(), pki.stranger(&Pki::new())));
    let (agent, server) = words(world.attempt(&Verdict::default()).await);
    assert!(
        agent.ends_with("it is not signed by a CA that the peer trusts"),
        "{agent}"
    );
    assert!(
        server.ends_with("the peer's certificate is not signed by a CA that this side trusts"),
        "{server}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_certificate_of_another_ca_is_explained_to_both() {
    let mut world = world_with(|pki| (Pki::new().server_with(ClientAuth::None), pki.client()));
    let (agent, server) = words(world.attempt(&Verdict::default()).await);
    assert!(
        agent.ends_with("the peer's certificate is not signed by a CA that this side trusts"),
        "{agent}"
    );
    assert!(
        server.ends_with("it is not signed by a CA that the peer trusts"),
        "{server}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_anonymous_agent_connects_where_no_certificate_is_asked_for() {
    let mut world = world_with(|pki| (pki.server_with(ClientAuth::None), pki.anonymous_client()));
    let (_agent, server) = world.connect().await;
    assert!(server.peer().identity.is_anonymous());
}

#[tokio::test(start_paused = true)]
async fn another_protocol_is_turned_away_in_the_tls_handshake() {
    let mut world = world();
    let tls = world.pki.client();
    let (dialled, accepted) = tokio::join!(raw::dial(&world.net, STRANGER, &tls, b"h3"), async {
        world
            .listener
            .accept()
            .await
            .unwrap()
            .handshake(&Verdict::default())
            .await
    });
    assert!(dialled.is_err());
    let error = accepted.unwrap_err().to_string();
    assert!(error.contains("ALPN"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_never_comes_ends_the_attempt_and_delays_nobody() {
    let mut world = world();
    let tls = world.pki.client();
    let net = world.net.clone();
    let started = Instant::now();
    let mute = tokio::spawn(async move { raw::dial(&net, STRANGER, &tls, ALPN).await });
    let incoming = world.listener.accept().await.unwrap();
    let incoming = tokio::spawn(async move { incoming.handshake(&Verdict::default()).await });
    let (_endpoint, quic) = mute.await.unwrap().unwrap();
    world.connect().await;
    assert!(started.elapsed() < Duration::from_secs(1));
    let error = incoming.await.unwrap().unwrap_err();
    assert!(
        matches!(&error, HandshakeError::Lost(error) if error.code() == Some(CloseCode::TIMEOUT)),
        "{error}"
    );
    let quinn::ConnectionError::ApplicationClosed(close) = quic.closed().await else {
        panic!("closed without a code");
    };
    assert_eq!(close.error_code.into_inner(), CloseCode::TIMEOUT.value().into_inner());
}

/// What the server makes of these bytes in place of a claim.
async fn claim_of(bytes: &[u8]) -> (HandshakeError, quinn::ConnectionError) {
    let mut world = world();
    let tls = world.pki.client();
    let net = world.net.clone();
    let (closed, accepted) = tokio::join!(
        async {
            let (_endpoint, quic) = raw::dial(&net, STRANGER, &tls, ALPN).await.unwrap();
            let (mut tx, _rx) = quic.open_bi().await.unwrap();
            // The server may close before it has taken all.
            let _ = tx.write_all(bytes).await;
            let _ = tx.finish();
            quic.closed().await
        },
        async {
            world
                .listener
                .accept()
                .await
                .unwrap()
                .handshake(&Verdict::default())
                .await
        }
    );
    (accepted.unwrap_err(), closed)
}

#[tokio::test(start_paused = true)]
async fn what_is_no_claim_is_named() {
    let endless = [0x40, 0x7f, 0x00].repeat(100_000);
    let cases: [(&[u8], &str); 6] = [
        (b"GET / HTTP/1.1\r\n", "does not speak the tunnel protocol"),
        (
            b"\x01\xbf\xff\xff\xff",
            "the CLAIM frame announces 1073741823 bytes; at most 65536 are allowed",
        ),
        (b"\x04\x00", "a HEAD frame came where CLAIM was expected"),
        (b"\x01\x05\x01", "the bytes ended inside the CLAIM frame"),
        (b"", "the bytes ended inside the header of a frame"),
        (&endless, "no message within"),
    ];
    for (bytes, expected) in cases {
        let (error, closed) = claim_of(bytes).await;
        assert!(error.to_string().contains(expected), "{error}");
        let quinn::ConnectionError::ApplicationClosed(close) = closed else {
            panic!("{closed}");
        };
        assert_eq!(close.error_code.into_inner(), CloseCode::PROTOCOL.value().into_inner());
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_nobody_speaks_is_rejected_in_words() {
    let (error, _) = claim_of(b"\x01\x03\x01\x01\x09").await;
    assert!(
        matches!(&error, HandshakeError::Rejected(rejection) if rejection.code == CloseCode::VERSION),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn garbage_on_the_port_disturbs_nobody() {
    let mut world = world();
    let socket = world.net.socket(STRANGER);
    let mut random = fastrand::Rng::with_seed(3);
    for round in 0..1000 {
        let mut bytes = vec![0; random.usize(1..1452)];
        random.fill(&mut bytes);
        if round % 2 == 0 {
            // The header of an Initial packet of QUIC version 1.
            bytes.splice(..0, [0xc3, 0, 0, 0, 1, 8]);
            bytes.truncate(1400);
        }
        socket.send_raw(common::SERVER, &bytes);
    }
    let claim = claim();
    let verdict = Verdict::default();
    let connected = tokio::select! {
        connected = world.carrier.dial(&claim, Instant::now() + Duration::from_secs(10)) => connected,
        () = async {
            loop {
                // Garbage that looks like an Initial packet may come as an attempt; it fails.
                let incoming = world.listener.accept().await.unwrap();
                if incoming.remote_addr() == AGENT {
                    incoming.handshake(&verdict).await.unwrap().closed().await;
                }
            }
        } => unreachable!(),
    };
    connected.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refused_attempt_is_unreachable() {
    let mut world = world();
    let claim = claim();
    let (dialled, ()) = tokio::join!(
        world.carrier.dial(&claim, Instant::now() + Duration::from_secs(10)),
        async { world.listener.accept().await.unwrap().refuse() }
    );
    assert!(matches!(dialled, Err(DialError::Unreachable { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_times_out_at_the_deadline() {
    let world = world();
    world.net.set_silent(true);
    let started = Instant::now();
    let dialled = world.carrier.dial(&claim(), started + Duration::from_secs(3)).await;
    assert!(matches!(dialled, Err(DialError::TimedOut { .. })));
    assert_eq!(started.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_crowded_server_makes_newcomers_prove_their_address() {
    let mut took = Vec::new();
    for threshold in [0, 1] {
        let config = QuicConfig::builder().retry_threshold(threshold).build().unwrap();
        let mut world = World::new(config, Link::default());
        let started = Instant::now();
        world.connect().await;
        took.push(started.elapsed());
    }
    assert_eq!(took[0] - took[1], 2 * Link::default().latency, "one round trip more");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_dropped_ends_at_the_other_side() {
    let mut world = world();
    let claim = claim();
    let incoming = tokio::select! {
        _ = world.carrier.dial(&claim, Instant::now() + Duration::from_secs(10)) => unreachable!(),
        incoming = world.listener.accept() => incoming.unwrap(),
    };
    let error = incoming.handshake(&Verdict::default()).await.unwrap_err();
    assert!(
        matches!(error, HandshakeError::Lost(ConnectionError::Transport(_))),
        "{error:?}"
    );
}
