//! What an idle connection takes at the server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{net::SocketAddr, sync::Arc, thread, time::Duration};

use allocation_counter::measure;
use bytes::Bytes;
use carrier_ws::{WsCarrier, WsConfig, WsListener};
use tokio::{runtime, sync::oneshot, time::Instant};
use tunnel_core::{Carrier, Connection, Duplex, Listener};
use tunnel_tcp::{Proxies, SocketOptions, TcpAcceptor, TcpDialer};
use tunnel_testkit::{
    ends::{Verdict, claim, handshake, head},
    pki::Pki,
};
use tunnel_tls::{ClientTls, ServerTls};

const CONNECTIONS: usize = 100;
/// What has gone over each in both directions before it idles: several of the longest messages.
const BYTES: usize = 500_000;

/// Everything on the thread that runs it, whose allocations are counted.
fn runtime() -> runtime::Runtime {
    runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Agents on a thread of their own, which send back what they receive. They end with `until`.
fn agents(addr: SocketAddr, tls: Option<ClientTls>, until: oneshot::Receiver<()>) -> thread::JoinHandle<()> {
    let scheme = if tls.is_some() { "wss" } else { "ws" };
    let url = format!("{scheme}://{addr}").parse().unwrap();
    let dial = Arc::new(TcpDialer::new(SocketOptions::default(), Proxies::none()));
    let carrier = WsCarrier::new(url, tls.as_ref(), dial, WsConfig::default()).unwrap();
    thread::spawn(move || {
        runtime().block_on(async {
            let mut connections = Vec::new();
            for _ in 0..CONNECTIONS {
                let deadline = Instant::now() + Duration::from_secs(30);
                let connection = carrier.dial(&claim(), deadline).await.unwrap();
                let mut stream = connection.accept().await.unwrap().accept().await.unwrap();
                while let Some(bytes) = stream.rx.recv(64 * 1024).await.unwrap() {
                    stream.tx.send_all(bytes).await.unwrap();
                }
                stream.tx.finish().await.unwrap();
                connections.push(connection);
            }
            let _ = until.await;
        });
    })
}

/// Connections that have carried something and idle.
async fn idle(listener: &mut WsListener) -> Vec<Arc<dyn Connection>> {
    let verdict = Verdict::default();
    let mut connections = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let connection = handshake(listener, &verdict).await.unwrap();
        let Duplex { mut tx, mut rx, .. } = connection.open(head()).await.unwrap();
        let there = async {
            tx.send_all(Bytes::from(vec![7; BYTES])).await.unwrap();
            tx.finish().await.unwrap();
        };
        let back = async {
            let mut count = 0;
            while let Some(bytes) = rx.recv(64 * 1024).await.unwrap() {
                count += bytes.len();
            }
            count
        };
        assert_eq!(tokio::join!(there, back).1, BYTES);
        connections.push(connection);
    }
    connections
}

/// Bytes for each connection at the server.
fn each(tls: Option<(ServerTls, ClientTls)>) -> i64 {
    let runtime = runtime();
    let (server, client) = tls.unzip();
    let mut listener = runtime.block_on(async {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let acceptor = TcpAcceptor::bind(local, SocketOptions::default()).unwrap();
        WsListener::new(Box::new(acceptor), server.as_ref(), WsConfig::default())
    });
    let (end, until) = oneshot::channel();
    let agents = agents(listener.local_addr().unwrap(), client, until);
    let mut connections = Vec::new();
    let taken = measure(|| connections = runtime.block_on(idle(&mut listener)));
    assert_eq!(connections.len(), CONNECTIONS);
    drop(end);
    agents.join().unwrap();
    taken.bytes_current / i64::try_from(CONNECTIONS).unwrap()
}

#[test]
fn an_idle_connection_takes_little() {
    let pki = Pki::new();
    for (tls, most) in [(None, 32), (Some((pki.server(), pki.client())), 48)] {
        let kind = if tls.is_some() { "wss" } else { "ws" };
        let each = each(tls);
        assert!(each < most * 1024, "{kind}: {each} bytes");
    }
}
