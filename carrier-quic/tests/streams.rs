//! What a stream is, over a simulated network in virtual time.

mod common;

use bytes::Bytes;
use carrier_quic::QuicConfig;
use common::{World, head, net::Link, read_all, stream};
use tunnel_core::{OpenError, RecvError, Refusal, RefusalKind, SendError, StreamCode};

fn world() -> World {
    World::new(QuicConfig::default(), Link::default())
}

#[tokio::test(start_paused = true)]
async fn bytes_flow_both_ways_and_each_half_ends_on_its_own() {
    let (agent, server) = world().connect().await;
    for (opener, acceptor) in [(&agent, &server), (&server, &agent)] {
        let (mut here, mut there) = stream(opener, acceptor).await;
        here.tx.send_all(Bytes::from_static(b"ping")).await.unwrap();
        here.tx.finish().await.unwrap();
        assert_eq!(read_all(&mut *there.rx).await.unwrap(), b"ping");
        there.tx.send_all(Bytes::from_static(b"pong")).await.unwrap();
        there.tx.finish().await.unwrap();
        assert_eq!(read_all(&mut *here.rx).await.unwrap(), b"pong");
    }
    assert_eq!(agent.stats().streams_open, 0);
    assert_eq!(server.stats().bytes_received, 8);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_arrives_with_its_kind_and_text() {
    let (agent, server) = world().connect().await;
    let refusal = Refusal::new(RefusalKind::ConnectionRefused, "nobody listens there");
    let (opened, ()) = tokio::join!(server.open(head()), async {
        agent.accept().await.unwrap().refuse(refusal.clone());
    });
    assert!(matches!(opened, Err(OpenError::Refused(got)) if got == refusal));
}

#[tokio::test(start_paused = true)]
async fn codes_cross() {
    let (agent, server) = world().connect().await;
    let (mut here, mut there) = stream(&server, &agent).await;
    here.tx.reset(StreamCode::POLICY);
    here.rx.stop(StreamCode::IDLE);
    assert!(matches!(
        there.rx.recv(1).await,
        Err(RecvError::Reset(StreamCode::POLICY))
    ));
    assert_eq!(there.tx.stopped().await.unwrap(), StreamCode::IDLE);
    assert!(matches!(
        there.tx.finish().await,
        Err(SendError::Stopped(StreamCode::IDLE))
    ));
}
