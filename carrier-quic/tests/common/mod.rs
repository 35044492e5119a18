//! Two ends in one process, over a simulated network.
#![allow(dead_code)] // each test program uses a part
#![allow(clippy::unwrap_used, clippy::expect_used)] // this is part of tests, though none of its functions is one

pub(crate) mod net;
pub(crate) mod raw;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use carrier_quic::{ClientEndpoint, QuicCarrier, QuicConfig, QuicListener};
use quinn::EndpointConfig;
use tokio::time::Instant;
use tunnel_core::{
    Admission, Admitted, Arrival, Carrier, Claim, Connection, DialError, Duplex, Generation, HandshakeError, HostPort,
    Listener, RecvError, RecvStream, Rejection, SendStream, StreamHead, Target, Welcome,
};
use tunnel_testkit::pki::Pki;

use self::net::{Link, Net};

pub(crate) const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 8091);
pub(crate) const AGENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 50_000);
pub(crate) const STRANGER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3)), 50_000);

/// Accepts every claim, or rejects every one.
#[derive(Debug)]
pub(crate) struct Verdict(pub(crate) Option<Rejection>);

#[async_trait]
impl Admission for Verdict {
    async fn admit(&self, arrival: &Arrival) -> Result<Admitted, Rejection> {
        match &self.0 {
            Some(rejection) => Err(rejection.clone()),
            None => Ok(Admitted {
                identity: arrival.identity.clone(),
                welcome: Welcome::new("server-1".parse().expect("an id")),
            }),
        }
    }
}

/// A server and an agent on a network.
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) pki: Arc<Pki>,
    pub(crate) config: QuicConfig,
    pub(crate) listener: QuicListener,
    pub(crate) carrier: QuicCarrier,
}

impl World {
    pub(crate) fn new(config: QuicConfig, link: Link) -> Self {
        let pki = Arc::new(Pki::new());
        let (server, client) = (pki.server(), pki.client());
        Self::with_tls(pki, &server, &client, config, link)
    }

    pub(crate) fn with_tls(
        pki: Arc<Pki>,
        server: &tunnel_tls::ServerTls,
        client: &tunnel_tls::ClientTls,
        config: QuicConfig,
        link: Link,
    ) -> Self {
        let net = Net::new(link, 7);
        let listener =
            QuicListener::with_abstract_socket(endpoint_config(1), net.socket(SERVER), server, config.clone())
                .expect("a listener");
        net.report_to(SERVER, listener.port_reports());
        let carrier = Self::carrier(&net, AGENT, client, config.clone());
        Self {
            net,
            pki,
            config,
            listener,
            carrier,
        }
    }

    /// Another agent at this address.
    pub(crate) fn carrier(net: &Net, addr: SocketAddr, tls: &tunnel_tls::ClientTls, config: QuicConfig) -> QuicCarrier {
        let endpoint = ClientEndpoint::with_abstract_socket(endpoint_config(2), net.socket(addr)).expect("an endpoint");
        net.report_to(addr, endpoint.port_reports());
        let server: HostPort = SERVER.to_string().parse().expect("an address");
        QuicCarrier::new(server, tls, config)
            .expect("a carrier")
            .with_endpoint(endpoint)
    }

    /// Both ends of one attempt to connect: the agent's, the server's.
    pub(crate) async fn attempt(
        &mut self,
        verdict: Verdict,
    ) -> (
        Result<Arc<dyn Connection>, DialError>,
        Result<Arc<dyn Connection>, HandshakeError>,
    ) {
        let claim = claim();
        let deadline = Instant::now() + Duration::from_secs(10);
        tokio::join!(self.carrier.dial(&claim, deadline), async {
            let incoming = self.listener.accept().await.expect("an attempt");
            incoming.handshake(&verdict).await
        })
    }

    /// The agent's and the server's handle of a connection.
    pub(crate) async fn connect(&mut self) -> (Arc<dyn Connection>, Arc<dyn Connection>) {
        let (agent, server) = self.attempt(Verdict(None)).await;
        (agent.expect("the agent connects"), server.expect("the server agrees"))
    }
}

fn endpoint_config(seed: u8) -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.rng_seed(Some([seed; 32]));
    config
}

pub(crate) fn claim() -> Claim {
    Claim::new("node-7".parse().expect("an id"), Generation(1))
}

pub(crate) fn head() -> StreamHead {
    StreamHead::new("tcp://target.test:80".parse::<Target>().expect("a target"))
}

/// Opens a stream from one end and accepts it at the other.
pub(crate) async fn stream(opener: &Arc<dyn Connection>, acceptor: &Arc<dyn Connection>) -> (Duplex, Duplex) {
    let (opened, accepted) = tokio::join!(opener.open(head()), async {
        acceptor
            .accept()
            .await
            .expect("a stream")
            .accept()
            .await
            .expect("accepted")
    });
    (opened.expect("opened"), accepted)
}

/// Reads to the clean end.
pub(crate) async fn read_all(rx: &mut dyn RecvStream) -> Result<Vec<u8>, RecvError> {
    let mut all = Vec::new();
    while let Some(bytes) = rx.recv(64 * 1024).await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

/// Reads until this many bytes have come.
pub(crate) async fn read_some(rx: &mut dyn RecvStream, mut count: usize) {
    while count > 0 {
        let bytes = rx.recv(count.min(64 * 1024)).await.expect("bytes").expect("more bytes");
        count -= bytes.len();
    }
}

/// Queues as much as is taken without waiting for more than a second, and gives the number of bytes.
pub(crate) async fn fill(tx: &mut dyn SendStream) -> usize {
    let mut queued = 0;
    loop {
        let mut chunk = Bytes::from_static(&[7; 16 * 1024]);
        let sent = std::future::poll_fn(|cx| tx.poll_send(cx, &mut chunk));
        match tokio::time::timeout(Duration::from_secs(1), sent).await {
            Ok(sent) => queued += sent.expect("queued"),
            Err(_) => return queued,
        }
    }
}
