//! Clients are served where they cost least.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use frontend_connect::{Config, Endpoint, UnixEndpoint};
use support::{REQUEST, Running, config, exchange, move_both_ways, pki::Pki, read_200, soon, status};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::UnixStream,
};
use tokio_rustls::TlsConnector;
use tunnel_core::Threads;
use tunnel_testkit::OtherThread;
use tunnel_tls::ClientAuth;

/// A configuration under which clients begin on another thread.
fn beginning(other: &OtherThread) -> Config {
    let mut config = config();
    config.threads = Threads::new([other.runtime().clone()]);
    config
}

/// Gets a tunnel whose stream is at home on a third thread, ends the one on which the client has begun, and uses it.
async fn moves<S>(mut frontend: Running, mut client: S, began: OtherThread)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let home = OtherThread::new();
    client.write_all(REQUEST).await.unwrap();
    let far = frontend.dial().await.accept_at(0, Some(home.runtime().clone()));
    read_200(&mut client).await;
    drop(began);
    move_both_ways(client, far).await;
}

#[tokio::test]
async fn a_tunnel_is_at_home_with_its_stream() {
    let began = OtherThread::new();
    let frontend = Running::tcp(beginning(&began)).await;
    let client = frontend.connect().await;
    moves(frontend, client, began).await;
}

#[tokio::test]
async fn under_tls_too() {
    let (pki, began) = (Pki::new(), OtherThread::new());
    let endpoint = Endpoint::Tls("127.0.0.1:0".parse().unwrap(), pki.server(ClientAuth::None));
    let frontend = Running::start(endpoint, beginning(&began)).await;
    let client = pki.client(None);
    let name = client.server_name("localhost").unwrap();
    let connector = TlsConnector::from(client.tcp_config(&[b"http/1.1"]));
    let client = connector.connect(name, frontend.connect().await).await.unwrap();
    moves(frontend, client, began).await;
}

#[tokio::test]
async fn on_a_unix_socket_too() {
    let (dir, began) = (tempfile::tempdir().unwrap(), OtherThread::new());
    let path = dir.path().join("connect.sock");
    let frontend = Running::start(Endpoint::Unix(UnixEndpoint::new(&path)), beginning(&began)).await;
    let client = UnixStream::connect(&path).await.unwrap();
    moves(frontend, client, began).await;
}

#[tokio::test]
async fn without_a_home_a_tunnel_stays() {
    let began = OtherThread::new();
    let mut frontend = Running::tcp(beginning(&began)).await;
    let (client, far) = frontend.tunnel().await;
    let (mut other, _far) = frontend.tunnel().await;
    move_both_ways(client, far).await;
    drop(began);
    assert!(soon(other.read(&mut [0])).await.is_err());
}

#[tokio::test]
async fn a_refusal_reaches_a_client_on_any_thread() {
    let began = OtherThread::new();
    let frontend = Running::tcp(beginning(&began)).await;
    let answer = exchange(&mut frontend.connect().await, b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(status(&answer), 405);
}

#[tokio::test]
async fn the_end_waits_for_tunnels_wherever_they_are() {
    let (began, home) = (OtherThread::new(), OtherThread::new());
    let mut frontend = Running::tcp(beginning(&began)).await;
    let mut client = frontend.connect().await;
    client.write_all(REQUEST).await.unwrap();
    let far = frontend.dial().await.accept_at(0, Some(home.runtime().clone()));
    read_200(&mut client).await;
    frontend.shutdown.drain.cancel();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!frontend.task.is_finished());
    move_both_ways(client, far).await;
    soon(frontend.task).await.unwrap();
}
