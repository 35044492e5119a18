//! Behind the proxies that people put before a server, configured as `docs/websocket.md` says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use carrier_ws::{WsCarrier, WsConfig, WsListener};
use tokio::time::{Instant, timeout};
use tunnel_core::{
    Carrier, Claim, Connection, DialError, Listener,
    proto::{Keepalive, mux},
};
use tunnel_tcp::{Proxies, SocketOptions, TcpAcceptor, TcpDialer};
use tunnel_testkit::ends::{Verdict, claim, echo, meet, whole};
use tunnel_testkit::programs::{self, Certificate, Program, documented};

/// How long anything may take that should take no time.
const PATIENCE: Duration = Duration::from_secs(30);
/// How soon a proxy of these tests ends what is silent. A busy machine must not be silent for so long by itself.
const SHORT: Duration = Duration::from_secs(3);

fn config(interval: Duration) -> WsConfig {
    let timeout = Duration::from_secs(5);
    let mux = mux::Config::builder().keepalive(Keepalive { interval, timeout });
    WsConfig::builder().mux(mux.build().unwrap().into()).build().unwrap()
}

/// A server for a proxy.
fn listener(config: WsConfig) -> (WsListener, SocketAddr) {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let acceptor = TcpAcceptor::bind(local, SocketOptions::default()).unwrap();
    let listener = WsListener::new(Box::new(acceptor), None, config);
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// An agent that goes to the proxy.
fn carrier(proxy: &Program, certificate: &Certificate, config: WsConfig) -> WsCarrier {
    let dial = Arc::new(TcpDialer::new(SocketOptions::default(), Proxies::none()));
    let url = format!("wss://{}/tunnel", proxy.addr()).parse().unwrap();
    WsCarrier::new(url, Some(&certificate.client()), dial, config).unwrap()
}

async fn dial(carrier: &WsCarrier, claim: &Claim) -> Result<Arc<dyn Connection>, DialError> {
    carrier.dial(claim, Instant::now() + PATIENCE).await
}

async fn connect(
    carrier: &WsCarrier,
    listener: &mut WsListener,
    claim: &Claim,
) -> (Arc<dyn Connection>, Arc<dyn Connection>) {
    let (agent, server) = meet(carrier, listener, claim, &Verdict::default()).await;
    (agent.unwrap(), server.unwrap())
}

const GUIDE: &str = include_str!("../../docs/websocket.md");

async fn nginx(certificate: &Certificate, server: SocketAddr) -> Option<Program> {
    let server = documented(
        GUIDE,
        "nginx",
        &[
            ("listen 443", "listen 127.0.0.1:PORT"),
            ("/etc/nginx/gw.crt", certificate.chain()),
            ("/etc/nginx/gw.key", certificate.key()),
            ("127.0.0.1:8091", &server.to_string()),
            ("60s", "3s"),
        ],
    );
    programs::nginx(&server).await
}

async fn haproxy(certificate: &Certificate, server: SocketAddr) -> Option<Program> {
    let sections = documented(
        GUIDE,
        "haproxy",
        &[
            ("bind :443", "bind 127.0.0.1:PORT"),
            ("/etc/haproxy/gw.pem", &certificate.both()),
            ("127.0.0.1:8091", &server.to_string()),
            ("tunnel 60s", "tunnel 3s"),
            ("hard-stop-after 30s", "hard-stop-after 1s"),
        ],
    );
    programs::haproxy(&sections).await
}

/// Bytes in both directions, and a connection that carries none for longer than the proxy bears silence.
async fn works_behind(proxy: &Program, certificate: &Certificate, listener: &mut WsListener) {
    let carrier = carrier(proxy, certificate, config(SHORT / 10));
    let mut claim = claim();
    for at in 0..40 {
        assert!(claim.labels.insert(&format!("label-{at}"), &"v".repeat(100)));
    }
    let (agent, server) = connect(&carrier, listener, &claim).await;
    assert_eq!(server.peer().claim().unwrap().labels, claim.labels);
    assert_eq!(agent.peer().identity.dns, ["gw.example"]);
    for size in [1, 3_000_000] {
        echo(&agent, &server, size).await;
        echo(&server, &agent, size).await;
    }
    assert!(timeout(2 * SHORT, server.closed()).await.is_err(), "keepalive keeps it");
    echo(&server, &agent, 1000).await;

    agent.close(tunnel_core::CloseCode::DONE, "that is all");
    let error = timeout(PATIENCE, server.closed()).await.unwrap();
    assert!(whole(&error).contains("that is all"), "{error:?}");
}

/// The same without a keepalive that is often enough: else the tests above would show nothing.
async fn is_cut_when_silent(proxy: &Program, certificate: &Certificate, listener: &mut WsListener) {
    let carrier = carrier(proxy, certificate, config(PATIENCE));
    let (agent, server) = connect(&carrier, listener, &claim()).await;
    let cut = async { tokio::join!(agent.closed(), server.closed()) };
    timeout(PATIENCE / 2, cut).await.expect("the proxy ends what is silent");
}

/// What the agent says when there is nobody behind the proxy.
async fn is_known_to_be_alone(proxy: &Program, certificate: &Certificate) {
    let carrier = carrier(proxy, certificate, WsConfig::default());
    let error = dial(&carrier, &claim()).await.unwrap_err();
    assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
    let said = whole(&error);
    assert!(said.contains("a proxy is there, and cannot reach"), "{said}");
}

/// A claim that the proxy does not let through.
async fn refuses_long_claims(proxy: &Program, certificate: &Certificate) {
    let carrier = carrier(proxy, certificate, WsConfig::default());
    let mut claim = claim();
    for at in 0..60 {
        assert!(claim.labels.insert(&format!("label-{at}"), &"v".repeat(250)));
    }
    let error = dial(&carrier, &claim).await.unwrap_err();
    assert!(
        whole(&error).contains("too long for something on the way"),
        "{}",
        whole(&error)
    );
}

/// Both ends know at once when a proxy is gone, whatever their keepalive.
async fn is_missed(proxy: Program, certificate: &Certificate, listener: &mut WsListener, end: impl FnOnce(Program)) {
    let carrier = carrier(&proxy, certificate, config(SHORT / 10));
    let (agent, server) = connect(&carrier, listener, &claim()).await;
    echo(&agent, &server, 1000).await;
    end(proxy);
    let noticed = async { tokio::join!(agent.closed(), server.closed()) };
    timeout(PATIENCE / 2, noticed).await.expect("both ends notice");
    let again = dial(&carrier, &claim()).await.unwrap_err();
    assert!(matches!(again, DialError::Unreachable { .. }), "{again:?}");
}

#[tokio::test]
async fn nginx_passes_the_tunnel() {
    let certificate = Certificate::new();
    let (mut listener, addr) = listener(config(SHORT / 10));
    let Some(proxy) = nginx(&certificate, addr).await else {
        return;
    };
    works_behind(&proxy, &certificate, &mut listener).await;
    refuses_long_claims(&proxy, &certificate).await;
    is_missed(proxy, &certificate, &mut listener, drop).await;
}

#[tokio::test]
async fn nginx_cuts_what_is_silent() {
    let certificate = Certificate::new();
    let (mut listener, addr) = listener(config(PATIENCE));
    let Some(proxy) = nginx(&certificate, addr).await else {
        return;
    };
    is_cut_when_silent(&proxy, &certificate, &mut listener).await;
    drop(listener);
    is_known_to_be_alone(&proxy, &certificate).await;
}

#[tokio::test]
async fn haproxy_passes_the_tunnel() {
    let certificate = Certificate::new();
    let (mut listener, addr) = listener(config(SHORT / 10));
    let Some(proxy) = haproxy(&certificate, addr).await else {
        return;
    };
    works_behind(&proxy, &certificate, &mut listener).await;
    refuses_long_claims(&proxy, &certificate).await;
    // It waits for the connection first, and ends it after `hard-stop-after`.
    let mut stopping = None;
    let stop = |proxy: Program| {
        proxy.signal("USR1");
        stopping = Some(proxy);
    };
    is_missed(proxy, &certificate, &mut listener, stop).await;
}

#[tokio::test]
async fn haproxy_cuts_what_is_silent() {
    let certificate = Certificate::new();
    let (mut listener, addr) = listener(config(PATIENCE));
    let Some(proxy) = haproxy(&certificate, addr).await else {
        return;
    };
    is_cut_when_silent(&proxy, &certificate, &mut listener).await;
    drop(listener);
    is_known_to_be_alone(&proxy, &certificate).await;
}
