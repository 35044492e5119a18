//! Peers that break the rules, or keep them in ways that nobody expects.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use carrier_h2::H2Config;
use common::{
    World,
    raw::{self, RawServer},
    with,
};
use h2::Reason;
use http::Request;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tunnel_core::{
    CloseCode, Connection, ConnectionError, DialError, Initiator, RecvError, StreamCode,
    proto::{
        VarInt,
        mux::{Config, Frame, Hello, Side, StreamId, Windows},
    },
};
use tunnel_testkit::ends::head;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PROMPT: Duration = Duration::from_secs(1);

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![len[1], len[2], len[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

async fn end_of(connection: &Arc<dyn Connection>) -> ConnectionError {
    timeout(2 * PROMPT, connection.closed()).await.expect("it ends")
}

/// What an agent makes of bytes behind its welcome.
async fn agent_given(bytes: &[u8]) -> ConnectionError {
    let begin = [PREFACE, &frame(4, 0, 0, &[])].concat();
    let (mut io, agent) = raw::server(&begin).await;
    let agent = agent.unwrap();
    let error = tokio::join!(end_of(&agent), async {
        // The agent may have heard enough.
        let _ = io.write_all(bytes).await;
        let _ = io.flush().await;
        let _ = io.read_to_end(&mut Vec::new()).await;
    });
    error.0
}

#[tokio::test(start_paused = true)]
async fn frames_that_break_http2_end_the_connection() {
    for (what, bytes) in [
        ("DATA of no stream", frame(0, 0, 0, b"x")),
        ("DATA of an idle stream", frame(0, 0, 7, b"x")),
        ("HEADERS that are no HPACK", frame(1, 4, 1, &[0xff; 40])),
        ("a long frame", frame(0, 0, 1, &vec![0; 70_000])),
        ("a short PING", frame(6, 0, 0, &[0; 7])),
        ("WINDOW_UPDATE by nothing", frame(8, 0, 0, &[0; 4])),
        ("CONTINUATION of nothing", frame(9, 4, 1, &[])),
        ("PUSH_PROMISE from a client", frame(5, 4, 1, &[0, 0, 0, 2])),
        (
            "SETTINGS that cannot be",
            frame(4, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        ),
    ] {
        let error = agent_given(&bytes).await;
        assert_eq!(error.initiator(), Initiator::Local, "{what}: {error}");
        assert_eq!(error.code(), Some(CloseCode::PROTOCOL), "{what}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_not_kept() {
    // HEADERS without an end, and CONTINUATION for ever (CVE-2024-27316).
    let mut bytes = frame(1, 0, 1, &[0x82; 100]);
    for _ in 0..10_000 {
        bytes.extend(frame(9, 0, 1, &[0x82; 1000]));
    }
    let error = agent_given(&bytes).await;
    assert_eq!(error.initiator(), Initiator::Local, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_flood_that_has_to_be_acknowledged_is_taken_off_the_socket_and_ends_by_keepalive() {
    // The peer reads nothing, so acknowledgements get stuck, and h2 would read nothing more.
    let mut bytes = Vec::new();
    for _ in 0..60_000 {
        bytes.extend(frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]));
        bytes.extend(frame(6, 0, 0, &[7; 8]));
    }
    let begin = [PREFACE, &frame(4, 0, 0, &[])].concat();
    let (mut io, agent) = raw::server(&begin).await;
    let agent = agent.unwrap();
    let written = timeout(Duration::from_secs(5), io.write_all(&bytes)).await;
    assert!(written.is_ok(), "what is read ahead is more than this");
    let ended = timeout(Duration::from_secs(20), agent.closed())
        .await
        .expect("keepalive");
    assert_eq!(ended.initiator(), Initiator::Network, "{ended}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_http2_is_no_connection() {
    let (_io, agent) = raw::server(b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await;
    let error = agent.unwrap_err();
    assert!(matches!(error, DialError::Protocol { .. }), "{error}");
}

async fn control_says(server: &mut RawServer, bytes: &[u8]) {
    server
        .control_tx
        .send_data(Bytes::copy_from_slice(bytes), false)
        .unwrap();
}

fn encoded(frame: &Frame) -> BytesMut {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_has_no_place_on_the_control_stream_ends_the_connection() {
    for bytes in [
        encoded(&Frame::Hello(Hello::new(1, 1, 1))),
        encoded(&Frame::Ping([0; 8])),
        // Only agents ask.
        encoded(&Frame::Open {
            id: StreamId::new(Side::Agent, 0),
            head: head(),
        }),
        // Longer than a RESET can be.
        BytesMut::from(&[0x15, 0x40, 0xff][..]),
        // A RESET that ends too soon.
        BytesMut::from(&[0x15, 1, 3][..]),
    ] {
        let (mut server, agent) = raw::begin_server(H2Config::default()).await;
        control_says(&mut server, &bytes).await;
        let error = end_of(&agent).await;
        assert_eq!(error.code(), Some(CloseCode::PROTOCOL), "{bytes:?}: {error}");
        assert_eq!(error.initiator(), Initiator::Local, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_control_stream_ends_the_connection() {
    for by_force in [false, true] {
        let (mut server, agent) = raw::begin_server(H2Config::default()).await;
        if by_force {
            server.control_tx.send_reset(Reason::CANCEL);
        } else {
            server.control_tx.send_data(Bytes::new(), true).unwrap();
        }
        assert_eq!(end_of(&agent).await.code(), Some(CloseCode::PROTOCOL));
    }
}

#[tokio::test(start_paused = true)]
async fn frames_about_streams_that_never_were_are_dropped() {
    let (mut server, agent) = raw::begin_server(H2Config::default()).await;
    for number in [0, 3, 4, 1 << 30] {
        let id = StreamId::from_value(VarInt::from_u32(number));
        let code = StreamCode::CANCELLED;
        control_says(&mut server, &encoded(&Frame::Reset { id, code })).await;
        control_says(&mut server, &encoded(&Frame::Stop { id, code })).await;
    }
    // One of a kind that is not known yet.
    control_says(&mut server, &[0x3f, 3, 1, 2, 3]).await;
    assert!(timeout(PROMPT, agent.closed()).await.is_err(), "it lives");
    opens(&mut server, &agent).await;
}

/// Shows that streams work.
async fn opens(server: &mut RawServer, agent: &Arc<dyn Connection>) {
    let (response, mut tx) = server.requests.send_request(raw::open(&head()), false).unwrap();
    let inbound = timeout(PROMPT, agent.accept()).await.expect("a stream").unwrap();
    let mut stream = inbound.accept().await.unwrap();
    assert!(response.await.unwrap().status().is_success());
    tx.send_data("hello".into(), true).unwrap();
    assert_eq!(stream.rx.recv(100).await.unwrap().unwrap(), "hello");
    assert_eq!(stream.rx.recv(100).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn requests_that_open_nothing_are_answered_or_end_the_connection() {
    let (mut server, agent) = raw::begin_server(H2Config::default()).await;
    for request in [Request::get("http://tunnel/").body(()).unwrap(), raw::control()] {
        let (response, _tx) = server.requests.send_request(request, false).unwrap();
        assert_eq!(response.await.unwrap().status(), 400);
    }
    opens(&mut server, &agent).await;
    // One that was never asked for.
    let mut request = raw::open(&head());
    request.headers_mut().remove("tunnel-head");
    request.headers_mut().insert("tunnel-stream", 8.into());
    let (response, _tx) = server.requests.send_request(request, false).unwrap();
    assert_eq!(response.await.unwrap_err().reason(), Some(Reason::CANCEL));
    opens(&mut server, &agent).await;
    // A CONNECT whose head is missing.
    let mut request = raw::open(&head());
    request.headers_mut().remove("tunnel-head");
    let _sent = server.requests.send_request(request, false).unwrap();
    assert_eq!(end_of(&agent).await.code(), Some(CloseCode::PROTOCOL));
}

#[tokio::test(start_paused = true)]
async fn trailers_mean_nothing() {
    let (mut server, agent) = raw::begin_server(H2Config::default()).await;
    let (_response, mut tx) = server.requests.send_request(raw::open(&head()), false).unwrap();
    let mut stream = agent.accept().await.unwrap().accept().await.unwrap();
    tx.send_data("hello".into(), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("tunnel-reset", 7.into());
    tx.send_trailers(trailers).unwrap();
    assert_eq!(stream.rx.recv(100).await.unwrap().unwrap(), "hello");
    assert_eq!(stream.rx.recv(100).await.unwrap(), None);
}

/// HTTP/2 guards against small frames by closing the connection (RUSTSEC-2026-0258); nobody who keeps to the window may
/// be taken for an attacker.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_small_frames_costs_no_connection() {
    // In frames of one byte it is more than what h2 bears by itself.
    const WINDOW: usize = 320 * 1024;
    let config = with(Config::builder().stream_window(Windows::fixed(WINDOW as u64)));
    let (mut server, agent) = raw::begin_server(config).await;
    let (_response, mut tx) = server.requests.send_request(raw::open(&head()), false).unwrap();
    let mut stream = agent.accept().await.unwrap().accept().await.unwrap();
    // Each byte of a window in a frame of its own, several times, and hardly anybody reads.
    for round in 0..2 {
        for _ in 0..WINDOW {
            tx.send_data(Bytes::from_static(b"x"), false).unwrap();
        }
        tokio::time::sleep(PROMPT).await;
        assert!(timeout(PROMPT, agent.closed()).await.is_err(), "round {round}");
        let mut read = 0;
        while read < WINDOW {
            read += stream.rx.recv(WINDOW).await.unwrap().unwrap().len();
        }
        assert_eq!(read, WINDOW);
    }
    opens(&mut server, &agent).await;
}

/// The same at the other end, which is HTTP/2's client.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_small_frames_costs_a_server_no_connection() {
    const WINDOW: usize = 320 * 1024;
    let mut world = World::plain(with(Config::builder().stream_window(Windows::fixed(WINDOW as u64))));
    let (io, server) = raw::agent(&mut world).await;
    let mut agent = raw::begin_agent(io).await;
    let (stream, mut tx) = tokio::join!(server.open(head()), async {
        let (_request, mut respond) = agent.connection.accept().await.unwrap().unwrap();
        let tx = respond.send_response(http::Response::new(()), false).unwrap();
        let mut http2 = agent.connection;
        tokio::spawn(async move { while let Some(Ok(_)) = http2.accept().await {} });
        tx
    });
    let mut stream = stream.unwrap();
    for round in 0..2 {
        for _ in 0..WINDOW {
            tx.send_data(Bytes::from_static(b"x"), false).unwrap();
        }
        assert!(timeout(2 * PROMPT, server.closed()).await.is_err(), "round {round}");
        let mut read = 0;
        while read < WINDOW {
            read += stream.rx.recv(WINDOW).await.unwrap().unwrap().len();
        }
        assert_eq!(read, WINDOW);
    }
    let _alive = (agent.control_tx, agent.control_rx);
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_opened_and_cancelled_at_once_leave_nothing() {
    let config = with(Config::builder().max_streams(16));
    let (mut server, agent) = raw::begin_server(config).await;
    // Nobody looks at them meanwhile.
    for burst in 0..100 {
        for _ in 0..100 {
            let (_response, mut tx) = server
                .requests
                .clone()
                .ready()
                .await
                .unwrap()
                .send_request(raw::open(&head()), false)
                .unwrap();
            tx.send_reset(Reason::CANCEL);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(
            timeout(Duration::from_millis(1), agent.closed()).await.is_err(),
            "burst {burst}"
        );
    }
    tokio::time::sleep(PROMPT).await;
    assert_eq!(agent.stats().streams_open, 0);
    opens(&mut server, &agent).await;
}

#[tokio::test(start_paused = true)]
async fn more_streams_than_may_be_open_are_refused_when_nobody_looks() {
    const LIMIT: u32 = 4;
    let config = with(Config::builder().max_streams(LIMIT));
    let (mut server, agent) = raw::begin_server(config).await;
    let mut waiting = Vec::new();
    for _ in 0..LIMIT {
        waiting.push(server.requests.send_request(raw::open(&head()), false).unwrap());
    }
    let (response, _tx) = server.requests.send_request(raw::open(&head()), false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 503);
    let status = response.headers()["proxy-status"].to_str().unwrap();
    assert!(status.contains("connection_limit_reached"), "{status}");
    for _ in 0..LIMIT {
        let inbound = agent.accept().await.unwrap();
        drop(inbound.accept().await.unwrap());
    }
}

/// An agent that asks for streams in a way that it may not.
#[tokio::test(start_paused = true)]
async fn a_server_takes_streams_that_are_asked_for_in_order_only() {
    for index in [1, 7] {
        let mut world = World::plain(H2Config::default());
        let (io, server) = raw::agent(&mut world).await;
        let mut agent = raw::begin_agent(io).await;
        let id = StreamId::new(Side::Agent, index);
        let open = encoded(&Frame::Open { id, head: head() });
        agent.control_tx.send_data(open.freeze(), false).unwrap();
        let drive = async {
            while let Some(request) = agent.connection.accept().await {
                drop(request);
            }
        };
        let (error, ()) = tokio::join!(end_of(&server), drive);
        assert_eq!(error.code(), Some(CloseCode::PROTOCOL), "{error}");
        drop(agent.control_rx);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_http2_is_seen_with_its_code_in_both_halves() {
    let (mut server, agent) = raw::begin_server(H2Config::default()).await;
    for (reason, code) in [
        (Reason::CONNECT_ERROR, StreamCode::TARGET_RESET),
        (Reason::from(0x5400_4242), StreamCode::new(VarInt::from_u32(0x4242))),
        (Reason::from(7777), StreamCode::CANCELLED),
    ] {
        let (_response, mut tx) = server.requests.send_request(raw::open(&head()), false).unwrap();
        let mut stream = agent.accept().await.unwrap().accept().await.unwrap();
        tokio::time::sleep(PROMPT).await;
        tx.send_reset(reason);
        let seen = stream.rx.recv(100).await;
        assert!(
            matches!(&seen, Err(RecvError::Reset(seen)) if *seen == code),
            "{seen:?}"
        );
        assert_eq!(stream.tx.stopped().await.unwrap(), code);
    }
}
