//! Time limits and shutdown, in virtual time.

use tokio::time::{Instant, advance, sleep};

use super::*;

const LIMIT: Duration = Duration::from_secs(300);

fn idle() -> RelayOptions {
    RelayOptions {
        idle_limit: Some(LIMIT),
        ..RelayOptions::default()
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_relay_ends_at_its_limit() {
    let mut rig = Rig::plain(idle());
    let start = Instant::now();
    let report = rig.relay.await.unwrap();
    assert_eq!(start.elapsed(), LIMIT);
    assert_eq!(report.to_string(), "no byte moved for 300s");
    let received = recv_all(&mut rig.peer).await;
    assert!(
        matches!(received, Err(RecvError::Reset(StreamCode::IDLE))),
        "{received:?}"
    );
    assert_eq!(rig.peer.tx.stopped().await.unwrap(), StreamCode::IDLE);
}

#[tokio::test(start_paused = true)]
async fn a_byte_either_way_begins_the_limit_anew() {
    let mut rig = Rig::plain(idle());
    for _ in 0..3 {
        sleep(LIMIT - Duration::from_secs(1)).await;
        write(&mut rig.socket, "x").await;
        sleep(LIMIT - Duration::from_secs(1)).await;
        rig.peer.tx.send_all(Bytes::from_static(b"x")).await.unwrap();
    }
    let last = Instant::now();
    let report = rig.relay.await.unwrap();
    assert_eq!(last.elapsed(), LIMIT);
    assert_eq!((report.sent, report.received), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_a_relay_may_idle() {
    let rig = Rig::plain(RelayOptions::default());
    settle().await;
    advance(Duration::from_secs(365 * 24 * 3600)).await;
    settle().await;
    assert!(!rig.relay.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_limit_without_end_is_none() {
    let rig = Rig::plain(RelayOptions {
        idle_limit: Some(Duration::MAX),
        half_close_limit: Some(Duration::MAX),
        ..RelayOptions::default()
    });
    settle().await;
    assert!(!rig.relay.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_silent_half_closed_relay_ends_at_its_own_limit() {
    const HALF: Duration = Duration::from_secs(20);
    let mut rig = Rig::plain(RelayOptions {
        half_close_limit: Some(HALF),
        ..idle()
    });
    sleep(LIMIT / 2).await;
    rig.socket.shutdown().await.unwrap();
    assert_eq!(recv_all(&mut rig.peer).await.unwrap(), b"");
    sleep(HALF / 2).await;
    rig.peer.tx.send_all(Bytes::from_static(b"x")).await.unwrap();
    let last = Instant::now();
    let report = rig.relay.await.unwrap();
    assert_eq!(last.elapsed(), HALF);
    assert!(matches!(report.ended, End::HalfClosed(HALF)), "{report:?}");
    assert_eq!(rig.peer.tx.stopped().await.unwrap(), StreamCode::IDLE);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_it_at_once() {
    let token = CancellationToken::new();
    let mut rig = Rig::plain(RelayOptions {
        shutdown: Some(token.clone()),
        ..RelayOptions::default()
    });
    settle().await;
    assert!(!rig.relay.is_finished());
    token.cancel();
    let report = rig.relay.await.unwrap();
    assert_eq!(report.to_string(), "this side ended it: the process is shutting down");
    let received = recv_all(&mut rig.peer).await;
    assert!(
        matches!(received, Err(RecvError::Reset(StreamCode::SHUTDOWN))),
        "{received:?}"
    );
}
