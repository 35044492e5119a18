//! Clients that break the rules, or keep them in ways that nobody expects.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use carrier_h2::forward::ForwardConfig;
use h2::Reason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tunnel_core::{
    CloseCode, Connection, ConnectionError, HandshakeError, Initiator, Keepalive,
    proto::mux::{Config, Windows},
};
use tunnel_tcp::{BoxIo, Dial};
use tunnel_testkit::ends::Verdict;

use crate::{
    proxies::frame,
    world::{PROMPT, World, connect, with},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;

/// `:method: CONNECT`, and `:authority: a:1`, in HPACK.
const METHOD: &[u8] = b"\x02\x07CONNECT";
const AUTHORITY: &[u8] = b"\x01\x03a:1";

/// A pipe on which a client has begun HTTP/2, and the listener's handle of it.
async fn begun(config: ForwardConfig) -> (BoxIo, Arc<dyn Connection>) {
    let mut world = World::plain(config);
    let begin = [PREFACE, &frame(4, 0, 0, &[])].concat();
    world
        .knock(async |mut io: BoxIo| {
            io.write_all(&begin).await.unwrap();
            io.flush().await.unwrap();
            io
        })
        .await
}

/// What the listener makes of bytes behind the preface.
async fn given(bytes: &[u8]) -> ConnectionError {
    let (mut io, listener) = begun(ForwardConfig::default()).await;
    let (error, ()) = tokio::join!(timeout(2 * PROMPT, listener.closed()), async {
        // The listener may have heard enough.
        let _ = io.write_all(bytes).await;
        let _ = io.flush().await;
        let _ = io.read_to_end(&mut Vec::new()).await;
    });
    error.expect("it ends")
}

/// The first frame of stream 1: its type and its payload.
async fn answer(io: &mut BoxIo) -> (u8, Vec<u8>) {
    loop {
        let mut header = [0; 9];
        io.read_exact(&mut header).await.unwrap();
        let [high, middle, low, kind, _, stream @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        io.read_exact(&mut payload).await.unwrap();
        if u32::from_be_bytes(stream) == 1 {
            return (kind, payload);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_is_malformed_is_answered() {
    for (what, block, kind, begin) in [
        // `:status: 400` is number 12 of the static table.
        ("without an authority", METHOD.to_vec(), HEADERS, &[0x8c][..]),
        (
            "with a path",
            [METHOD, AUTHORITY, b"\x84"].concat(),
            RST_STREAM,
            &[0, 0, 0, 1],
        ),
        (
            "with a scheme",
            [METHOD, AUTHORITY, b"\x87"].concat(),
            RST_STREAM,
            &[0, 0, 0, 1],
        ),
    ] {
        let (mut io, listener) = begun(ForwardConfig::default()).await;
        io.write_all(&frame(HEADERS, 4, 1, &block)).await.unwrap();
        io.flush().await.unwrap();
        let (seen, payload) = timeout(PROMPT, answer(&mut io)).await.unwrap();
        assert_eq!(seen, kind, "{what}");
        assert!(payload.starts_with(begin), "{what}: {payload:?}");
        assert!(timeout(PROMPT, listener.accept()).await.is_err(), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn frames_that_break_http2_end_the_connection() {
    for (what, bytes) in [
        ("DATA of no stream", frame(0, 0, 0, b"x")),
        ("DATA of an idle stream", frame(0, 0, 7, b"x")),
        ("HEADERS that are no HPACK", frame(HEADERS, 4, 1, &[0xff; 40])),
        ("a long frame", frame(0, 0, 1, &vec![0; 70_000])),
        ("a short PING", frame(6, 0, 0, &[0; 7])),
        ("CONTINUATION of nothing", frame(9, 4, 1, &[])),
        ("PUSH_PROMISE from a client", frame(5, 4, 1, &[0, 0, 0, 2])),
    ] {
        let error = given(&bytes).await;
        assert_eq!(error.initiator(), Initiator::Local, "{what}: {error}");
        assert_eq!(error.code(), Some(CloseCode::PROTOCOL), "{what}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_not_kept() {
    // HEADERS without an end, and CONTINUATION for ever (CVE-2024-27316).
    let mut bytes = frame(HEADERS, 0, 1, &[0x82; 100]);
    for _ in 0..10_000 {
        bytes.extend(frame(9, 0, 1, &[0x82; 1000]));
    }
    let error = given(&bytes).await;
    assert_eq!(error.initiator(), Initiator::Local, "{error}");
}

/// A client that was told the wrong port, or lacks HTTP/2.
#[tokio::test(start_paused = true)]
async fn http_1_is_told_what_is_served() {
    let mut world = World::plain(ForwardConfig::default());
    let mut io = world.net.dial(&world.address).await.unwrap().io;
    let verdict = Verdict::default();
    let (shaken, answer) = tokio::join!(tunnel_testkit::ends::handshake(&mut world.listener, &verdict), async {
        io.write_all(b"CONNECT db.internal:5432 HTTP/1.1\r\nHost: db.internal:5432\r\n\r\n")
            .await
            .unwrap();
        io.flush().await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    });
    assert!(matches!(shaken, Err(HandshakeError::Protocol { .. })), "{shaken:?}");
    assert!(answer.starts_with("HTTP/1.1 505 "), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\nthis port serves CONNECT of HTTP/2, and nothing else\n"),
        "{answer}"
    );
}

/// Streams that are reset before anybody could look at them (CVE-2023-44487).
#[tokio::test(start_paused = true)]
async fn a_flood_of_resets_ends_the_connection_or_is_nothing() {
    let mut bytes = Vec::new();
    for stream in (1..200_000).step_by(2) {
        bytes.extend(frame(HEADERS, 4, stream, &[METHOD, AUTHORITY].concat()));
        bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    let (mut io, listener) = begun(ForwardConfig::default()).await;
    // The listener may have heard enough.
    let _ = timeout(20 * PROMPT, async {
        let _ = io.write_all(&bytes).await;
        let _ = io.flush().await;
    })
    .await;
    tokio::time::sleep(PROMPT).await;
    assert_eq!(listener.stats().streams_open, 0, "nothing is left of them");
    // Nobody is asked about a stream that nobody wants any more.
    let accepted = timeout(PROMPT, listener.accept()).await;
    assert!(!matches!(accepted, Ok(Ok(_))), "{accepted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_flood_that_has_to_be_acknowledged_ends_by_keepalive() {
    // The peer reads nothing, so acknowledgements get stuck, and h2 would read nothing more.
    let mut bytes = Vec::new();
    for _ in 0..60_000 {
        bytes.extend(frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]));
        bytes.extend(frame(6, 0, 0, &[7; 8]));
    }
    let (mut io, listener) = begun(ForwardConfig::default()).await;
    let written = timeout(Duration::from_secs(5), io.write_all(&bytes)).await;
    assert!(written.is_ok(), "what is read ahead is more than this");
    let limit = Keepalive::default().bound() + 5 * PROMPT;
    let ended = timeout(limit, listener.closed()).await.expect("keepalive");
    assert_eq!(ended.initiator(), Initiator::Network, "{ended}");
}

/// However streams are ended, the connection's window is whole afterwards.
#[tokio::test(start_paused = true)]
async fn ten_thousand_resets_and_cancels_cost_no_credit() {
    const WINDOW: u32 = 64 * 1024;
    let mux = Config::builder()
        .max_streams(8)
        .stream_window(Windows::fixed(WINDOW.into()));
    let config = ForwardConfig::builder()
        .mux(mux.build().unwrap().into())
        .connection_window(8 * WINDOW)
        .build()
        .unwrap();
    let mut world = World::plain(config);
    let (mut client, listener) = world.client().await;
    for round in 0..10_000 {
        let (response, mut tx) = client.send(connect("db.internal:5432")).await;
        tx.send_data(Bytes::from(vec![7; 1000]), false).unwrap();
        match round % 4 {
            // Reset before it was looked at.
            0 => {
                tx.send_reset(Reason::CANCEL);
                drop(response);
            }
            // Accepted, and not read.
            1 => {
                let mut far = listener.accept().await.unwrap().accept().await.unwrap();
                response.await.unwrap();
                tx.send_data(Bytes::from(vec![7; 1000]), false).unwrap();
                tx.send_reset(Reason::CANCEL);
                assert!(far.tx.stopped().await.is_ok());
            }
            // Stopped while there is more to come.
            2 => {
                let far = listener.accept().await.unwrap().accept().await.unwrap();
                response.await.unwrap();
                drop(far);
                tx.send_data(Bytes::from(vec![7; 1000]), false).ok();
                assert!(std::future::poll_fn(|cx| tx.poll_reset(cx)).await.is_ok());
            }
            // Refused by being dropped.
            _ => {
                drop(listener.accept().await.unwrap());
                assert_eq!(response.await.unwrap().status(), 500);
            }
        }
    }
    tokio::time::sleep(PROMPT).await;
    assert_eq!(listener.stats().streams_open, 0);
    let window = usize::try_from(WINDOW).unwrap();
    let mut held = Vec::new();
    for _ in 0..8 {
        let (response, mut tx) = client.send(connect("db.internal:5432")).await;
        let mut far = listener.accept().await.unwrap().accept().await.unwrap();
        let body = response.await.unwrap().into_body();
        tx.reserve_capacity(window);
        while tx.capacity() < window {
            let more = timeout(PROMPT, std::future::poll_fn(|cx| tx.poll_capacity(cx)));
            more.await.expect("the window is whole").unwrap().unwrap();
        }
        tx.send_data(Bytes::from(vec![7; window]), false).unwrap();
        let mut seen = 0;
        while seen < window {
            seen += timeout(PROMPT, far.rx.recv(window))
                .await
                .unwrap()
                .unwrap()
                .unwrap()
                .len();
        }
        held.push((tx, body, far));
    }
}

/// Streams beyond the limit are refused such that they may go elsewhere.
#[tokio::test(start_paused = true)]
async fn more_streams_than_were_allowed_are_refused() {
    let (mut io, listener) = begun(with(Config::builder().max_streams(2))).await;
    for stream in [1, 3, 5] {
        let headers = frame(HEADERS, 4, stream, &[METHOD, AUTHORITY].concat());
        io.write_all(&headers).await.unwrap();
    }
    io.flush().await.unwrap();
    let _held = [listener.accept().await.unwrap(), listener.accept().await.unwrap()];
    assert!(timeout(PROMPT, listener.accept()).await.is_err());
    let mut seen = Vec::new();
    let reading = async {
        loop {
            seen.push(io.read_u8().await.unwrap());
        }
    };
    let _ = timeout(PROMPT, reading).await;
    let refusal = frame(RST_STREAM, 0, 5, &[0, 0, 0, 7]);
    assert!(seen.windows(refusal.len()).any(|bytes| bytes == refusal), "{seen:?}");
}
