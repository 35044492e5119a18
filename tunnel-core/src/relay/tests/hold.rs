//! Letting the socket speak first, in virtual time.

use std::future::poll_fn;

use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    time::{Instant, sleep},
};

use super::*;

const HOLD: Duration = Duration::from_millis(20);

fn options() -> RelayOptions {
    RelayOptions {
        hold: Some(HOLD),
        ..RelayOptions::default()
    }
}

fn rig() -> Rig {
    Rig::plain(options())
}

/// Whether there is nothing to read now, not even an end.
async fn is_silent(socket: &mut DuplexStream) -> bool {
    settle().await;
    let mut byte = [0];
    poll_fn(|cx| {
        Poll::Ready(
            Pin::new(&mut *socket)
                .poll_read(cx, &mut ReadBuf::new(&mut byte))
                .is_pending(),
        )
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn what_the_stream_gives_waits_for_the_socket() {
    let mut rig = rig();
    let start = Instant::now();
    rig.peer.tx.send_all(Bytes::from_static(b"second")).await.unwrap();
    assert!(is_silent(&mut rig.socket).await);
    write(&mut rig.socket, "first").await;
    let mut text = [0; 6];
    rig.socket.read_exact(&mut text).await.unwrap();
    assert_eq!((&text, start.elapsed()), (b"second", Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn it_waits_so_long_from_the_beginning() {
    for delay in [Duration::ZERO, HOLD / 2, 2 * HOLD] {
        let mut rig = rig();
        let start = Instant::now();
        sleep(delay).await;
        rig.peer.tx.send_all(Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(rig.socket.read_u8().await.unwrap(), b'x');
        assert_eq!(start.elapsed(), delay.max(HOLD));
    }
}

#[tokio::test(start_paused = true)]
async fn so_does_the_end() {
    let mut rig = rig();
    let start = Instant::now();
    rig.peer.tx.finish().await.unwrap();
    assert!(is_silent(&mut rig.socket).await);
    assert_eq!(rig.socket.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(start.elapsed(), HOLD);
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_ends_has_spoken() {
    let mut rig = rig();
    let start = Instant::now();
    rig.peer.tx.send_all(Bytes::from_static(b"x")).await.unwrap();
    rig.socket.shutdown().await.unwrap();
    assert_eq!(rig.socket.read_u8().await.unwrap(), b'x');
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_takes_no_more_does_not_let_go() {
    let mut rig = rig();
    let start = Instant::now();
    rig.peer.rx.stop(StreamCode::CANCELLED);
    rig.peer.tx.send_all(Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(rig.socket.read_u8().await.unwrap(), b'x');
    assert_eq!(start.elapsed(), HOLD);
}

/// Not even if the relay has taken as much as it holds.
#[tokio::test(start_paused = true)]
async fn a_reset_does_not_wait() {
    let mut rig = Rig::new(4096, 1 << 20, options());
    let start = Instant::now();
    rig.peer.tx.send_all(pattern(1 << 17).into()).await.unwrap();
    settle().await;
    rig.peer.tx.reset(StreamCode::TARGET_RESET);
    let report = rig.relay.await.unwrap();
    assert!(matches!(report.ended, End::PeerReset(StreamCode::TARGET_RESET)));
    assert_eq!(start.elapsed(), Duration::ZERO);
}
