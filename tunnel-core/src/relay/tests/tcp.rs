//! Resets, over loopback.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

/// A socket pair: the test's end and the relay's.
pub(super) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (far, listener.accept().await.unwrap().0)
}

struct TcpRig {
    socket: TcpStream,
    peer: Duplex,
    relay: JoinHandle<RelayReport>,
}

impl TcpRig {
    async fn new() -> Self {
        let (socket, near) = tcp_pair().await;
        let (stream, peer) = pair(1 << 20);
        let relay = tokio::spawn(relay(near, Bytes::new(), stream, RelayOptions::new(Party::Target)));
        Self { socket, peer, relay }
    }
}

#[tokio::test]
async fn a_reset_socket_resets_and_stops_the_stream() {
    let mut rig = TcpRig::new().await;
    rig.socket.set_zero_linger().unwrap();
    drop(rig.socket);
    let received = recv_all(&mut rig.peer).await;
    assert!(
        matches!(received, Err(RecvError::Reset(StreamCode::TARGET_RESET))),
        "{received:?}"
    );
    assert_eq!(rig.peer.tx.stopped().await.unwrap(), StreamCode::TARGET_RESET);
    assert_eq!(rig.relay.await.unwrap().to_string(), "the target reset the connection");
}

#[tokio::test]
async fn a_reset_stream_resets_the_socket() {
    let mut rig = TcpRig::new().await;
    rig.socket.write_all(b"some bytes").await.unwrap();
    rig.peer.rx.recv(10).await.unwrap();
    rig.peer.tx.reset(StreamCode::CANCELLED);
    let error = rig.socket.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_lost_connection_resets_the_socket() {
    let (mut socket, near) = tcp_pair().await;
    let (stream, _peer, lose) = crate::stream::pair::pair_with_cut(64);
    let relay = tokio::spawn(relay(near, Bytes::new(), stream, RelayOptions::new(Party::Client)));
    lose(crate::error::ConnectionError::TimedOut {
        after: Duration::from_secs(15),
    });
    let error = socket.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    relay.await.unwrap();
}

#[tokio::test]
async fn a_dropped_relay_resets_the_socket() {
    let mut rig = TcpRig::new().await;
    rig.socket.write_all(b"x").await.unwrap();
    rig.peer.rx.recv(1).await.unwrap();
    rig.relay.abort();
    let error = rig.socket.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_came_before_a_reset_found_by_writing_goes_on_and_then_the_reset() {
    let (mut socket, near) = tcp_pair().await;
    let (stream, mut peer) = pair(4);
    let relay = tokio::spawn(relay(near, Bytes::new(), stream, RelayOptions::new(Party::Target)));

    // Credit for four bytes only, so that the rest of the answer waits in the socket.
    socket.write_all(b"answ").await.unwrap();
    while peer.rx.recv(4).await.unwrap().is_none() {}
    socket.write_all(&pattern(100_000)).await.unwrap();
    settle().await;
    socket.set_zero_linger().unwrap();
    drop(socket);
    peer.tx.send_all(Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(peer.tx.stopped().await.unwrap(), StreamCode::TARGET_RESET);
    let mut received = Vec::new();
    let end = loop {
        match peer.rx.recv(4).await {
            Ok(Some(bytes)) => received.extend_from_slice(&bytes),
            end => break end,
        }
    };
    assert!(
        matches!(end, Err(RecvError::Reset(StreamCode::TARGET_RESET))),
        "{end:?}"
    );
    assert!(pattern(100_000).starts_with(&received));
    assert!(matches!(relay.await.unwrap().ended, End::SocketReset));
}

#[tokio::test]
async fn the_last_bytes_reach_a_socket_that_still_sends() {
    let mut rig = TcpRig::new().await;
    rig.peer.rx.stop(StreamCode::TARGET_RESET);
    // Enough that the relay, which reads no more, leaves bytes unread.
    rig.socket.write_all(&pattern(100_000)).await.unwrap();
    rig.peer.tx.send_all(pattern(500_000).into()).await.unwrap();
    rig.peer.tx.finish().await.unwrap();
    let mut answer = Vec::new();
    rig.socket.read_to_end(&mut answer).await.unwrap();
    assert!(answer == pattern(500_000), "{} bytes", answer.len());
    drop(rig.socket);
    rig.relay.await.unwrap();
}
