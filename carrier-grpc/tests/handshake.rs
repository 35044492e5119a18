//! How agents and servers meet, and what they are told when they do not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::time::Duration;

use carrier_grpc::GrpcConfig;
use common::{
    World,
    raw::{self, Raw, claim_headers},
};
use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tunnel_core::{Carrier, CloseCode, DialError, HandshakeError, Listener, Rejection};
use tunnel_tcp::{ClientSecurity, Dial, ServerSecurity};
use tunnel_testkit::{
    ends::{Ends, Verdict, claim, echo, whole},
    pki::{Pki, security},
    sim::{Net, Profile},
};
use tunnel_tls::ClientAuth;

#[tokio::test(start_paused = true)]
async fn an_agent_and_a_server_meet_and_move_bytes() {
    let mut world = World::plain();
    let (agent, server) = world.connect().await;
    assert_eq!(agent.peer().carrier, "grpc");
    assert_eq!(server.peer().claim().unwrap().agent.as_str(), "node-7");
    assert_eq!(server.peer().claim().unwrap().credential, None);
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

#[tokio::test(start_paused = true)]
async fn the_welcome_does_not_wait_for_a_message() {
    let mut world = World::plain();
    let mut raw = Raw::new(&world.net, &world.address).await;
    let (call, _server) = tokio::join!(raw.call(claim_headers(&claim())), world.accept());
    let (head, _body) = call.response.await.unwrap().into_parts();
    assert_eq!(head.headers["content-type"], "application/grpc");
    assert!(head.headers.contains_key("tunnel-welcome-bin"));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_reaches_the_agent_whole_and_has_a_status() {
    let statuses = [
        (CloseCode::UNAUTHORIZED, "16"),
        (CloseCode::FORBIDDEN, "7"),
        (CloseCode::CONFLICT, "6"),
        (CloseCode::VERSION, "9"),
        (CloseCode::OVERLOADED, "8"),
        (CloseCode::SHUTDOWN, "14"),
        (CloseCode::PROTOCOL, "3"),
        (CloseCode::TIMEOUT, "4"),
        (CloseCode::INTERNAL, "13"),
    ];
    let mut world = World::plain();
    for (code, status) in statuses {
        let mut rejection = Rejection::new(code, "it is so: 100 % é");
        rejection.not_before = Some(Duration::from_secs(7));

        let (agent, server) = world.attempt(&Verdict::reject(rejection.clone())).await;
        let Err(DialError::Rejected { rejection: seen, .. }) = agent else {
            panic!("{agent:?}");
        };
        assert_eq!(seen, rejection);
        assert!(matches!(server, Err(HandshakeError::Rejected(_))), "{server:?}");

        let mut raw = Raw::new(&world.net, &world.address).await;
        let (call, incoming) = tokio::join!(raw.call(claim_headers(&claim())), world.listener.accept());
        let verdict = Verdict::reject(rejection);
        let (answer, _) = tokio::join!(call.status(), incoming.unwrap().handshake(&verdict));
        assert_eq!(answer.0, status);
        assert_eq!(answer.1["grpc-message"], "it%20is%20so:%20100%20%25%20%C3%A9");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_unavailable() {
    let mut world = World::plain();
    for is_dropped in [true, false] {
        let claim = claim();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        let (dialled, ()) = tokio::join!(world.carrier.dial(&claim, deadline), async {
            let incoming = world.listener.accept().await.unwrap();
            if is_dropped { drop(incoming) } else { incoming.refuse() }
        });
        let error = dialled.unwrap_err();
        assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
        assert!(whole(&error).contains("UNAVAILABLE"), "{}", whole(&error));
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_missing_or_garbage_is_refused_and_named() {
    let mut twice = claim_headers(&claim());
    twice.append("tunnel-claim-bin", "AA".parse().unwrap());
    let mut no_base64 = HeaderMap::new();
    no_base64.insert("tunnel-claim-bin", "***".parse().unwrap());
    let mut no_claim = HeaderMap::new();
    no_claim.insert("tunnel-claim-bin", "AAAA".parse().unwrap());
    let mut later = HeaderMap::new();
    // CLAIM with the version 300 alone.
    later.insert("tunnel-claim-bin", "AQQBAkEs".parse().unwrap());

    let mut world = World::plain();
    for (headers, status, text) in [
        (HeaderMap::new(), "3", "there%20is%20no"),
        (twice, "3", "several"),
        (no_base64, "3", "not%20base64"),
        (no_claim, "3", "one%20message"),
        (later, "9", "version"),
    ] {
        let mut raw = Raw::new(&world.net, &world.address).await;
        let (call, incoming) = tokio::join!(raw.call(headers), world.listener.accept());
        let verdict = Verdict::default();
        let (answer, shaken) = tokio::join!(call.status(), incoming.unwrap().handshake(&verdict));
        assert!(shaken.is_err());
        assert_eq!(answer.0, status, "{answer:?}");
        assert!(answer.1["grpc-message"].to_str().unwrap().contains(text), "{answer:?}");
        assert!(answer.1.contains_key("tunnel-rejection-bin"), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_tunnels_method_never_reaches_the_server() {
    let mut world = World::plain();
    let net = world.net.clone();
    let address = world.address.clone();
    let calls = async {
        let mut raw = Raw::new(&net, &address).await;
        for path in ["/", "/tunnel.v1.Tunnel/Other", "/tunnel.v2.Tunnel/Connect"] {
            let call = raw.send(raw::request("POST", path, "application/grpc")).await;
            assert_eq!(call.status().await.0, "12", "{path}");
        }
        for (method, kind, status) in [
            ("GET", "application/grpc", 405),
            ("POST", "text/plain", 415),
            ("GET", "", 415),
        ] {
            let call = raw.send(raw::request(method, carrier_grpc::METHOD, kind)).await;
            let answer = call.response.await.unwrap();
            assert_eq!(answer.status(), status, "{method} {kind}");
        }
    };
    world.serving(calls).await;
}

#[tokio::test(start_paused = true)]
async fn compressed_calls_are_refused() {
    let mut world = World::plain();
    let mut headers = claim_headers(&claim());
    headers.insert("grpc-encoding", "gzip".parse().unwrap());
    let mut raw = Raw::new(&world.net, &world.address).await;
    let (call, incoming) = tokio::join!(raw.call(headers), world.listener.accept());
    let verdict = Verdict::default();
    let (answer, shaken) = tokio::join!(call.status(), incoming.unwrap().handshake(&verdict));
    assert!(matches!(shaken, Err(HandshakeError::Protocol { .. })), "{shaken:?}");
    assert_eq!(answer.0, "12");
    assert_eq!(answer.1["grpc-accept-encoding"], "identity");
}

#[tokio::test(start_paused = true)]
async fn nothing_may_come_before_the_welcome() {
    let mut world = World::plain();
    let mut raw = Raw::new(&world.net, &world.address).await;
    let (mut call, incoming) = tokio::join!(raw.call(claim_headers(&claim())), world.listener.accept());
    call.tx.send_data(raw::packet("early"), false).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (answer, shaken) = tokio::join!(call.status(), incoming.unwrap().handshake(&Undecided));
    assert!(matches!(shaken, Err(HandshakeError::Protocol { .. })), "{shaken:?}");
    assert_eq!(answer.0, "3");
}

/// Never judges a claim.
#[derive(Debug)]
struct Undecided;

#[async_trait::async_trait]
impl tunnel_core::Admission for Undecided {
    async fn admit(&self, _: &tunnel_core::Arrival) -> Result<tunnel_core::Admitted, Rejection> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_ends_its_handshake() {
    let mut world = World::plain();
    let mut raw = Raw::new(&world.net, &world.address).await;
    let (call, incoming) = tokio::join!(raw.call(claim_headers(&claim())), world.listener.accept());
    drop(call);
    let shaken = incoming.unwrap().handshake(&Undecided).await;
    assert!(matches!(shaken, Err(HandshakeError::Lost(_))), "{shaken:?}");
}

#[tokio::test(start_paused = true)]
async fn http_1_clients_are_told_what_is_spoken_here() {
    let mut world = World::plain();
    let net = world.net.clone();
    let address = world.address.clone();
    let get = async {
        for request in [
            "GET / HTTP/1.1\r\n\r\n",
            "POST /tunnel.v1.Tunnel/Connect HTTP/1.1\r\n\r\n",
            "PRI me",
        ] {
            let mut io = net.dial(&address).await.unwrap().io;
            io.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            io.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 505 "), "{head}");
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
            assert!(body.contains("gRPC"), "{body}");
        }
    };
    world.serving(get).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_something_else_is_named() {
    for (says, words) in [
        ("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "HTTP/2"),
        ("SSH-2.0-OpenSSH_9.2p1\r\n", "HTTP/2"),
    ] {
        let world = World::plain();
        let mut accept = world.net.listen();
        let carrier = carrier_grpc::GrpcCarrier::new(
            accept.address(),
            ClientSecurity::Plain,
            std::sync::Arc::new(world.net.clone()),
            GrpcConfig::default(),
        );
        let server = async {
            let mut io = tunnel_tcp::Accept::accept(&mut accept).await.unwrap().open().unwrap();
            io.write_all(says.as_bytes()).await.unwrap();
            io.read_to_end(&mut Vec::new()).await
        };
        let claim = claim();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        let carrier = carrier.unwrap();
        let (dialled, _) = tokio::join!(carrier.dial(&claim, deadline), server);
        let error = dialled.unwrap_err();
        assert!(matches!(error, DialError::Protocol { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn tls_and_clear_text_do_not_mix_and_both_ends_learn_it() {
    let pki = Pki::new();
    let (server, client) = (pki.server(), pki.client());
    let (server, client) = security(Some((&server, &client)), carrier_grpc::ALPN);
    let net = Net::new(Profile::default());
    let mut world = World::between(&net, (ServerSecurity::Plain, client), GrpcConfig::default());
    let error = world.fail().await;
    assert!(matches!(error, DialError::Tls { .. }), "{error:?}");

    let mut world = World::between(&net, (server, ClientSecurity::Plain), GrpcConfig::default());
    let error = world.fail().await;
    assert!(matches!(error, DialError::Protocol { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_without_http_2_is_named() {
    let pki = Pki::new();
    let (server, client) = (pki.server(), pki.client());
    for alpn in [&[b"http/1.1".as_slice()][..], &[]] {
        let (_, client) = security(Some((&server, &client)), carrier_grpc::ALPN);
        let ends = (ServerSecurity::tls(&server, alpn), client);
        let mut world = World::between(&Net::new(Profile::default()), ends, GrpcConfig::default());
        let error = world.fail().await;
        assert!(matches!(error, DialError::Tls { .. }), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_not_trusted_is_named() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (server, client) = (pki.server(), pki.stranger(&other));
    let mut world = World::tls(&server, &client);
    let error = world.fail().await;
    assert!(matches!(error, DialError::Tls { .. }), "{error:?}");

    let server = pki.server_with(ClientAuth::Required(pki.trust()));
    let client = pki.anonymous_client();
    let mut world = World::tls(&server, &client);
    let error = world.fail().await;
    assert!(matches!(error, DialError::Tls { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_told_in_time() {
    let mut world = World::plain();
    world.net.silence();
    let start = tokio::time::Instant::now();
    let error = world.fail().await;
    assert!(matches!(error, DialError::TimedOut { .. }), "{error:?}");
    assert_eq!(start.elapsed().as_secs(), 10);
}
