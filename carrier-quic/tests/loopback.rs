//! Over real UDP sockets on this machine, on a runtime with several threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use carrier_quic::{ClientEndpoint, QuicCarrier, QuicConfig, QuicListener};
use common::read_all;
use tokio::{sync::oneshot, time::Instant};
use tunnel_core::{Carrier, CloseCode, Connection, ConnectionError, DialError, Listener};
use tunnel_testkit::{
    OtherThread,
    ends::{Ends, Verdict, claim, handshake, head, stream},
    pki::Pki,
};
use tunnel_tls::ServerTls;

struct Real {
    listener: QuicListener,
    carrier: QuicCarrier,
}

impl Real {
    /// A server on this address, and an agent that dials it as `host`.
    fn new(addr: SocketAddr, host: &str) -> std::io::Result<Self> {
        let pki = Pki::new();
        let listener = QuicListener::bind(addr, &pki.server(), QuicConfig::default())?;
        let server = format!("{host}:{}", listener.local_addr()?.port());
        let carrier = QuicCarrier::new(server.parse().unwrap(), &pki.client(), QuicConfig::default()).unwrap();
        Ok(Self { listener, carrier })
    }
}

impl Ends for Real {
    fn ends(&mut self) -> (&dyn Carrier, &mut dyn Listener) {
        (&self.carrier, &mut self.listener)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_carry_their_own_bytes_both_ways() {
    let mut real = Real::new((Ipv4Addr::LOCALHOST, 0).into(), "127.0.0.1").unwrap();
    let (agent, server) = real.connect().await;
    let mut tasks = Vec::new();
    for number in 0..64_u8 {
        let (agent, server) = (Arc::clone(&agent), Arc::clone(&server));
        tasks.push(tokio::spawn(async move {
            let (opener, acceptor) = if number % 2 == 0 {
                (agent, server)
            } else {
                (server, agent)
            };
            let (mut here, mut there) = stream(&opener, &acceptor).await;
            let data = Bytes::from(vec![number; 300_000]);
            let echo = async {
                while let Some(bytes) = there.rx.recv(usize::MAX).await.unwrap() {
                    there.tx.send_all(bytes).await.unwrap();
                }
                there.tx.finish().await.unwrap();
            };
            let send = async {
                here.tx.send_all(data.clone()).await.unwrap();
                here.tx.finish().await.unwrap();
            };
            let ((), (), received) = tokio::join!(echo, send, read_all(&mut *here.rx));
            // Which stream meets which is not said; that each is whole is.
            let received = received.unwrap();
            assert_eq!(received.len(), data.len());
            assert!(received.iter().all(|byte| *byte == received[0]));
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(agent.stats().bytes_sent + server.stats().bytes_sent, 2 * 64 * 300_000);
    agent.close(CloseCode::SHUTDOWN, "");
    assert_eq!(server.closed().await.code(), Some(CloseCode::SHUTDOWN));
    real.listener.wait_idle().await;
}

#[tokio::test]
async fn a_name_is_resolved_and_the_address_that_answers_is_taken() {
    // Nobody listens on the IPv6 address that the name may have as well.
    let mut real = Real::new((Ipv4Addr::LOCALHOST, 0).into(), "localhost").unwrap();
    let (agent, _server) = real.connect().await;
    assert_eq!(agent.peer().remote_addr.ip(), Ipv4Addr::LOCALHOST);
}

#[tokio::test]
async fn an_ipv6_wildcard_takes_ipv4_as_well() {
    let Ok(mut real) = Real::new((Ipv6Addr::UNSPECIFIED, 0).into(), "127.0.0.1") else {
        println!("not tested: this system has no IPv6");
        return;
    };
    let (_agent, server) = real.connect().await;
    assert!(server.peer().remote_addr.ip().to_canonical().is_ipv4());
}

#[tokio::test]
async fn a_connection_survives_a_change_of_address() {
    let mut real = Real::new((Ipv4Addr::LOCALHOST, 0).into(), "127.0.0.1").unwrap();
    let endpoint = ClientEndpoint::bind(&QuicConfig::default()).unwrap();
    real.carrier = real.carrier.with_endpoint(endpoint.clone());
    let (agent, server) = real.connect().await;
    endpoint.rebind(&QuicConfig::default()).unwrap();
    let (mut here, mut there) = stream(&agent, &server).await;
    here.tx.send_all(Bytes::from_static(b"from elsewhere")).await.unwrap();
    here.tx.finish().await.unwrap();
    assert_eq!(read_all(&mut *there.rx).await.unwrap(), b"from elsewhere");
}

#[tokio::test]
async fn two_carriers_share_a_socket() {
    let mut one = Real::new((Ipv4Addr::LOCALHOST, 0).into(), "127.0.0.1").unwrap();
    let mut two = Real::new((Ipv4Addr::LOCALHOST, 0).into(), "127.0.0.1").unwrap();
    let endpoint = ClientEndpoint::bind(&QuicConfig::default()).unwrap();
    one.carrier = one.carrier.with_endpoint(endpoint.clone());
    two.carrier = two.carrier.with_endpoint(endpoint.clone());
    let (_agent, first) = one.connect().await;
    let (_agent, second) = two.connect().await;
    assert_eq!(first.peer().remote_addr.port(), second.peer().remote_addr.port());
}

#[tokio::test]
async fn each_runtime_dials_from_a_socket_of_its_own() {
    let Real { mut listener, carrier } = Real::new((Ipv4Addr::LOCALHOST, 0).into(), "127.0.0.1").unwrap();
    let carrier = Arc::new(carrier);
    let ([one, two], _) = OtherThread::several();
    let mut connections = Vec::new();
    for thread in [&one, &two, &one] {
        let carrier = Arc::clone(&carrier);
        let dial = async move { carrier.dial(&claim(), Instant::now() + Duration::from_secs(10)).await };
        let verdict = Verdict::default();
        let (agent, server) = tokio::join!(thread.runtime().spawn(dial), handshake(&mut listener, &verdict));
        connections.push((agent.unwrap().unwrap(), server.unwrap()));
    }
    let port = |number: usize| connections[number].1.peer().remote_addr.port();
    assert_eq!(port(0), port(2));
    assert_ne!(port(0), port(1));

    drop(one);
    let (agent, server) = &connections[1];
    let (mut here, mut there) = stream(agent, server).await;
    here.tx.send_all(Bytes::from_static(b"still here")).await.unwrap();
    here.tx.finish().await.unwrap();
    assert_eq!(read_all(&mut *there.rx).await.unwrap(), b"still here");
}

/// A server that can die without a word, and an agent that it has welcomed.
struct Mortal {
    addr: SocketAddr,
    tls: ServerTls,
    agent: Arc<dyn Connection>,
    die: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Mortal {
    async fn new() -> Self {
        let pki = Pki::new();
        let tls = pki.server();
        // A server dies with its runtime: nothing that it would still have to say is sent.
        let (ready, connected) = oneshot::channel();
        let (die, death) = oneshot::channel::<()>();
        let first = tls.clone();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut listener =
                    QuicListener::bind((Ipv4Addr::LOCALHOST, 0).into(), &first, QuicConfig::default()).unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                let incoming = listener.accept().await.unwrap();
                let connection = incoming.handshake(&Verdict::default()).await.unwrap();
                death.await.ok();
                drop((connection, listener));
            });
            runtime.shutdown_background();
        });
        let addr = connected.await.unwrap();
        let carrier =
            QuicCarrier::new(addr.to_string().parse().unwrap(), &pki.client(), QuicConfig::default()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let agent = carrier.dial(&claim(), deadline).await.unwrap();
        Self {
            addr,
            tls,
            agent,
            die,
            server,
        }
    }

    /// Kills the server. Gives the agent's connection, and what a successor needs.
    fn kill(self) -> (Arc<dyn Connection>, SocketAddr, ServerTls) {
        self.die.send(()).unwrap();
        self.server.join().unwrap();
        (self.agent, self.addr, self.tls)
    }
}

#[tokio::test]
async fn the_successor_of_a_server_that_died_tells_its_agents_so() {
    let (agent, addr, tls) = Mortal::new().await.kill();
    let successor = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            // The port is free once the last of the old runtime is gone.
            match QuicListener::bind(addr, &tls, QuicConfig::default()) {
                Ok(listener) => return listener,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let _successor = successor.await.unwrap();
    let noticed = tokio::time::timeout(Duration::from_secs(5), agent.open(head()));
    assert!(noticed.await.expect("within a third of the keepalive").is_err());
    assert!(!matches!(agent.closed().await, ConnectionError::TimedOut { .. }));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_system_of_a_server_that_died_tells_its_agents_so() {
    let (agent, addr, _) = Mortal::new().await.kill();
    let noticed = tokio::time::timeout(Duration::from_secs(5), agent.open(head()));
    assert!(noticed.await.expect("within a third of the keepalive").is_err());
    let ConnectionError::Transport(cause) = agent.closed().await else {
        panic!("not by the report")
    };
    assert!(
        cause
            .to_string()
            .starts_with(&format!("nobody listens at {addr} any more")),
        "{cause}"
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_socket_with_dials_to_nobody_serves_its_other_connections() {
    let nobody = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let mut real = Real::new((Ipv4Addr::LOCALHOST, 0).into(), "127.0.0.1").unwrap();
    let endpoint = ClientEndpoint::bind(&QuicConfig::default()).unwrap();
    real.carrier = real.carrier.with_endpoint(endpoint.clone());
    let (agent, server) = real.connect().await;
    let lost = QuicCarrier::new(
        nobody.to_string().parse().unwrap(),
        &Pki::new().client(),
        QuicConfig::default(),
    )
    .unwrap()
    .with_endpoint(endpoint);
    for _ in 0..50 {
        let (deadline, claim) = (Instant::now() + Duration::from_secs(10), claim());
        let (failed, stream) = tokio::join!(lost.dial(&claim, deadline), stream(&agent, &server));
        assert!(matches!(failed, Err(DialError::Unreachable { .. })), "{failed:?}");
        let (mut here, mut there) = stream;
        here.tx.send_all(Bytes::from_static(b"alive")).await.unwrap();
        here.tx.finish().await.unwrap();
        assert_eq!(read_all(&mut *there.rx).await.unwrap(), b"alive");
    }
}
