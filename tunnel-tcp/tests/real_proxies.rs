//! Dialling through the proxies that people run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tunnel_core::{DialError, HostPort};
use tunnel_tcp::{Accept, ClientSecurity, Dial, Proxies, Proxy, ServerSecurity, SocketOptions, TcpAcceptor, TcpDialer};
use tunnel_testkit::programs::{self, Program};
use tunnel_tls::{ClientTls, DevCa, Pem, Purpose, ServerTls, Trust};

fn dialer(program: &Program, user_info: &str) -> TcpDialer {
    let proxy: Proxy = format!("http://{user_info}{}", program.addr()).parse().unwrap();
    TcpDialer::new(SocketOptions::default(), Proxies::one(proxy))
}

/// A server that speaks first and then repeats what it is told, under an address that is not taken for this machine's.
async fn echo() -> HostPort {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut rx, mut tx) = socket.split();
                tx.write_all(b"hello\n").await.unwrap();
                // The other end may reset the connection.
                let _ = tokio::io::copy(&mut rx, &mut tx).await;
                let _ = tx.shutdown().await;
            });
        }
    });
    at(port)
}

fn at(port: u16) -> HostPort {
    HostPort::new(std::net::IpAddr::from(Ipv4Addr::UNSPECIFIED).into(), port).unwrap()
}

async fn refusal(dialer: &TcpDialer, server: &HostPort) -> (String, bool) {
    match dialer.dial(server).await.unwrap_err() {
        error @ DialError::Proxy { .. } => (error.to_string(), error.is_retryable()),
        error => panic!("{error:?}"),
    }
}

/// TLS ends at the server and not at the proxy.
async fn works_with_tls_through(proxy: &Program) {
    let directory = tempfile::tempdir().unwrap();
    let ca = DevCa::create_or_load(directory.path().join("ca")).unwrap();
    let names = ["gw.example".parse().unwrap()];
    let issued = ca.issue(&names, Purpose::Server, Duration::from_secs(3600)).unwrap();
    let server = ServerTls::builder(Pem::text(issued.chain), Pem::text(issued.key));
    let server = ServerSecurity::tls(&server.build().unwrap(), &[b"http/1.1"]);
    let client = ClientTls::builder(Trust::ca(Pem::file(ca.certificate_file())));
    let host = "gw.example".parse().unwrap();
    let client = ClientSecurity::tls(&client.build().unwrap(), &host, &[b"http/1.1"]).unwrap();

    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut acceptor = TcpAcceptor::bind(local, SocketOptions::default()).unwrap();
    let port = acceptor.local_addr().unwrap().port();
    let near = async {
        let dialled = dialer(proxy, "me:hunter2@").dial(&at(port)).await.unwrap();
        client.secure(dialled.io, "gw.example").await.unwrap()
    };
    let far = async {
        let accepted = acceptor.accept().await.unwrap();
        server.secure(accepted.open().unwrap()).await.unwrap()
    };
    let ((mut near, identity), (mut far, _)) = tokio::join!(near, far);
    assert_eq!(identity.dns, ["gw.example"]);
    far.write_all(b"hello").await.unwrap();
    far.shutdown().await.unwrap();
    let mut text = String::new();
    near.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
}

async fn works_through(proxy: &Program) {
    let server = echo().await;
    let dialled = dialer(proxy, "me:%68unter2@").dial(&server).await.unwrap();
    assert_eq!(dialled.remote_addr, proxy.addr());
    let sent: Vec<u8> = (0..1_000_003u32).map(|n| (n % 251) as u8).collect();
    let (mut rx, mut tx) = tokio::io::split(dialled.io);
    let mut received = vec![0; 6 + sent.len()];
    let (written, read) = tokio::join!(tx.write_all(&sent), rx.read_exact(&mut received));
    written.unwrap();
    read.unwrap();
    assert_eq!(&received[..6], b"hello\n");
    assert!(received[6..] == sent);

    let (missing, is_retryable) = refusal(&dialer(proxy, ""), &server).await;
    assert!(
        missing.contains(": 407 ") && missing.ends_with("give a user name and password in its URL"),
        "{missing}"
    );
    assert!(!is_retryable);
    let (wrong, is_retryable) = refusal(&dialer(proxy, "me:wrong@"), &server).await;
    assert!(wrong.contains(&format!("refused CONNECT to {server}: 40")), "{wrong}");
    assert!(wrong.contains(": 407 ") != is_retryable, "{wrong}");

    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (failed, is_retryable) = refusal(&dialer(proxy, "me:%68unter2@"), &at(nobody)).await;
    assert!(failed.contains(": 50"), "{failed}");
    assert!(is_retryable);
}

#[tokio::test]
async fn tinyproxy_works() {
    if let Some(proxy) = programs::tinyproxy().await {
        works_through(&proxy).await;
        works_with_tls_through(&proxy).await;
    }
}

#[tokio::test]
async fn squid_works() {
    if let Some(proxy) = programs::squid().await {
        works_through(&proxy).await;
        works_with_tls_through(&proxy).await;
    }
}
