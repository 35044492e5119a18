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

use bytes::Bytes;
use carrier_quic::{ClientEndpoint, QuicCarrier, QuicConfig, QuicListener};
use quinn::EndpointConfig;
use tunnel_core::{Carrier, HostPort, Listener, RecvError, RecvStream, SendStream};
use tunnel_testkit::{ends::Ends, pki::Pki};

use self::net::{Link, Net};

pub(crate) const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 8091);
pub(crate) const AGENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 50_000);
pub(crate) const STRANGER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3)), 50_000);

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
}

impl Ends for World {
    fn ends(&mut self) -> (&dyn Carrier, &mut dyn Listener) {
        (&self.carrier, &mut self.listener)
    }
}

fn endpoint_config(seed: u8) -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.rng_seed(Some([seed; 32]));
    config
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
