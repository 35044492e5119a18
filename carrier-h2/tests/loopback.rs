//! Real sockets, TLS and threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use carrier_h2::{ALPN, H2Carrier, H2Config, H2Listener};
use tokio::{task::JoinSet, time::timeout};
use tunnel_core::{Connection, Duplex, Host, HostPort, Listener, StreamCode};
use tunnel_tcp::{ClientSecurity, Proxies, ServerSecurity, SocketOptions, TcpAcceptor, TcpDialer};
use tunnel_testkit::{
    ends::{Verdict, claim, echo, head, meet},
    pki::Pki,
};

/// The agent's and the server's handle of a connection over real sockets.
async fn connect() -> (Arc<dyn Connection>, Arc<dyn Connection>) {
    let pki = Pki::new();
    let config = H2Config::default();
    let accept = TcpAcceptor::bind("127.0.0.1:0".parse().unwrap(), SocketOptions::default()).unwrap();
    let security = ServerSecurity::tls(&pki.server(), &[ALPN]);
    let mut listener = H2Listener::new(Box::new(accept), security, config.clone());
    let address: HostPort = listener.local_addr().unwrap().to_string().parse().unwrap();
    let name = Host::Name("server.test".parse().unwrap());
    let security = ClientSecurity::tls(&pki.client(), &name, &[ALPN]).unwrap();
    let dialer = Arc::new(TcpDialer::new(SocketOptions::default(), Proxies::none()));
    let carrier = H2Carrier::new(address, security, dialer, config);
    let (agent, server) = meet(&carrier, &mut listener, &claim(), &Verdict::default()).await;
    (agent.unwrap(), server.unwrap())
}

/// Sends back what comes, for every stream, until the connection ends.
async fn serve(connection: Arc<dyn Connection>) {
    let mut streams = JoinSet::new();
    while let Ok(inbound) = connection.accept().await {
        streams.spawn(async move {
            let Ok(Duplex { mut tx, mut rx }) = inbound.accept().await else {
                return;
            };
            while let Ok(Some(bytes)) = rx.recv(64 * 1024).await {
                if tx.send_all(bytes).await.is_err() {
                    return;
                }
            }
            let _ = tx.finish().await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bytes_pass_over_real_sockets() {
    let (agent, server) = connect().await;
    echo(&agent, &server, 10_000_000).await;
    echo(&server, &agent, 10_000_000).await;
}

/// Many streams from both ends at once, finished, reset and dropped in all kinds of moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_streams_at_once_end_in_all_ways() {
    let (agent, server) = connect().await;
    let echoes = [
        tokio::spawn(serve(Arc::clone(&agent))),
        tokio::spawn(serve(Arc::clone(&server))),
    ];
    let mut streams = JoinSet::new();
    for number in 0..600_usize {
        let connection = Arc::clone(if number % 2 == 0 { &agent } else { &server });
        streams.spawn(async move {
            let size = (number * 7919) % 200_000;
            let Duplex { mut tx, mut rx } = connection.open(head()).await.unwrap();
            let data = Bytes::from(vec![u8::try_from(number % 251).unwrap(); size]);
            match number % 5 {
                0 => {
                    tx.send_all(data).await.unwrap();
                    tx.reset(StreamCode::TARGET_RESET);
                    while let Ok(Some(_)) = rx.recv(1000).await {}
                }
                1 => drop((tx, rx)),
                _ => {
                    let send = async {
                        tx.send_all(data.clone()).await.unwrap();
                        tx.finish().await.unwrap();
                    };
                    let receive = async {
                        let mut received = Vec::new();
                        while let Some(bytes) = rx.recv(10_000).await.unwrap() {
                            received.extend_from_slice(&bytes);
                        }
                        received
                    };
                    let ((), received) = tokio::join!(send, receive);
                    assert!(received == data, "stream {number}");
                }
            }
        });
    }
    let all = async {
        while let Some(stream) = streams.join_next().await {
            stream.unwrap();
        }
        for connection in [&agent, &server] {
            while connection.stats().streams_open > 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(Duration::from_secs(60), all).await.expect("all end");
    agent.drain();
    for connection in [&agent, &server] {
        let error = timeout(Duration::from_secs(60), connection.closed())
            .await
            .expect("drained");
        assert_eq!(error.code(), Some(tunnel_core::CloseCode::DRAINED), "{error}");
    }
    for echo in echoes {
        echo.await.unwrap();
    }
}
