//! What the memory carrier does beyond the laws: its wire, its backlog, its bounds.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy exempts only functions marked as tests"
)]

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    join,
    time::{Instant, timeout},
};
use tunnel_core::{
    Admission, Admitted, Arrival, Carrier, Claim, CloseCode, Connection, ConnectionError, DialError, Duplex,
    Generation, HandshakeError, Incoming, Initiator, Listener, Rejection, StreamHead, Target, Welcome,
};
use tunnel_testkit::memory::{self, Config, MemoryCarrier, MemoryListener};

#[derive(Debug)]
struct Welcoming;

#[async_trait]
impl Admission for Welcoming {
    async fn admit(&self, arrival: &Arrival) -> Result<Admitted, Rejection> {
        Ok(Admitted {
            identity: arrival.identity.clone(),
            welcome: Welcome::new("server".parse().unwrap()),
        })
    }
}

type Ends = (Arc<dyn Connection>, Arc<dyn Connection>);

fn claim() -> Claim {
    Claim::new("agent".parse().unwrap(), Generation(1))
}

fn head() -> StreamHead {
    StreamHead::new(Target::from_authority("localhost:80").unwrap())
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

async fn connect(carrier: &MemoryCarrier, listener: &mut MemoryListener) -> Ends {
    let claim = claim();
    let (agent, server) = join!(carrier.dial(&claim, soon()), async {
        listener.accept().await.unwrap().handshake(&Welcoming).await
    });
    (agent.unwrap(), server.unwrap())
}

async fn open(near: &Arc<dyn Connection>, far: &Arc<dyn Connection>) -> (Duplex, Duplex) {
    let (near, far) = join!(near.open(head()), async { far.accept().await.unwrap().accept().await });
    (near.unwrap(), far.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_silent_wire_is_noticed_within_the_bound_and_a_short_silence_is_survived() {
    let (carrier, mut listener) = memory::pair(Config::default());
    let (agent, server) = connect(&carrier, &mut listener).await;
    let (mut near, mut far) = open(&agent, &server).await;
    let bound = memory::Config::default().keepalive.bound();

    carrier.wire().silence();
    near.tx.send_all(Bytes::from_static(b"held back")).await.unwrap();
    near.tx.finish().await.unwrap();
    tokio::time::sleep(bound - Duration::from_secs(1)).await;
    carrier.wire().restore();
    assert_eq!(far.rx.recv(100).await.unwrap().unwrap(), "held back");
    assert!(far.rx.recv(100).await.unwrap().is_none());

    let since = Instant::now();
    carrier.wire().silence();
    for connection in [agent, server] {
        assert!(matches!(connection.closed().await, ConnectionError::TimedOut { after } if after == bound));
        assert_eq!(since.elapsed(), bound);
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_end_did_in_silence_reaches_the_other_afterwards() {
    let (carrier, mut listener) = memory::pair(Config::default());
    let (agent, server) = connect(&carrier, &mut listener).await;
    let (near, mut far) = open(&agent, &server).await;

    carrier.wire().silence();
    drop(near);
    agent.drain();
    agent.close(CloseCode::SHUTDOWN, "bye");
    assert_eq!(agent.closed().await.initiator(), Initiator::Local);
    for knows in [
        timeout(Duration::from_secs(1), server.draining()).await.is_ok(),
        timeout(Duration::from_secs(1), server.closed()).await.is_ok(),
        timeout(Duration::from_secs(1), far.rx.recv(1)).await.is_ok(),
    ] {
        assert!(!knows, "news came over a silent wire");
    }
    carrier.wire().restore();
    server.draining().await;
    let error = server.closed().await;
    assert_eq!(
        (error.initiator(), error.code()),
        (Initiator::Remote, Some(CloseCode::DRAINED))
    );
    assert!(far.rx.recv(1).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn nobody_dials_over_a_cut_wire_and_the_other_wires_stay() {
    let (carrier, mut listener) = memory::pair(Config::default());
    let other = carrier.another(Default::default());
    let (agent, _server) = connect(&carrier, &mut listener).await;
    let (other_agent, other_server) = connect(&other, &mut listener).await;

    carrier.wire().cut();
    assert!(matches!(agent.closed().await, ConnectionError::Transport(_)));
    let refused = carrier.dial(&claim(), soon()).await;
    assert!(matches!(refused, Err(DialError::Unreachable { .. })));
    open(&other_agent, &other_server).await;

    carrier.wire().restore();
    let (agent, server) = connect(&carrier, &mut listener).await;
    open(&agent, &server).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_wire_has_the_bandwidth_it_says() {
    let (carrier, mut listener) = memory::pair(Config {
        bandwidth: NonZeroUsize::new(8 * 1024),
        ..Config::default()
    });
    let (agent, server) = connect(&carrier, &mut listener).await;
    let (mut near, mut far) = open(&agent, &server).await;
    let start = Instant::now();
    let sent = async {
        near.tx.send_all(vec![7; 1 << 20].into()).await.unwrap();
        near.tx.finish().await.unwrap();
    };
    let received = async {
        let mut received = 0;
        while let Some(bytes) = far.rx.recv(usize::MAX).await.unwrap() {
            received += bytes.len();
        }
        received
    };
    let ((), received) = join!(sent, received);
    assert_eq!(received, 1 << 20);
    let millis = start.elapsed().as_millis();
    assert!((127..=130).contains(&millis), "1 MiB at 8 KiB/ms took {millis} ms");
}

#[tokio::test(start_paused = true)]
async fn a_full_backlog_makes_dials_wait_until_their_deadline() {
    let (carrier, mut listener) = memory::pair(Config {
        backlog: 1,
        ..Config::default()
    });
    let _stuck = carrier.knock().await.unwrap();
    let start = Instant::now();
    let late = carrier.dial(&claim(), soon()).await;
    assert!(matches!(late, Err(DialError::TimedOut { .. })));
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    drop(listener.accept().await.unwrap());
    connect(&carrier, &mut listener).await;
}

#[tokio::test(start_paused = true)]
async fn a_dialler_that_leaves_ends_the_handshake() {
    let (carrier, mut listener) = memory::pair(Config::default());
    let stuck = carrier.knock().await.unwrap();
    let incoming: Box<dyn Incoming> = listener.accept().await.unwrap();
    let (result, ()) = join!(incoming.handshake(&Welcoming), async { drop(stuck) });
    assert!(matches!(result, Err(HandshakeError::Lost(_))));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_closes_the_connection_and_the_wire_forgets_it() {
    let (carrier, mut listener) = memory::pair(Config::default());
    let (agent, server) = connect(&carrier, &mut listener).await;
    drop(agent);
    assert_eq!(server.closed().await.code(), Some(CloseCode::DONE));
    drop(server);
    assert_eq!(carrier.wire().connections(), 0);
}
