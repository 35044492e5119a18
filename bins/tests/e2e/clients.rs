//! The ways in for clients: TCP, TLS with certificates, Unix sockets.

use std::{net::SocketAddr, os::unix::fs::MetadataExt as _};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{Curl, Pair, Pki, Process, Server, Tunnel, ask, read_to_end, soon, target};

/// A tunnel whose clients need a certificate, and where they connect.
async fn tls_tunnel() -> (Tunnel, SocketAddr) {
    let pki = Pki::new();
    let ca = pki.trust.to_str().unwrap().to_owned();
    let tunnel = Tunnel::of(pki, &["--frontend=connect+tls://127.0.0.1:0", "--client-ca", &ca], &[]).await;
    let line = tunnel.server.log.line("endpoint=connect+tls://").await;
    let (_, addr) = line.split_once("connect+tls://").unwrap();
    (tunnel, addr.trim().parse().unwrap())
}

async fn tls(pki: &Pki, proxy: SocketAddr, pair: Option<&Pair>) -> TlsStream<TcpStream> {
    let tls = pki.client_tls(pair);
    let name = tls.server_name("localhost").unwrap();
    let socket = TcpStream::connect(proxy).await.unwrap();
    TlsConnector::from(tls.tcp_config(&[b"http/1.1"]))
        .connect(name, socket)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_client_with_a_certificate_gets_through_by_tls() {
    let (tunnel, proxy) = tls_tunnel().await;
    let pair = tunnel.pki.client("alice");
    let mut stream = ask(tls(&tunnel.pki, proxy, Some(&pair)).await, target::echo().await)
        .await
        .tunnel();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, "hello");
    tunnel.server.log.line("dns:alice").await;
}

#[tokio::test]
async fn curl_with_a_certificate_gets_through_by_tls_and_without_one_does_not() {
    let Some(curl) = Curl::find().await else { return };
    let (tunnel, proxy) = tls_tunnel().await;
    let Pair { cert, key } = tunnel.pki.client("alice");
    let url = format!("http://{}/", target::http("a page\n").await);
    let (proxy, ca) = (format!("https://{proxy}"), tunnel.pki.trust.to_str().unwrap());
    let common = ["-p", "--proxy-cacert", ca, "-x", &proxy, &url];
    let own = [
        "--proxy-cert",
        cert.to_str().unwrap(),
        "--proxy-key",
        key.to_str().unwrap(),
    ];
    assert_eq!(curl.fetch(&[&common[..], &own].concat()).await, "a page\n");

    let output = curl.run(&common).await;
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && says.contains("certificate required"),
        "{says}"
    );
}

#[tokio::test]
async fn the_server_says_why_a_client_is_refused_by_tls() {
    let (tunnel, proxy) = tls_tunnel().await;
    let stranger = Pki::new();
    for (pair, why) in [
        (None, "the peer sent no certificate, and this side requires one"),
        (
            Some(stranger.client("mallory")),
            "the peer's certificate is not signed by a CA that this side trusts",
        ),
    ] {
        let from = tunnel.server.log.here();
        let mut stream = tls(&tunnel.pki, proxy, pair.as_ref()).await;
        // In TLS 1.3 a client learns of it when it reads.
        let read = soon("the alert", tokio::io::AsyncReadExt::read_u8(&mut stream)).await;
        assert!(read.is_err());
        let line = tunnel
            .server
            .log
            .line_after(from, "the TLS handshake with a client failed")
            .await;
        assert!(line.contains(why), "{line}");
    }
}

#[tokio::test]
async fn a_unix_socket_serves_and_outlives_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("connect.sock");
    let frontend = format!("--frontend=connect+unix://{}?mode=0660", path.display());
    let mut tunnel = Tunnel::with(&[&frontend], &[]).await;
    tunnel.server.log.line("endpoint=connect+unix://").await;
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
    let site = target::echo().await;
    let mut stream = ask(UnixStream::connect(&path).await.unwrap(), site).await.tunnel();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, "hello");

    // Another server must not take the place of one that lives,
    let mut args = Server::args(&tunnel.pki);
    args.extend([
        frontend.clone().into(),
        "--carrier=quic://127.0.0.1:0".into(),
        "--admin=off".into(),
    ]);
    let mut second = Process::server(&args);
    assert_eq!(second.ended().await.code(), Some(1));
    let line = second.log.line("error: ").await;
    assert!(
        line.contains(path.to_str().unwrap()) && line.contains("another"),
        "{line}"
    );

    // but of one that was killed.
    tunnel.server.signal("KILL");
    tunnel.server.process().ended().await;
    let third = Process::server(&args);
    third.log.line("endpoint=connect+unix://").await;
    assert_eq!(ask(UnixStream::connect(&path).await.unwrap(), site).await.status, 503);
}
