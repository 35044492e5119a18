//! What an idle relay holds, and how buffers follow the traffic.

use std::{future::poll_fn, task::Waker};

use tokio::net::TcpStream;

use super::{
    buffer::{LARGE, MEDIUM, ReadBuffer, SMALL},
    crowd::Crowd,
    *,
};

#[test]
fn the_future_is_small() {
    let size = size_of::<Relay<TcpStream>>();
    assert!((300..=448).contains(&size), "{size} bytes");
}

#[tokio::test(start_paused = true)]
async fn an_idle_relay_holds_no_buffers() {
    let (mut socket, near) = duplex(1 << 20);
    let (stream, mut peer) = pair(1 << 20);
    let mut relay = relay(near, Bytes::new(), stream, RelayOptions::default());
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        socket.write_all(&pattern(200_000)).await.unwrap();
        peer.tx.send_all(pattern(200_000).into()).await.unwrap();
        let mut left = 200_000;
        while left > 0 {
            assert!(Pin::new(&mut relay).poll(&mut cx).is_pending());
            if let Poll::Ready(bytes) = poll_once(&mut peer, 200_000).await {
                left -= bytes;
            }
            // A new budget for the task.
            tokio::task::yield_now().await;
        }
        drain(&mut socket, 200_000).await;
    }
    assert!(relay.sent > 10 << 20);
    assert!(Pin::new(&mut relay).poll(&mut cx).is_pending());
    assert_eq!((relay.sending.buffer.held(), relay.receiving.held()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_there_is_no_room_for_stays_in_the_socket() {
    let (mut socket, near) = duplex(64 << 10);
    let (stream, mut peer) = pair(1000);
    let mut relay = relay(near, Bytes::new(), stream, RelayOptions::default());
    let mut cx = Context::from_waker(Waker::noop());
    socket.write_all(&pattern(10_000)).await.unwrap();
    for taken in (1000..=10_000).step_by(1000) {
        assert!(Pin::new(&mut relay).poll(&mut cx).is_pending());
        assert_eq!((relay.sent, relay.sending.buffer.held()), (taken, 0));
        assert_eq!(poll_once(&mut peer, 1000).await, Poll::Ready(1000));
    }
    // Who waits for room hears that the stream was stopped.
    socket.write_all(&pattern(2000)).await.unwrap();
    assert!(Pin::new(&mut relay).poll(&mut cx).is_pending());
    peer.rx.stop(StreamCode::TARGET_RESET);
    assert!(Pin::new(&mut relay).poll(&mut cx).is_pending());
    assert_eq!(relay.sending_half, Half::Broken);
}

async fn poll_once(peer: &mut Duplex, max: usize) -> Poll<usize> {
    poll_fn(|cx| {
        let recv = peer.rx.poll_recv(cx, max);
        Poll::Ready(recv.map(|bytes| bytes.unwrap().unwrap().len()))
    })
    .await
}

async fn drain(socket: &mut DuplexStream, len: usize) {
    let mut all = vec![0; len];
    tokio::io::AsyncReadExt::read_exact(socket, &mut all).await.unwrap();
}

/// Reads what the socket has, and gives the size of each read.
async fn burst(buffer: &mut ReadBuffer, near: &mut DuplexStream, socket: &mut DuplexStream, len: usize) -> Vec<usize> {
    socket.write_all(&vec![0; len]).await.unwrap();
    let mut sizes = Vec::new();
    let reads = poll_fn(|cx| {
        while let Poll::Ready(read) = buffer.poll_read(cx, near, usize::MAX) {
            sizes.push(read.unwrap().unwrap().len());
        }
        Poll::Ready(())
    });
    tokio::task::unconstrained(reads).await;
    sizes
}

#[tokio::test(start_paused = true)]
async fn buffers_grow_with_the_traffic_and_shrink_with_it() {
    static ALONE: Crowd = Crowd::new();
    let (mut socket, mut near) = duplex(64 << 20);
    let mut buffer = ReadBuffer::in_crowd(&ALONE);

    // A stream begins small and doubles within its first burst, up to the first limit.
    let sizes = burst(&mut buffer, &mut near, &mut socket, 1 << 19).await;
    assert_eq!(sizes[..4], [SMALL, 2 * SMALL, 8 * SMALL, MEDIUM]);
    assert_eq!(sizes.iter().max(), Some(&MEDIUM));

    // Bulk earns the second limit.
    let sizes = burst(&mut buffer, &mut near, &mut socket, 16 << 20).await;
    assert_eq!(sizes.iter().max(), Some(&LARGE));

    // Small messages are then read into small buffers again.
    burst(&mut buffer, &mut near, &mut socket, 10).await;
    socket.write_all(&[0; 10]).await.unwrap();
    poll_fn(|cx| buffer.poll_read(cx, &mut near, usize::MAX)).await.unwrap();
    assert!(buffer.held() <= SMALL, "{}", buffer.held());
}

#[tokio::test(start_paused = true)]
async fn many_bulk_transfers_share_what_their_reads_hold() {
    static CROWD: Crowd = Crowd::new();
    let (mut socket, mut near) = duplex(64 << 20);
    let mut buffer = ReadBuffer::in_crowd(&CROWD);
    burst(&mut buffer, &mut near, &mut socket, 2 << 20).await;
    let mut others = Vec::new();
    for (members, largest) in [(128, LARGE), (256, LARGE / 2), (10_000, MEDIUM), (2, LARGE)] {
        // The one that reads is a member, too, amid its bursts.
        others.resize_with(members - 1, || CROWD.join());
        let sizes = burst(&mut buffer, &mut near, &mut socket, 4 << 20).await;
        assert_eq!(sizes.iter().max(), Some(&largest), "{members} of them: {sizes:?}");
    }
    others.clear();
    assert_eq!(CROWD.join().share(), LARGE);
    let all: Vec<_> = (0..256).map(|_| CROWD.join()).collect();
    assert_eq!(all[0].share(), LARGE / 2, "between bursts nobody is counted");
}
