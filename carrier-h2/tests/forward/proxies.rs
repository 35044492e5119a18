//! Proxies of others, at a carrier.

use std::{future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use carrier_h2::forward::{Dialect, ForwardConfig};
use h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};
use http::{HeaderMap, Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::{Instant, timeout},
};
use tunnel_core::{
    CloseCode, Connection, DialError, OpenError, RecvError, Refusal, RefusalKind, StreamCode, StreamHead,
    proto::{TraceContext, mux::Config},
};
use tunnel_tcp::BoxIo;
use tunnel_testkit::ends::{head, whole};

use crate::world::{PROMPT, h2_proxy, proxy, with};

type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// Gives the requests to the test.
async fn hand_over(mut http2: server::Connection<BoxIo, Bytes>, requests: mpsc::Sender<Asked>) {
    while let Some(Ok(request)) = http2.accept().await {
        // Nobody may be left to look.
        let _ = requests.send(request).await;
    }
}

/// A proxy whose requests the test answers.
async fn answered_here(config: ForwardConfig) -> (mpsc::Receiver<Asked>, Arc<dyn Connection>) {
    let (sender, requests) = mpsc::channel(16);
    let (_, connection) = h2_proxy(server::Builder::new(), config, |http2| hand_over(http2, sender)).await;
    (requests, connection)
}

/// What comes of an open that the proxy answers so.
async fn open(answer: impl FnOnce(&mut SendResponse<Bytes>)) -> (Result<(), OpenError>, Duration) {
    let (mut requests, connection) = answered_here(ForwardConfig::default()).await;
    let start = Instant::now();
    let (opened, _kept) = tokio::join!(connection.open(head()), async {
        let (request, mut respond) = requests.recv().await.unwrap();
        answer(&mut respond);
        (request, respond)
    });
    (opened.map(drop), start.elapsed())
}

fn refused(opened: Result<(), OpenError>) -> Refusal {
    match opened {
        Err(OpenError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn response(status: u16, proxy_status: &str) -> Response<()> {
    let mut response = Response::builder().status(status);
    if !proxy_status.is_empty() {
        response = response.header("proxy-status", proxy_status);
    }
    response.body(()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_understood_with_and_without_proxy_status() {
    let said = "envoy; error=connection_refused; details=\"10.0.0.7:443 refused\"";
    let (opened, _) = open(|respond| drop(respond.send_response(response(503, said), true).unwrap())).await;
    let refusal = refused(opened);
    assert_eq!(refusal.kind, RefusalKind::ConnectionRefused);
    assert!(
        refusal
            .text
            .as_str()
            .ends_with(" answered 503 (envoy): 10.0.0.7:443 refused"),
        "{refusal}"
    );

    let (opened, _) = open(|respond| {
        let mut body = respond.send_response(response(503, ""), false).unwrap();
        body.send_data("upstream connect error\nand more".into(), true).unwrap();
    })
    .await;
    let refusal = refused(opened);
    assert_eq!(refusal.kind, RefusalKind::DestinationUnavailable);
    let words = " answered 503 Service Unavailable: upstream connect error";
    assert!(refusal.text.as_str().ends_with(words), "{refusal}");

    let (opened, _) = open(|respond| drop(respond.send_response(response(407, ""), true).unwrap())).await;
    assert_eq!(refused(opened).kind, RefusalKind::ProxyConfigurationError);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let mut kept = None;
    let (opened, took) = open(|respond| kept = Some(respond.send_response(response(502, ""), false).unwrap())).await;
    let refusal = refused(opened);
    assert!(
        refusal.text.as_str().ends_with(" answered 502 Bad Gateway"),
        "{refusal}"
    );
    assert!((PROMPT..2 * PROMPT).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_looked_at_may_go_elsewhere() {
    let (opened, _) = open(|respond| respond.send_reset(Reason::REFUSED_STREAM)).await;
    let error = opened.unwrap_err();
    assert!(error.is_undelivered(), "{error}");
    assert!(error.to_string().contains("REFUSED_STREAM"), "{error}");
    for (reason, code) in [
        (Reason::CANCEL, StreamCode::CANCELLED),
        (Reason::CONNECT_ERROR, StreamCode::TARGET_RESET),
        (Reason::INTERNAL_ERROR, StreamCode::INTERNAL),
    ] {
        let (opened, _) = open(|respond| respond.send_reset(reason)).await;
        let error = opened.unwrap_err();
        assert!(
            matches!(&error, OpenError::Reset(seen) if *seen == code),
            "{reason:?}: {error}"
        );
        assert!(!error.is_undelivered());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_says_what_the_head_and_the_configuration_say() {
    let config = ForwardConfig::builder()
        .dialect(Dialect::Hbone)
        .baggage("k8s.namespace.name=tunnels")
        .header("proxy-authorization", "Basic Zm9v");
    let (mut requests, connection) = answered_here(config.build().unwrap()).await;
    assert_eq!(connection.peer().carrier, "hbone");
    let mut head = StreamHead::new("tcp://[2001:db8::7]:443".parse().unwrap());
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    head.trace = Some(TraceContext::new(parent, "a=1").unwrap());
    head.client = Some("192.0.2.1:4711".parse().unwrap());
    let opening = async {
        let _opened = timeout(PROMPT, connection.open(head)).await;
    };
    let (asked, ()) = tokio::join!(requests.recv(), opening);
    let (request, _) = asked.unwrap();
    assert_eq!(
        (request.method().as_str(), request.uri().to_string().as_str()),
        ("CONNECT", "[2001:db8::7]:443")
    );
    let mut fields: Vec<_> = request.headers().iter().collect();
    fields.sort_by_key(|(name, _)| name.as_str());
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(
        fields,
        [
            ("baggage", "k8s.namespace.name=tunnels"),
            ("forwarded", "for=\"192.0.2.1:4711\""),
            ("proxy-authorization", "Basic Zm9v"),
            ("traceparent", parent),
            ("tracestate", "a=1"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn bytes_and_trailers_end_cleanly() {
    let (mut requests, connection) = answered_here(ForwardConfig::default()).await;
    let (opened, (request, mut tx)) = tokio::join!(connection.open(head()), async {
        let (request, mut respond) = requests.recv().await.unwrap();
        let tx = respond.send_response(response(200, ""), false).unwrap();
        (request, tx)
    });
    let mut stream = opened.unwrap();
    stream.tx.send_all("question".into()).await.unwrap();
    stream.tx.finish().await.unwrap();
    let mut body = request.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "question");
    assert!(body.data().await.is_none());
    tx.send_data("answer".into(), false).unwrap();
    tx.send_trailers(HeaderMap::new()).unwrap();
    assert_eq!(stream.rx.recv(64).await.unwrap().unwrap(), "answer");
    assert_eq!(stream.rx.recv(64).await.unwrap(), None);
    assert_eq!(connection.stats().streams_open, 0);
}

/// GOAWAY in the middle: what the proxy has looked at goes on, what it has not may go elsewhere, and that is the end.
#[tokio::test(start_paused = true)]
async fn a_goaway_is_a_drain() {
    let (sender, mut requests) = mpsc::channel::<Asked>(16);
    let (say, mut said) = mpsc::channel::<()>(1);
    let (_, connection) = h2_proxy(
        server::Builder::new(),
        ForwardConfig::default(),
        |mut http2| async move {
            loop {
                tokio::select! {
                    request = http2.accept() => match request {
                        Some(Ok(request)) => drop(sender.send(request).await),
                        _ => return,
                    },
                    Some(()) = said.recv() => http2.graceful_shutdown(),
                }
            }
        },
    )
    .await;
    let (opened, (request, mut tx)) = tokio::join!(connection.open(head()), async {
        let (request, mut respond) = requests.recv().await.unwrap();
        let tx = respond.send_response(response(200, ""), false).unwrap();
        (request, tx)
    });
    let mut stream = opened.unwrap();
    say.send(()).await.unwrap();
    timeout(PROMPT, connection.draining()).await.unwrap();
    let error = connection.open(head()).await.unwrap_err();
    assert!(matches!(error, OpenError::Draining), "{error}");
    tx.send_data("still here".into(), true).unwrap();
    assert_eq!(stream.rx.recv(64).await.unwrap().unwrap(), "still here");
    assert_eq!(stream.rx.recv(64).await.unwrap(), None);
    stream.tx.finish().await.unwrap();
    drop((request, tx));
    let error = timeout(PROMPT, connection.closed()).await.unwrap();
    assert_eq!(error.code(), Some(CloseCode::DRAINED), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_beyond_the_last_stream_of_a_goaway_was_not_delivered() {
    let settings = frame(4, 0, 0, &[]);
    let (mut io, connection) = proxy(ForwardConfig::default(), async |mut io: BoxIo| {
        io.write_all(&settings).await.unwrap();
        io.flush().await.unwrap();
        io
    })
    .await;
    let connection = connection.unwrap();
    let opening = {
        let connection = Arc::clone(&connection);
        tokio::spawn(async move { connection.open(head()).await.map(drop) })
    };
    // The request has come when the answer goes.
    tokio::time::sleep(PROMPT).await;
    io.write_all(&frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0])).await.unwrap();
    io.flush().await.unwrap();
    let error = timeout(PROMPT, opening).await.unwrap().unwrap().unwrap_err();
    assert!(error.is_undelivered(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_never_grants_credit_holds_up_one_stream() {
    let mut builder = server::Builder::new();
    builder.initial_window_size(0);
    let (sender, mut requests) = mpsc::channel(16);
    let config = with(Config::builder());
    let (_, connection) = h2_proxy(builder, config, |http2| hand_over(http2, sender)).await;
    let mut open = async || {
        let (opened, answered) = tokio::join!(connection.open(head()), async {
            let (request, mut respond) = requests.recv().await.unwrap();
            let tx = respond.send_response(response(200, ""), false).unwrap();
            (request, tx)
        });
        (opened.unwrap(), answered)
    };
    let (mut stalled, _stalled_peer) = open().await;
    let sending = timeout(PROMPT, stalled.tx.send_all(vec![0; 1 << 20].into())).await;
    assert!(sending.is_err(), "a megabyte was sent without credit");
    let (mut other, (request, mut tx)) = open().await;
    let mut body = request.into_body();
    body.flow_control().release_capacity(0).unwrap();
    tx.send_data("fine".into(), false).unwrap();
    assert_eq!(other.rx.recv(64).await.unwrap().unwrap(), "fine");
    // It can be given up all the same.
    stalled.tx.reset(StreamCode::CANCELLED);
    drop(other);
    let seen = timeout(PROMPT, poll_fn(|cx| tx.poll_reset(cx))).await.unwrap();
    assert_eq!(seen.unwrap(), Reason::CANCEL);
    assert!(connection.stats().streams_open == 0);
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![len[1], len[2], len[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// What a dial makes of these bytes.
async fn dial_error(bytes: &[u8]) -> DialError {
    let (_io, dialled) = proxy(ForwardConfig::default(), async |mut io: BoxIo| {
        io.write_all(bytes).await.unwrap();
        io.flush().await.unwrap();
        // What it is sent is read, so that what it says is not lost.
        let _ = timeout(PROMPT, io.read_to_end(&mut Vec::new())).await;
    })
    .await;
    dialled.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn what_is_no_http2_is_no_connection() {
    let error = dial_error(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
    let words = whole(&error);
    assert!(matches!(error, DialError::Protocol { .. }), "{words}");
    assert!(words.contains("is it HTTP/1.1, or does it expect TLS?"), "{words}");

    let mut goaway = frame(4, 0, 0, &[]);
    goaway.extend(frame(7, 0, 0, b"\0\0\0\0\0\0\0\x0bcome back later"));
    let error = dial_error(&goaway).await;
    let words = whole(&error);
    assert!(
        matches!(error, DialError::Lost { .. }) && error.is_retryable(),
        "{words}"
    );
    assert!(words.ends_with("come back later"), "{words}");

    let error = dial_error(b"").await;
    assert!(
        matches!(error, DialError::TimedOut { .. } | DialError::Lost { .. }),
        "{}",
        whole(&error)
    );
}

#[tokio::test(start_paused = true)]
async fn a_reset_by_the_proxy_ends_both_halves() {
    let (mut requests, connection) = answered_here(ForwardConfig::default()).await;
    let (opened, (_request, mut tx)) = tokio::join!(connection.open(head()), async {
        let (request, mut respond) = requests.recv().await.unwrap();
        let tx = respond.send_response(response(200, ""), false).unwrap();
        (request, tx)
    });
    let mut stream = opened.unwrap();
    tx.send_reset(Reason::CONNECT_ERROR);
    let seen = stream.rx.recv(64).await;
    assert!(
        matches!(seen, Err(RecvError::Reset(StreamCode::TARGET_RESET))),
        "{seen:?}"
    );
    let seen = stream.tx.stopped().await;
    assert!(matches!(seen, Ok(StreamCode::TARGET_RESET)), "{seen:?}");
}
