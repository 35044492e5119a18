//! The frontend under TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use frontend_connect::Endpoint;
use support::{REQUEST, Running, config, exchange, move_both_ways, pki::Pki, read_200, read_to_end, soon, status};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tunnel_core::{RecvError, StreamCode};
use tunnel_tls::{ClientAuth, ClientTls};

async fn start(pki: &Pki, client_auth: ClientAuth) -> Running {
    let addr = "127.0.0.1:0".parse().unwrap();
    Running::start(Endpoint::Tls(addr, pki.server(client_auth)), config()).await
}

async fn connect(frontend: &Running, client: &ClientTls) -> TlsStream<TcpStream> {
    let name = client.server_name("localhost").unwrap();
    let connector = TlsConnector::from(client.tcp_config(&[b"http/1.1"]));
    connector.connect(name, frontend.connect().await).await.unwrap()
}

#[tokio::test]
async fn a_certificate_is_the_clients_identity() {
    let pki = Pki::new();
    let mut frontend = start(&pki, ClientAuth::Required(pki.trust())).await;
    let mut client = connect(&frontend, &pki.client(Some(pki.issue("kube-apiserver.example")))).await;
    client.write_all(REQUEST).await.unwrap();
    let dial = frontend.dial().await;
    let identity = &dial.request.client.identity;
    assert_eq!(identity.principal().as_deref(), Some("dns:kube-apiserver.example"));
    let mut far = dial.accept().into_io();
    read_200(&mut client).await;

    // Half-close both ways.
    client.write_all(b"ping").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut far).await, "ping");
    far.write_all(b"pong").await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await, "pong");
}

#[tokio::test]
async fn bytes_go_both_ways() {
    let pki = Pki::new();
    let mut frontend = start(&pki, ClientAuth::None).await;
    let mut client = connect(&frontend, &pki.client(None)).await;
    client.write_all(REQUEST).await.unwrap();
    let far = frontend.dial().await.accept();
    read_200(&mut client).await;
    move_both_ways(client, far).await;
}

#[tokio::test]
async fn a_client_certificate_is_optional_or_required() {
    let pki = Pki::new();
    let mut frontend = start(&pki, ClientAuth::Optional(pki.trust())).await;
    let mut client = connect(&frontend, &pki.client(None)).await;
    client.write_all(REQUEST).await.unwrap();
    assert!(frontend.dial().await.request.client.identity.is_anonymous());

    let mut frontend = start(&pki, ClientAuth::Required(pki.trust())).await;
    let mut client = connect(&frontend, &pki.client(None)).await;
    // In TLS 1.3 the client learns of the refusal when it reads.
    let _ = client.write_all(REQUEST).await;
    let error = soon(client.read_u8()).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    assert!(frontend.dials.try_recv().is_err());
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let (pki, other) = (Pki::new(), Pki::new());
    let mut frontend = start(&pki, ClientAuth::Optional(pki.trust())).await;
    let stranger = pki.client(Some(other.issue("x.example")));
    let mut client = connect(&frontend, &stranger).await;
    let _ = client.write_all(REQUEST).await;
    let error = soon(client.read_u8()).await.unwrap_err();
    assert!(error.to_string().contains("UnknownCA"), "{error}");
    assert!(frontend.dials.try_recv().is_err());
}

#[tokio::test]
async fn a_client_without_tls_is_told_that_it_is_needed() {
    let pki = Pki::new();
    let frontend = start(&pki, ClientAuth::None).await;
    let response = exchange(&mut frontend.connect().await, REQUEST).await;
    assert_eq!(status(&response), 400, "{response}");
    assert!(response.contains("speaks TLS"), "{response}");
}

#[tokio::test]
async fn a_client_that_starts_no_handshake_delays_nobody() {
    let pki = Pki::new();
    let mut frontend = start(&pki, ClientAuth::None).await;
    let _stuck = frontend.connect().await;
    let mut client = connect(&frontend, &pki.client(None)).await;
    client.write_all(REQUEST).await.unwrap();
    frontend.dial().await;
}

#[tokio::test]
async fn an_end_without_close_notify_is_no_clean_end() {
    let pki = Pki::new();
    let mut frontend = start(&pki, ClientAuth::None).await;
    let mut client = connect(&frontend, &pki.client(None)).await;
    client.write_all(REQUEST).await.unwrap();
    let mut far = frontend.dial().await.accept();
    read_200(&mut client).await;
    client.write_all(b"half").await.unwrap();
    assert_eq!(soon(far.rx.recv(100)).await.unwrap().unwrap(), "half");
    client.get_mut().0.shutdown().await.unwrap();
    assert!(matches!(soon(far.rx.recv(100)).await, Err(RecvError::Reset(_))));
}

#[tokio::test]
async fn a_reset_stream_resets_the_client() {
    let pki = Pki::new();
    let mut frontend = start(&pki, ClientAuth::None).await;
    let mut client = connect(&frontend, &pki.client(None)).await;
    client.write_all(REQUEST).await.unwrap();
    let mut far = frontend.dial().await.accept();
    read_200(&mut client).await;
    client.write_all(b"ping").await.unwrap();
    far.rx.recv(100).await.unwrap();
    far.tx.reset(StreamCode::TARGET_RESET);
    let error = soon(client.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
}
