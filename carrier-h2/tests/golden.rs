//! What both ends say beside HTTP/2 (`docs/wire.md` §12), byte by byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::time::Duration;

use bytes::Bytes;
use carrier_h2::H2Config;
use common::{World, raw};
use h2::RecvStream;
use http::Response;
use tokio::{sync::mpsc, time::timeout};
use tunnel_core::{CloseCode, RecvError, Refusal, RefusalKind, StreamCode, StreamHead, Target};
use tunnel_tcp::upgrade::encode;
use tunnel_testkit::ends::head;

const AGENT: &str = include_str!("../../tunnel-proto/tests/golden/link-control-agent.hex");
const SERVER: &str = include_str!("../../tunnel-proto/tests/golden/link-control-server.hex");
const DOCUMENT: &str = include_str!("../../docs/wire.md");
/// Far longer than anything takes.
const A_WHILE: Duration = Duration::from_secs(1);

fn bytes(hex: &str) -> Bytes {
    let digits = hex
        .lines()
        .flat_map(|line| line.split('#').next().unwrap().split_whitespace());
    digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}

/// What has come on a control stream when nothing more comes.
async fn said(control: &mut RecvStream) -> Vec<u8> {
    let mut said = Vec::new();
    while let Ok(Some(Ok(bytes))) = timeout(A_WHILE, control.data()).await {
        said.extend_from_slice(&bytes);
    }
    said
}

#[tokio::test(start_paused = true)]
async fn an_agent_says_and_understands_what_the_files_say() {
    let (mut server, agent) = raw::begin_server(H2Config::default()).await;
    let target = Target::from_authority("kubelet.example:10250").unwrap();
    let asking = tokio::spawn({
        let agent = agent.clone();
        async move { agent.open(StreamHead::new(target)).await }
    });
    tokio::time::sleep(A_WHILE).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let sent = server.requests.send_request(raw::open(&head()), false).unwrap();
        open.push((sent, agent.accept().await.unwrap().accept().await.unwrap()));
    }
    open[0].1.tx.reset(StreamCode::TARGET_RESET);
    tokio::time::sleep(A_WHILE).await;
    open[1].1.rx.stop(StreamCode::CANCELLED);
    tokio::time::sleep(A_WHILE).await;
    agent.drain();
    assert_eq!(said(&mut server.control_rx).await, bytes(AGENT));

    server.control_tx.send_data(bytes(SERVER), false).unwrap();
    let refusal = asking.await.unwrap().unwrap_err().to_string();
    assert!(refusal.contains("no such host"), "{refusal}");
    let reset = open[0].1.rx.recv(100).await;
    assert!(
        matches!(&reset, Err(RecvError::Reset(code)) if *code == StreamCode::TARGET_RESET),
        "{reset:?}"
    );
    assert_eq!(open[1].1.tx.stopped().await.unwrap(), StreamCode::CANCELLED);
    assert_eq!(agent.closed().await.code(), Some(CloseCode::SHUTDOWN));
}

#[tokio::test(start_paused = true)]
async fn a_server_says_and_understands_what_the_files_say() {
    let mut world = World::plain(H2Config::default());
    let (io, server) = raw::agent(&mut world).await;
    let mut agent = raw::begin_agent(io).await;
    // It asks for a stream first, and speaks of others when there are any. That it drains would end the connection.
    let all = bytes(AGENT);
    let (first, drain) = (2 + usize::from(all[1]), all.len() - 2);
    agent.control_tx.send_data(all.slice(..first), false).unwrap();
    let (mut control, mut http2) = (agent.control_rx, agent.connection);
    let (requests, mut came) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(Ok(request)) = http2.accept().await {
            let _ = requests.send(request).await;
        }
    });
    let inbound = server.accept().await.unwrap();
    assert_eq!(inbound.head().target.to_string(), "tcp://kubelet.example:10250");
    inbound.refuse(Refusal::new(RefusalKind::DnsError, "no such host"));
    let mut open = Vec::new();
    let mut held = Vec::new();
    for _ in 0..2 {
        let (stream, ()) = tokio::join!(server.open(head()), async {
            let (request, mut respond) = came.recv().await.unwrap();
            assert_eq!(request.headers()["tunnel-head"], encode(&head().encode()));
            let tx = respond.send_response(Response::new(()), false).unwrap();
            held.push((request, tx));
        });
        open.push(stream.unwrap());
    }
    open[0].tx.reset(StreamCode::TARGET_RESET);
    tokio::time::sleep(A_WHILE).await;
    open[1].rx.stop(StreamCode::CANCELLED);
    tokio::time::sleep(A_WHILE).await;
    agent.control_tx.send_data(all.slice(first..drain), false).unwrap();
    let reset = open[0].rx.recv(100).await;
    assert!(
        matches!(&reset, Err(RecvError::Reset(code)) if *code == StreamCode::TARGET_RESET),
        "{reset:?}"
    );
    assert_eq!(open[1].tx.stopped().await.unwrap(), StreamCode::CANCELLED);
    server.close(CloseCode::SHUTDOWN, "shutting down");
    assert_eq!(said(&mut control).await, bytes(SERVER));
}

/// A refusal as the document shows it.
#[tokio::test(start_paused = true)]
async fn the_document_shows_how_a_stream_is_refused() {
    let (mut server, agent) = raw::begin_server(H2Config::default()).await;
    let (response, _tx) = server.requests.send_request(raw::open(&head()), false).unwrap();
    let text = "10.0.0.7:443 refused the connection";
    let inbound = agent.accept().await.unwrap();
    inbound.refuse(Refusal::new(RefusalKind::ConnectionRefused, text));
    let response = response.await.unwrap();
    let field = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    let lines = format!(
        "\n:status: {}\nproxy-status: {}\ntunnel-answer: {}\n",
        response.status().as_u16(),
        field("proxy-status"),
        field("tunnel-answer")
    );
    assert!(DOCUMENT.contains(&lines), "{lines}");
}
