//! Whole bytes, half-close, counters and back-pressure, in memory.

use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use super::*;

#[tokio::test(start_paused = true)]
async fn early_bytes_go_first() {
    let (mut socket, near) = duplex(64);
    let (stream, mut peer) = pair(64);
    write(&mut socket, " and then the rest").await;
    socket.shutdown().await.unwrap();
    let options = RelayOptions::new(Party::Client);
    let relay = tokio::spawn(relay(
        near,
        Bytes::from_static(b"first the early ones"),
        stream,
        options,
    ));

    assert_eq!(
        recv_all(&mut peer).await.unwrap(),
        b"first the early ones and then the rest"
    );
    peer.tx.finish().await.unwrap();
    assert_eq!(relay.await.unwrap().sent, 38);
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_socket_still_receives() {
    let mut rig = Rig::plain(RelayOptions::new(Party::Client));
    write(&mut rig.socket, "question").await;
    rig.socket.shutdown().await.unwrap();
    assert_eq!(recv_all(&mut rig.peer).await.unwrap(), b"question");

    rig.peer.tx.send_all(Bytes::from_static(b"answer")).await.unwrap();
    rig.peer.tx.finish().await.unwrap();
    let mut answer = String::new();
    rig.socket.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");

    let report = rig.relay.await.unwrap();
    assert!(matches!(report.ended, End::SocketFinished), "{report:?}");
    assert_eq!(report.to_string(), "the client finished, then the peer");
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_peer_still_receives() {
    let mut rig = Rig::plain(RelayOptions::new(Party::Target));
    rig.peer.tx.send_all(Bytes::from_static(b"question")).await.unwrap();
    rig.peer.tx.finish().await.unwrap();
    let mut question = String::new();
    rig.socket.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");

    write(&mut rig.socket, "answer").await;
    drop(rig.socket);
    assert_eq!(recv_all(&mut rig.peer).await.unwrap(), b"answer");

    let report = rig.relay.await.unwrap();
    assert!(matches!(report.ended, End::PeerFinished), "{report:?}");
    assert_eq!(report.to_string(), "the peer finished, then the target");
}

#[tokio::test(start_paused = true)]
async fn bytes_are_counted_while_they_pass() {
    let counters = Arc::new(Counters::default());
    let mut options = RelayOptions::new(Party::Client);
    options.meter = Some(counters.clone());
    let mut rig = Rig::plain(options);

    write(&mut rig.socket, "12345").await;
    rig.peer.tx.send_all(Bytes::from_static(b"123")).await.unwrap();
    settle().await;
    assert_eq!((counters.sent(), counters.received()), (5, 3));

    write(&mut rig.socket, "678").await;
    settle().await;
    assert_eq!((counters.sent(), counters.received()), (8, 3));

    drop(rig.socket);
    rig.peer.tx.finish().await.unwrap();
    assert_eq!(recv_all(&mut rig.peer).await.unwrap(), b"12345678");
    let report = rig.relay.await.unwrap();
    assert_eq!((report.sent, report.received), (8, 3));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_bounds_what_is_read_from_the_socket() {
    const PIPE: usize = 4096;
    const WINDOW: usize = 1000;
    let Rig {
        mut socket,
        mut peer,
        relay,
    } = Rig::new(PIPE, WINDOW, RelayOptions::default());
    let accepted = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let writer = tokio::spawn({
        let accepted = accepted.clone();
        async move {
            for byte in pattern(1 << 20) {
                socket.write_u8(byte).await.unwrap();
                accepted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    for _ in 0..100 {
        settle().await;
    }
    let bound = PIPE + WINDOW + buffer::MEDIUM;
    let stalled = accepted.load(std::sync::atomic::Ordering::Relaxed);
    assert!((WINDOW..=bound).contains(&stalled), "{stalled} bytes taken");

    // The other direction does not wait for it, and nothing is lost.
    peer.tx.finish().await.unwrap();
    assert_eq!(recv_all(&mut peer).await.unwrap(), pattern(1 << 20));
    writer.await.unwrap();
    assert_eq!(relay.await.unwrap().sent, 1 << 20);
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_does_not_read_bounds_what_is_taken_from_the_stream() {
    const PIPE: usize = 100;
    const WINDOW: usize = 1000;
    let mut rig = Rig::new(PIPE, WINDOW, RelayOptions::default());
    let bound = PIPE + WINDOW + receiving::QUEUE_BYTES;
    let mut sent = 0;
    while let Ok(()) = tokio::time::timeout(Duration::from_secs(1), rig.peer.tx.send_all(pattern(10).into()))
        .await
        .map(Result::unwrap)
    {
        sent += 10;
        assert!(sent <= bound, "{sent} bytes taken");
    }
    assert!(sent >= WINDOW, "{sent} bytes taken");

    // The other direction does not wait for it.
    write(&mut rig.socket, "still here").await;
    rig.socket.shutdown().await.unwrap();
    assert_eq!(recv_all(&mut rig.peer).await.unwrap(), b"still here");
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_the_peer_ends_both_directions() {
    let mut rig = Rig::plain(RelayOptions::new(Party::Client));
    rig.peer.tx.reset(StreamCode::POLICY);
    let report = rig.relay.await.unwrap();
    assert!(matches!(report.ended, End::PeerReset(StreamCode::POLICY)), "{report:?}");
    let received = recv_all(&mut rig.peer).await;
    assert!(
        matches!(received, Err(RecvError::Reset(StreamCode::POLICY))),
        "{received:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_noticed_behind_a_socket_that_does_not_read() {
    // Once with the stop that usually comes beside it, and once with that half ended long before.
    for finish_first in [false, true] {
        let mut rig = Rig::new(100, 1000, RelayOptions::new(Party::Target));
        if finish_first {
            rig.socket.shutdown().await.unwrap();
        }
        let stuck = rig.peer.tx.send_all(pattern(1 << 20).into());
        tokio::time::timeout(Duration::from_secs(1), stuck).await.unwrap_err();
        if !finish_first {
            rig.peer.rx.stop(StreamCode::TARGET_RESET);
        }
        settle().await;
        assert!(!rig.relay.is_finished());
        rig.peer.tx.reset(StreamCode::TARGET_RESET);
        settle().await;
        assert!(rig.relay.is_finished());
        assert!(!rig.relay.await.unwrap().ended.is_clean());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_the_peer_leaves_the_other_direction_open() {
    let mut rig = Rig::plain(RelayOptions::new(Party::Target));
    rig.peer.rx.stop(StreamCode::CANCELLED);
    settle().await;
    rig.peer.tx.send_all(Bytes::from_static(b"go on")).await.unwrap();
    rig.peer.tx.finish().await.unwrap();
    let mut received = String::new();
    rig.socket.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "go on");

    // The socket's other end may still be sending.
    write(&mut rig.socket, "too late").await;
    drop(rig.socket);
    let report = rig.relay.await.unwrap();
    assert!(
        matches!(report.ended, End::PeerStopped(StreamCode::CANCELLED)),
        "{report:?}"
    );
    assert_eq!((report.sent, report.received), (0, 5));
}

#[tokio::test(start_paused = true)]
async fn a_parting_socket_is_not_waited_for_for_ever() {
    let mut rig = Rig::plain(RelayOptions::new(Party::Target));
    rig.peer.rx.stop(StreamCode::CANCELLED);
    settle().await;
    rig.peer.tx.finish().await.unwrap();
    let start = tokio::time::Instant::now();
    rig.relay.await.unwrap();
    assert_eq!(start.elapsed(), PARTING);
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_the_peer_after_its_end_ends_the_relay() {
    let mut rig = Rig::plain(RelayOptions::new(Party::Target));
    rig.peer.tx.finish().await.unwrap();
    settle().await;
    rig.peer.rx.stop(StreamCode::TARGET_RESET);
    let report = rig.relay.await.unwrap();
    assert!(
        matches!(report.ended, End::PeerStopped(StreamCode::TARGET_RESET)),
        "{report:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_ends_the_relay() {
    let (_socket, near) = duplex(64);
    let (stream, _peer, lose) = crate::stream::pair::pair_with_cut(64);
    let relay = tokio::spawn(relay(near, Bytes::new(), stream, RelayOptions::new(Party::Client)));
    settle().await;
    lose(crate::error::ConnectionError::TimedOut {
        after: Duration::from_secs(15),
    });
    let report = relay.await.unwrap();
    assert_eq!(
        report.to_string(),
        "the tunnel's connection was lost: the peer has been silent for 15s"
    );
}

#[tokio::test(start_paused = true)]
async fn what_arrived_before_the_connection_was_lost_goes_on() {
    let (mut socket, near) = duplex(64);
    let (stream, mut peer, lose) = crate::stream::pair::pair_with_cut(1 << 20);
    let relay = tokio::spawn(relay(near, Bytes::new(), stream, RelayOptions::new(Party::Client)));
    peer.tx.send_all(pattern(1 << 20).into()).await.unwrap();
    peer.tx.finish().await.unwrap();
    settle().await;
    lose(crate::error::ConnectionError::TimedOut {
        after: Duration::from_secs(15),
    });
    let mut received = Vec::new();
    socket.read_to_end(&mut received).await.unwrap();
    assert!(received == pattern(1 << 20), "{} bytes", received.len());
    drop(socket);
    let report = relay.await.unwrap();
    assert!(matches!(report.ended, End::ConnectionLost(_)), "{report:?}");
}

/// The relay has taken it, and the socket not yet.
#[tokio::test(start_paused = true)]
async fn what_the_relay_has_taken_goes_on_when_the_connection_is_lost() {
    let (mut socket, near) = duplex(64);
    let (stream, mut peer, lose) = crate::stream::pair::pair_with_cut(1 << 20);
    let relay = tokio::spawn(relay(near, Bytes::new(), stream, RelayOptions::new(Party::Client)));
    peer.tx.send_all(pattern(1000).into()).await.unwrap();
    settle().await;
    lose(crate::error::ConnectionError::TimedOut {
        after: Duration::from_secs(15),
    });
    settle().await;
    let mut received = vec![0; 1000];
    socket.read_exact(&mut received).await.unwrap();
    assert!(received == pattern(1000));
    let report = relay.await.unwrap();
    assert!(matches!(report.ended, End::ConnectionLost(_)), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_relay_is_no_clean_end() {
    let mut rig = Rig::plain(RelayOptions::default());
    settle().await;
    rig.relay.abort();
    let received = recv_all(&mut rig.peer).await;
    assert!(
        matches!(received, Err(RecvError::Reset(StreamCode::CANCELLED))),
        "{received:?}"
    );
    assert_eq!(rig.peer.tx.stopped().await.unwrap(), StreamCode::CANCELLED);
}

#[tokio::test(start_paused = true)]
async fn a_relay_can_be_ended_with_a_code() {
    let (_socket, near) = duplex(64);
    let (stream, mut peer) = pair(64);
    let report = relay(near, Bytes::new(), stream, RelayOptions::new(Party::Client)).end(StreamCode::POLICY);
    assert!(matches!(report.ended, End::Local(StreamCode::POLICY)), "{report:?}");
    let received = recv_all(&mut peer).await;
    assert!(
        matches!(received, Err(RecvError::Reset(StreamCode::POLICY))),
        "{received:?}"
    );
    assert_eq!(peer.tx.stopped().await.unwrap(), StreamCode::POLICY);
}

/// Pieces of a transfer: sizes, and whether the sender lets others run behind each.
fn pieces() -> impl Strategy<Value = Vec<(usize, bool)>> {
    proptest::collection::vec(
        (
            prop_oneof![1..10_usize, 1..5_000_usize, 1..100_000_usize],
            any::<bool>(),
        ),
        0..12,
    )
}

fn total(pieces: &[(usize, bool)]) -> usize {
    pieces.iter().map(|(len, _)| len).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_byte_arrives_in_order_both_ways(
        there in pieces(),
        back in pieces(),
        pipe in 1..70_000_usize,
        window in 1..70_000_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new(pipe, window, RelayOptions::default());
            let (mut socket_rx, mut socket_tx) = tokio::io::split(rig.socket);
            let Duplex { tx: mut peer_tx, rx: peer_rx } = rig.peer;
            let (out, mut answer) = (pattern(total(&there)), Bytes::from(pattern(total(&back))));

            let client = tokio::spawn({
                let out = out.clone();
                async move {
                    let mut rest = &out[..];
                    for (len, pause) in there {
                        let (piece, after) = rest.split_at(len);
                        socket_tx.write_all(piece).await.unwrap();
                        rest = after;
                        if pause {
                            tokio::task::yield_now().await;
                        }
                    }
                    socket_tx.shutdown().await.unwrap();
                }
            });
            let sender = tokio::spawn(async move {
                for (len, pause) in back {
                    peer_tx.send_all(answer.split_to(len)).await.unwrap();
                    if pause {
                        tokio::task::yield_now().await;
                    }
                }
                peer_tx.finish().await.unwrap();
                peer_tx
            });
            let reader = tokio::spawn(async move {
                let mut all = Vec::new();
                socket_rx.read_to_end(&mut all).await.unwrap();
                all
            });
            let mut peer = Duplex { tx: pair(1).0.tx, rx: peer_rx };
            let received = recv_all(&mut peer).await.unwrap();
            assert!(received == out, "the bytes from the socket differ");
            let received = reader.await.unwrap();
            client.await.unwrap();
            sender.await.unwrap();
            assert!(received == pattern(received.len()), "the bytes from the stream differ");
            let report = rig.relay.await.unwrap();
            assert!(report.ended.is_clean(), "{report:?}");
            assert_eq!(report.sent, out.len() as u64);
            assert_eq!(report.received, received.len() as u64);
        });
    }
}
