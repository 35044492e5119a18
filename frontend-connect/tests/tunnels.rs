//! Tunnels over real sockets: bytes, ends, resets, drain and kill.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::{io, time::Duration};

use frontend_connect::{Endpoint, UnixEndpoint};
use support::{REQUEST, Running, config, move_both_ways, read_200, read_to_end, soon};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};
use tunnel_core::{RecvError, StreamCode};

/// Longer than any test takes.
const FOREVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn bytes_go_both_ways() {
    let mut frontend = Running::tcp(config()).await;
    let (client, far) = frontend.tunnel().await;
    move_both_ways(client, far).await;
}

#[tokio::test]
async fn the_client_may_end_its_half_first() {
    let mut frontend = Running::tcp(config()).await;
    let (mut client, far) = frontend.tunnel().await;
    let mut far = far.into_io();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut far).await, "question");
    far.write_all(b"answer").await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await, "answer");
}

#[tokio::test]
async fn the_target_may_end_its_half_first() {
    let mut frontend = Running::tcp(config()).await;
    let (mut client, far) = frontend.tunnel().await;
    let mut far = far.into_io();
    far.write_all(b"farewell").await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await, "farewell");
    client.write_all(b"wait, there is more").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut far).await, "wait, there is more");
}

#[tokio::test]
async fn a_client_that_ends_its_half_at_once_still_hears_the_target() {
    let mut config = config();
    config.hold = FOREVER;
    let mut frontend = Running::tcp(config).await;
    let (mut client, far) = frontend.tunnel().await;
    client.shutdown().await.unwrap();
    let mut far = far.into_io();
    assert_eq!(read_to_end(&mut far).await, "");
    far.write_all(b"hello").await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await, "hello");
}

#[tokio::test]
async fn a_client_that_resets_resets_the_stream() {
    let mut frontend = Running::tcp(config()).await;
    let (mut client, mut far) = frontend.tunnel().await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(soon(far.rx.recv(100)).await.unwrap().unwrap(), "x");
    client.set_zero_linger().unwrap();
    drop(client);
    match soon(far.rx.recv(100)).await {
        Err(RecvError::Reset(code)) => assert_eq!(code, StreamCode::TARGET_RESET),
        other => panic!("{other:?}"),
    }
    assert_eq!(soon(far.tx.stopped()).await.unwrap(), StreamCode::TARGET_RESET);
}

#[tokio::test]
async fn a_client_that_resets_before_it_has_spoken_resets_the_stream() {
    let mut config = config();
    config.hold = FOREVER;
    let mut frontend = Running::tcp(config).await;
    let (client, mut far) = frontend.tunnel().await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert!(matches!(
        soon(far.rx.recv(100)).await,
        Err(RecvError::Reset(StreamCode::TARGET_RESET))
    ));
}

#[tokio::test]
async fn a_reset_stream_resets_the_client() {
    let mut frontend = Running::tcp(config()).await;
    let (mut client, mut far) = frontend.tunnel().await;
    far.tx.reset(StreamCode::TARGET_RESET);
    let error = soon(client.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_lost_stream_resets_the_client() {
    let mut frontend = Running::tcp(config()).await;
    let (mut client, far) = frontend.tunnel().await;
    drop(far);
    let error = soon(client.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn nothing_arrives_with_the_200_at_a_client_that_speaks_first() {
    let mut config = config();
    config.hold = FOREVER;
    let mut frontend = Running::tcp(config).await;
    let mut client = frontend.connect().await;
    client.write_all(REQUEST).await.unwrap();
    let mut far = frontend.dial().await.accept().into_io();
    // The target speaks at once, the client a good while later.
    far.write_all(b"from the target").await.unwrap();
    read_200(&mut client).await;
    let mut buffer = [0; 100];
    assert_eq!(
        client.try_read(&mut buffer).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    client.write_all(b"from the client").await.unwrap();
    let read = soon(client.read(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..read], b"from the target");
}

#[tokio::test]
async fn a_target_that_speaks_first_is_heard_by_a_silent_client() {
    let mut frontend = Running::tcp(config()).await;
    let (mut client, far) = frontend.tunnel().await;
    let mut far = far.into_io();
    far.write_all(b"220 ready\r\n").await.unwrap();
    let mut banner = [0; 11];
    soon(client.read_exact(&mut banner)).await.unwrap();
    assert_eq!(&banner, b"220 ready\r\n");
}

#[tokio::test]
async fn draining_lets_tunnels_finish_and_takes_no_more() {
    let mut frontend = Running::tcp(config()).await;
    let (mut client, far) = frontend.tunnel().await;
    frontend.shutdown.drain.cancel();
    soon(async {
        while TcpStream::connect(frontend.addr()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut far = far.into_io();
    client.write_all(b"still here").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut far).await, "still here");
    assert!(!frontend.task.is_finished());
    far.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await, "");
    soon(frontend.task).await.unwrap();
}

#[tokio::test]
async fn a_kill_ends_everything_and_looks_like_no_proper_end() {
    let mut config = config();
    config.hold = FOREVER;
    let mut frontend = Running::tcp(config).await;
    // One tunnel moves bytes, one is held behind its 200, one client waits, one has said nothing.
    let (mut client, mut far) = frontend.tunnel().await;
    client.write_all(b"x").await.unwrap();
    soon(far.rx.recv(100)).await.unwrap();
    let (mut held, mut held_far) = frontend.tunnel().await;
    let mut waiting = frontend.connect().await;
    waiting.write_all(REQUEST).await.unwrap();
    let dial = frontend.dial().await;
    let mut idle = frontend.connect().await;

    frontend.shutdown.kill.cancel();
    for client in [&mut client, &mut held] {
        let error = soon(client.read_u8()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    for far in [&mut far, &mut held_far] {
        let end = soon(far.rx.recv(100)).await;
        assert!(matches!(end, Err(RecvError::Reset(StreamCode::SHUTDOWN))), "{end:?}");
    }
    soon(dial.given_up()).await;
    for client in [&mut waiting, &mut idle] {
        // An end or a reset, but no answer.
        let mut answer = Vec::new();
        let _ = soon(client.read_to_end(&mut answer)).await;
        assert!(answer.is_empty());
    }
    soon(frontend.task).await.unwrap();
}

#[tokio::test]
async fn a_quiet_tunnel_ends_when_that_is_asked_for() {
    let mut config = config();
    config.idle_timeout = Some(Duration::from_millis(20));
    let mut frontend = Running::tcp(config).await;
    let (mut client, mut far) = frontend.tunnel().await;
    assert!(matches!(
        soon(far.rx.recv(100)).await,
        Err(RecvError::Reset(StreamCode::IDLE))
    ));
    soon(client.read_u8()).await.unwrap_err();
}

#[tokio::test]
async fn a_unix_socket_serves_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("connect.sock");
    let endpoint = Endpoint::Unix(UnixEndpoint::new(&path));
    assert_eq!(endpoint.to_string(), format!("connect+unix://{}", path.display()));
    let mut frontend = Running::start(endpoint, config()).await;
    let mut client = UnixStream::connect(&path).await.unwrap();
    client.write_all(REQUEST).await.unwrap();
    let dial = frontend.dial().await;
    assert_eq!(dial.request.client.addr, None);
    assert_eq!(dial.request.head.client, None);
    let mut far = dial.accept().into_io();
    read_200(&mut client).await;
    client.write_all(b"ping").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut far).await, "ping");
    far.write_all(b"pong").await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await, "pong");

    frontend.shutdown.drain.cancel();
    soon(frontend.task).await.unwrap();
    assert!(!path.exists());
}
