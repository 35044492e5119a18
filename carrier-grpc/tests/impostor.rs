//! Servers that break the rules of gRPC or of HTTP/2, and what becomes of the agent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{error::Error as _, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use common::{
    World,
    raw::{RawEnd, message, packet},
};
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tunnel_core::{
    Carrier, CloseCode, Connection, ConnectionError, DialError, Initiator, Welcome,
    proto::mux::{CloseReason, Side},
};
use tunnel_tcp::Accept;
use tunnel_testkit::ends::{claim, head};

/// How long an agent tries.
const PATIENCE: Duration = Duration::from_secs(10);

type Dialled = JoinHandle<Result<Arc<dyn Connection>, DialError>>;

/// A call of an agent, in the hands of the test.
struct Answering {
    dialled: Dialled,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    /// Asks the agent to make no more calls.
    goodbye: mpsc::Sender<()>,
    connection: JoinHandle<()>,
}

impl Answering {
    async fn new() -> Self {
        let net = World::plain().net;
        let mut accept = net.listen();
        let address = accept.address();
        let security = tunnel_tcp::ClientSecurity::Plain;
        let config = carrier_grpc::GrpcConfig::default();
        let carrier = carrier_grpc::GrpcCarrier::new(address, security, Arc::new(net), config).unwrap();
        let dialled = tokio::spawn(async move { carrier.dial(&claim(), Instant::now() + PATIENCE).await });
        let io = accept.accept().await.unwrap().open().unwrap();
        let mut http = h2::server::handshake(io).await.unwrap();
        let (request, respond) = http.accept().await.unwrap().unwrap();
        let (goodbye, mut said) = mpsc::channel(1);
        let connection = tokio::spawn(async move {
            loop {
                tokio::select! {
                    call = http.accept() => match call {
                        Some(Ok(call)) => drop(call),
                        _ => return,
                    },
                    Some(()) = said.recv() => http.graceful_shutdown(),
                }
            }
        });
        Self {
            dialled,
            request,
            respond,
            goodbye,
            connection,
        }
    }

    /// Answers with these headers alone, and gives what the agent makes of it.
    async fn headers(mut self, status: u16, headers: HeaderMap) -> DialError {
        let mut answer = Response::new(());
        *answer.status_mut() = status.try_into().unwrap();
        *answer.headers_mut() = headers;
        self.respond.send_response(answer, true).unwrap();
        self.dialled.await.unwrap().unwrap_err()
    }

    /// Lets the agent in.
    async fn welcome(mut self) -> (RawEnd, Arc<dyn Connection>, mpsc::Sender<()>, JoinHandle<()>) {
        let mut answer = Response::new(());
        *answer.headers_mut() = welcome();
        let tx = self.respond.send_response(answer, false).unwrap();
        let end = RawEnd::new(Side::Server, tx, self.request.into_body());
        let agent = self.dialled.await.unwrap().unwrap();
        (end, agent, self.goodbye, self.connection)
    }
}

fn welcome() -> HeaderMap {
    let welcome = Welcome::new("server-1".parse().unwrap()).encode();
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/grpc".parse().unwrap());
    headers.insert("tunnel-welcome-bin", STANDARD_NO_PAD.encode(welcome).parse().unwrap());
    headers
}

#[tokio::test(start_paused = true)]
async fn a_welcome_that_is_none_is_refused_and_named() {
    let mut garbage = welcome();
    garbage.insert("tunnel-welcome-bin", "***".parse().unwrap());
    let mut twice = welcome();
    twice.append("tunnel-welcome-bin", "AA".parse().unwrap());
    let mut other = welcome();
    other.insert("tunnel-welcome-bin", "AAAA".parse().unwrap());
    for (headers, words) in [
        (garbage, "tunnel-welcome-bin is not base64"),
        (twice, "several tunnel-welcome-bin"),
        (other, "tunnel-welcome-bin does not hold one message"),
        (HeaderMap::new(), "something else than gRPC"),
    ] {
        let error = Answering::new().await.headers(200, headers).await;
        assert!(matches!(error, DialError::Protocol { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = Answering::new().await.headers(500, welcome()).await;
    assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_welcome_that_does_not_fit_is_refused() {
    let mut headers = welcome();
    for index in 0..20 {
        let name: http::HeaderName = format!("x-{index}").parse().unwrap();
        headers.insert(name, "a".repeat(10_000).parse().unwrap());
    }
    let error = Answering::new().await.headers(200, headers).await;
    assert!(!matches!(error, DialError::TimedOut { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_welcome_to_nothing_is_a_connection_that_fails() {
    let mut answering = Answering::new().await;
    let mut answer = Response::new(());
    *answer.headers_mut() = welcome();
    answering.respond.send_response(answer, true).unwrap();
    let agent = answering.dialled.await.unwrap().unwrap();
    let error = agent.closed().await;
    assert!(matches!(error, ConnectionError::Transport(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up_with_its_connection() {
    let answering = Answering::new().await;
    let since = Instant::now();
    let error = answering.dialled.await.unwrap().unwrap_err();
    assert!(matches!(error, DialError::TimedOut { .. }), "{error:?}");
    assert!(since.elapsed() <= PATIENCE);
    timeout(Duration::from_secs(2), answering.connection)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn messages_that_break_the_rules_close_the_connection_and_both_ends_learn_why() {
    for (data, words) in [
        (message(1, b"x"), "a message is compressed"),
        (message(7, b"x"), "a message has the flag 7"),
        (Bytes::from_static(&[0, 0, 2, 4, 1]), "announces 132097 bytes"),
        (message(0, b"\x0a\x05abc"), "a packet ends inside a field"),
        (packet(vec![0x13]), "frame"),
    ] {
        let (mut end, agent, ..) = Answering::new().await.welcome().await;
        end.speak();
        end.tx.send_data(data, false).unwrap();
        let (reason, _) = end.verdict().await;
        let Some(CloseReason::Remote { code, text }) = reason else {
            panic!("{words}: {reason:?}")
        };
        assert_eq!(code, CloseCode::PROTOCOL);
        assert!(text.as_str().contains(words), "{text}");
        let error = agent.closed().await;
        assert_eq!(
            (error.initiator(), error.code()),
            (Initiator::Local, Some(CloseCode::PROTOCOL))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_without_a_close_is_a_failure_and_says_what_it_was() {
    let status = |value: &'static str| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", value.parse().unwrap());
        trailers.insert("grpc-message", "no healthy upstream".parse().unwrap());
        trailers.insert("grpc-status-details-bin", "*".parse().unwrap());
        trailers
    };
    for (trailers, words) in [
        (status("14"), "UNAVAILABLE, no healthy upstream"),
        (status("0"), "without a close of the connection"),
        (HeaderMap::new(), "without a status"),
    ] {
        let (mut end, agent, ..) = Answering::new().await.welcome().await;
        end.speak();
        end.tx.send_trailers(trailers).unwrap();
        let error = agent.closed().await;
        assert!(matches!(error, ConnectionError::Transport(_)), "{error:?}");
        let cause = error.source().unwrap().to_string();
        assert!(cause.contains(words), "{cause}");
    }
    for is_cut in [true, false] {
        let (mut end, agent, _, connection) = Answering::new().await.welcome().await;
        if is_cut {
            connection.abort();
        } else {
            end.tx.send_reset(Reason::INTERNAL_ERROR);
        }
        let error = agent.closed().await;
        assert!(matches!(error, ConnectionError::Transport(_)), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_of_http_2_is_said_to_be_a_drain_and_leaves_the_call_alone() {
    let (mut end, agent, goodbye, _connection) = Answering::new().await.welcome().await;
    sleep(Duration::from_secs(1)).await;
    assert!(timeout(Duration::ZERO, agent.draining()).await.is_err());
    goodbye.send(()).await.unwrap();
    timeout(Duration::from_secs(1), agent.draining()).await.unwrap();
    end.speak();
    let opened = tokio::spawn({
        let agent = Arc::clone(&agent);
        async move { agent.open(head()).await }
    });
    end.accept().await;
    opened.await.unwrap().unwrap();
    agent.close(CloseCode::DONE, "");
    let (reason, _) = end.verdict().await;
    assert!(
        matches!(
            reason,
            Some(CloseReason::Remote {
                code: CloseCode::DONE,
                ..
            })
        ),
        "{reason:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_nothing_holds_little_and_is_given_up() {
    let (mut end, agent, _goodbye, connection) = Answering::new().await.welcome().await;
    end.speak();
    let opened = tokio::spawn({
        let agent = Arc::clone(&agent);
        async move { agent.open(head()).await.unwrap() }
    });
    end.accept().await;
    let mut stream = opened.await.unwrap();
    let since = Instant::now();
    let mut taken = 0;
    while stream.tx.send_all(Bytes::from(vec![7; 16 * 1024])).await.is_ok() {
        taken += 16;
        assert!(taken < 1024, "it takes no end");
    }
    assert!((128..=400).contains(&taken), "{taken} KiB");
    let error = agent.closed().await;
    assert!(matches!(error, ConnectionError::TimedOut { .. }), "{error:?}");
    assert!(since.elapsed() <= Duration::from_secs(17), "{:?}", since.elapsed());
    // HTTP/2 and its tasks go, too, though nothing was taken.
    drop(agent);
    timeout(Duration::from_secs(5), connection).await.unwrap().unwrap();
}
