//! Behind the proxies that people put before a server, configured as `docs/http2.md` says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use carrier_h2::{ALPN, H2Carrier, H2Config, H2Listener};
use common::with;
use tokio::time::{Instant, timeout};
use tunnel_core::{
    Carrier, CloseCode, Connection, DialError, Keepalive, Listener, proto::mux, proto::mux::ConfigBuilder,
};
use tunnel_tcp::{ClientSecurity, Proxies, ServerSecurity, SocketOptions, TcpAcceptor, TcpDialer};
use tunnel_testkit::{
    ends::{Verdict, claim, echo, meet},
    programs::{self, Certificate, Program, documented},
};

const GUIDE: &str = include_str!("../../docs/http2.md");

/// How long anything may take that should take no time.
const PATIENCE: Duration = Duration::from_secs(30);
/// How soon a proxy of these tests ends what is silent. A busy machine must not be silent for so long by itself.
const SHORT: Duration = Duration::from_secs(3);

fn probing(interval: Duration) -> ConfigBuilder {
    let timeout = Duration::from_secs(5);
    mux::Config::builder().keepalive(Keepalive { interval, timeout })
}

fn listener(config: H2Config) -> H2Listener {
    let acceptor = TcpAcceptor::bind("127.0.0.1:0".parse().unwrap(), SocketOptions::default()).unwrap();
    H2Listener::new(Box::new(acceptor), ServerSecurity::Plain, config)
}

fn carrier(proxy: &Program, certificate: &Certificate, config: H2Config) -> H2Carrier {
    let dialer = Arc::new(TcpDialer::new(SocketOptions::default(), Proxies::none()));
    let proxy = proxy.addr().to_string().parse().unwrap();
    let name = "gw.example".parse().unwrap();
    let security = ClientSecurity::tls(&certificate.client(), &name, &[ALPN]).unwrap();
    H2Carrier::new(proxy, security, dialer, config)
}

async fn dial(carrier: &H2Carrier) -> Result<Arc<dyn Connection>, DialError> {
    carrier.dial(&claim(), Instant::now() + PATIENCE).await
}

async fn connect(carrier: &H2Carrier, listener: &mut H2Listener) -> (Arc<dyn Connection>, Arc<dyn Connection>) {
    let (agent, server) = meet(carrier, listener, &claim(), &Verdict::default()).await;
    (agent.unwrap(), server.unwrap())
}

/// A proxy of which one test shows everything.
async fn works_behind(proxy: Program, certificate: &Certificate, mut listener: H2Listener) {
    let often = carrier(&proxy, certificate, with(probing(SHORT / 10)));
    let (agent, server) = connect(&often, &mut listener).await;
    for size in [1, 3_000_000] {
        echo(&agent, &server, size).await;
        echo(&server, &agent, size).await;
    }
    assert!(timeout(2 * SHORT, server.closed()).await.is_err(), "keepalive keeps it");
    echo(&server, &agent, 1000).await;

    // Without a keepalive that is often enough the proxy ends it: else the above would show nothing.
    let seldom = carrier(&proxy, certificate, with(probing(PATIENCE)));
    let (silent, far) = connect(&seldom, &mut listener).await;
    let cut = async { tokio::join!(silent.closed(), far.closed()) };
    timeout(PATIENCE / 2, cut).await.expect("the proxy ends what is silent");

    let (closing, far) = connect(&often, &mut listener).await;
    echo(&closing, &far, 1000).await;
    closing.close(CloseCode::DONE, "that is all");
    let error = timeout(PATIENCE, far.closed()).await.unwrap();
    assert!(error.to_string().contains("that is all"), "{error:?}");

    // A server that is gone is told from one that does not want.
    drop(listener);
    let error = dial(&often).await.unwrap_err();
    assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");

    drop(proxy);
    let noticed = async { tokio::join!(agent.closed(), server.closed()) };
    timeout(PATIENCE / 2, noticed).await.expect("both ends notice");
}

/// A server whose keepalive leaves all to the agent's.
fn quiet() -> (H2Listener, SocketAddr) {
    let listener = listener(with(probing(PATIENCE)));
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

#[tokio::test]
async fn nginx_passes_the_upgrade() {
    let certificate = Certificate::new();
    let (listener, addr) = quiet();
    let server = addr.to_string();
    let words = [
        ("listen 443", "listen 127.0.0.1:PORT"),
        ("/etc/nginx/gw.crt", certificate.chain()),
        ("/etc/nginx/gw.key", certificate.key()),
        ("127.0.0.1:8091", &server),
        ("60s", "3s"),
    ];
    if let Some(proxy) = programs::nginx(&documented(GUIDE, "nginx", &words)).await {
        works_behind(proxy, &certificate, listener).await;
    }
}

#[tokio::test]
async fn haproxy_passes_the_upgrade() {
    let certificate = Certificate::new();
    let (listener, addr) = quiet();
    let server = addr.to_string();
    let words = [
        ("bind :443", "bind 127.0.0.1:PORT"),
        ("/etc/haproxy/gw.pem", &certificate.both()),
        ("127.0.0.1:8091", &server),
        ("tunnel 60s", "tunnel 3s"),
    ];
    if let Some(proxy) = programs::haproxy(&documented(GUIDE, "haproxy", &words)).await {
        works_behind(proxy, &certificate, listener).await;
    }
}

#[tokio::test]
async fn envoy_passes_the_upgrade() {
    let certificate = Certificate::new();
    let (listener, addr) = quiet();
    let port = format!("port_value: {}", addr.port());
    let words = [
        (
            "address: 0.0.0.0, port_value: 443",
            "address: 127.0.0.1, port_value: PORT",
        ),
        ("/etc/envoy/gw.crt", certificate.chain()),
        ("/etc/envoy/gw.key", certificate.key()),
        ("port_value: 8091", &port),
        ("idle_timeout: 60s", "idle_timeout: 3s"),
    ];
    if let Some(proxy) = programs::envoy(&documented(GUIDE, "yaml", &words)).await {
        works_behind(proxy, &certificate, listener).await;
    }
}
