//! Sockets that move to another runtime.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::UnixStream,
};
use tunnel_testkit::OtherThread;

use super::{tcp::tcp_pair, *};

/// Sends more than the sockets hold, there and back, so that both ends have to wait.
async fn both_ways(near: impl AsyncRead + AsyncWrite, far: impl AsyncRead + AsyncWrite) {
    let data = pattern(8 * 1024 * 1024);
    let (mut near_rx, mut near_tx) = tokio::io::split(near);
    let (mut far_rx, mut far_tx) = tokio::io::split(far);
    let mut back = vec![0; data.len()];
    let there = near_tx.write_all(&data);
    let echo = tokio::io::copy(&mut far_rx, &mut far_tx);
    let read = near_rx.read_exact(&mut back);
    tokio::select! {
        result = async { tokio::try_join!(there, read) } => drop(result.unwrap()),
        result = echo => panic!("{result:?}"),
    }
    assert!(back == data);
}

#[tokio::test]
async fn a_tcp_socket_moves() {
    let other = OtherThread::new();
    let (mut near, mut far) = other.runtime().spawn(tcp_pair()).await.unwrap();
    let addr = near.local_addr().unwrap();
    for socket in [&mut near, &mut far] {
        socket.settle().unwrap();
    }
    drop(other);
    assert_eq!(near.local_addr().unwrap(), addr);
    both_ways(near, far).await;
}

#[tokio::test]
async fn a_unix_socket_moves() {
    let other = OtherThread::new();
    let pair = other.runtime().spawn(async { UnixStream::pair().unwrap() });
    let (mut near, mut far) = pair.await.unwrap();
    for socket in [&mut near, &mut far] {
        socket.settle().unwrap();
    }
    drop(other);
    both_ways(near, far).await;
}

#[tokio::test]
async fn what_has_moved_can_still_be_reset() {
    let other = OtherThread::new();
    let (mut near, mut far) = other.runtime().spawn(tcp_pair()).await.unwrap();
    far.settle().unwrap();
    near.settle().unwrap();
    drop(other);
    near.abort();
    drop(near);
    let error = far.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// The law behind the others: without settling it would not work.
#[tokio::test]
async fn what_stays_ends_with_its_runtime() {
    let other = OtherThread::new();
    let (mut near, _far) = other.runtime().spawn(tcp_pair()).await.unwrap();
    drop(other);
    assert!(near.read(&mut [0]).await.is_err());
}
