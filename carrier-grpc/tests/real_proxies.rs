//! Behind the reverse proxies that people run, configured as `docs/grpc.md` says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use carrier_grpc::{ALPN, GrpcCarrier, GrpcConfig, GrpcListener};
use tokio::time::{Instant, sleep, timeout};
use tunnel_core::{
    Admission, Admitted, Arrival, Carrier, Claim, CloseCode, Connection, ConnectionError, DialError, Keepalive,
    Listener, Rejection, Secret, Welcome, proto::mux,
};
use tunnel_tcp::{ClientSecurity, Proxies, ServerSecurity, SocketOptions, TcpAcceptor, TcpDialer};
use tunnel_testkit::{
    ends::{claim, echo, meet},
    programs::{self, Program, documented},
};
use tunnel_tls::{CertName, ClientTls, DevCa, Pem, Purpose, Trust};

const GUIDE: &str = include_str!("../../docs/grpc.md");

/// The proxies close calls that are silent for longer than this.
const PROXY_TIMEOUT: &str = "3s";

/// Lets whoever has the credential in.
#[derive(Debug)]
struct Gate;

#[async_trait]
impl Admission for Gate {
    async fn admit(&self, arrival: &Arrival) -> Result<Admitted, Rejection> {
        match arrival.claim.as_ref().and_then(|claim| claim.credential.as_ref()) {
            Some(credential) if credential.expose() == b"s3cr3t" => Ok(Admitted {
                identity: arrival.identity.clone(),
                welcome: Welcome::new("server-1".parse().expect("an id")),
            }),
            _ => Err(Rejection::new(CloseCode::UNAUTHORIZED, "nobody knows this credential")),
        }
    }
}

fn config() -> GrpcConfig {
    let keepalive = Keepalive {
        interval: Duration::from_millis(500),
        timeout: Duration::from_secs(10),
    };
    let mux = mux::Config::builder().keepalive(keepalive);
    GrpcConfig::builder().mux(mux.build().unwrap().into()).build().unwrap()
}

/// A server on loopback, in clear text.
fn server() -> GrpcListener {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let acceptor = TcpAcceptor::bind(local, SocketOptions::default()).unwrap();
    GrpcListener::new(Box::new(acceptor), ServerSecurity::Plain, config())
}

fn agent(proxy: &Program, security: ClientSecurity) -> GrpcCarrier {
    let dialer = Arc::new(TcpDialer::new(SocketOptions::default(), Proxies::none()));
    GrpcCarrier::new(proxy.addr().to_string().parse().unwrap(), security, dialer, config()).unwrap()
}

async fn dial(agent: &GrpcCarrier, claim: &Claim) -> Result<Arc<dyn Connection>, DialError> {
    agent.dial(claim, Instant::now() + Duration::from_secs(10)).await
}

async fn connect(agent: &GrpcCarrier, server: &mut GrpcListener) -> (Arc<dyn Connection>, Arc<dyn Connection>) {
    let (agent, server) = meet(agent, server, &claim(), &Gate).await;
    (agent.unwrap(), server.unwrap())
}

async fn works_through(proxy: Program, security: ClientSecurity, mut server: GrpcListener) {
    let agent = agent(&proxy, security);
    let (near, far) = connect(&agent, &mut server).await;
    for size in [0, 1, 3_000_000] {
        echo(&near, &far, size).await;
        echo(&far, &near, size).await;
    }

    let mut wrong = claim();
    wrong.credential = Some(Secret::new("other").unwrap());
    let (refused, _) = meet(&agent, &mut server, &wrong, &Gate).await;
    let Err(DialError::Rejected { rejection, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        rejection,
        Rejection::new(CloseCode::UNAUTHORIZED, "nobody knows this credential")
    );

    // Longer than the proxy lets a silent call live.
    sleep(Duration::from_secs(4)).await;
    echo(&near, &far, 1000).await;

    // The close of one end is the other's.
    let (second, far_second) = connect(&agent, &mut server).await;
    far_second.close(CloseCode::REPLACED, "there is a newer one");
    let closed = timeout(Duration::from_secs(5), second.closed()).await.unwrap();
    let expected = ConnectionError::remote(CloseCode::REPLACED, "there is a newer one");
    assert_eq!(closed.to_string(), expected.to_string());

    let since = Instant::now();
    drop(proxy);
    for end in [near, far] {
        let error = end.closed().await;
        assert!(matches!(error, ConnectionError::Transport(_)), "{error:?}");
    }
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

/// What an agent learns from a proxy whose server is gone.
async fn says_that_the_server_is_gone(proxy: &Program, security: ClientSecurity, words: &str) {
    let error = dial(&agent(proxy, security), &claim()).await.unwrap_err();
    assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains(words), "{cause}");
}

/// A certificate for the proxy, and an agent that trusts it.
fn tls(directory: &Path) -> ClientSecurity {
    let ca = DevCa::create_or_load(directory.join("ca")).unwrap();
    let issued = ca
        .issue(
            &[CertName::Dns("gw.example".to_owned())],
            Purpose::Server,
            Duration::from_secs(3600),
        )
        .unwrap();
    fs::write(directory.join("tunnel.crt"), issued.chain).unwrap();
    fs::write(directory.join("tunnel.key"), issued.key).unwrap();
    let client = ClientTls::builder(Trust::ca(Pem::file(ca.certificate_file())));
    ClientSecurity::tls(&client.build().unwrap(), &"gw.example".parse().unwrap(), &[ALPN]).unwrap()
}

/// The guide's nginx before this server.
async fn nginx(server: SocketAddr, directory: &Path) -> Option<Program> {
    let server = server.to_string();
    let words = [
        ("listen 443 ssl", "listen 127.0.0.1:PORT ssl"),
        ("/etc/nginx", directory.to_str().unwrap()),
        ("127.0.0.1:8091", &server),
        ("60s", PROXY_TIMEOUT),
    ];
    let text = documented(GUIDE, "nginx", &words);
    let text = text.trim_start().strip_prefix("server {").unwrap();
    programs::nginx(text.trim_end().strip_suffix('}').unwrap()).await
}

async fn haproxy(server: SocketAddr) -> Option<Program> {
    let server = server.to_string();
    let words = [
        (
            ":443 ssl crt /etc/haproxy/tunnel.pem alpn h2",
            "127.0.0.1:PORT proto h2",
        ),
        ("127.0.0.1:8091", &server),
        ("60s", PROXY_TIMEOUT),
    ];
    programs::haproxy(&documented(GUIDE, "haproxy", &words)).await
}

async fn envoy(server: SocketAddr, directory: &Path) -> Option<Program> {
    let port = format!("port_value: {}", server.port());
    let words = [
        (
            "address: 0.0.0.0, port_value: 443",
            "address: 127.0.0.1, port_value: PORT",
        ),
        ("/etc/envoy", directory.to_str().unwrap()),
        ("port_value: 8091", &port),
        ("idle_timeout: 60s", "idle_timeout: 3s"),
    ];
    programs::envoy(&documented(GUIDE, "yaml", &words)).await
}

#[tokio::test]
async fn envoy_works() {
    let directory = tempfile::tempdir().unwrap();
    let security = tls(directory.path());
    let server = server();
    if let Some(proxy) = envoy(server.local_addr().unwrap(), directory.path()).await {
        works_through(proxy, security, server).await;
    }
}

#[tokio::test]
async fn envoy_without_a_server_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let security = tls(directory.path());
    let gone = server().local_addr().unwrap();
    if let Some(proxy) = envoy(gone, directory.path()).await {
        says_that_the_server_is_gone(&proxy, security, "upstream connect error").await;
    }
}

#[tokio::test]
async fn nginx_works() {
    let directory = tempfile::tempdir().unwrap();
    let security = tls(directory.path());
    let server = server();
    if let Some(proxy) = nginx(server.local_addr().unwrap(), directory.path()).await {
        works_through(proxy, security, server).await;
    }
}

#[tokio::test]
async fn nginx_without_a_server_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let security = tls(directory.path());
    let gone = server().local_addr().unwrap();
    if let Some(proxy) = nginx(gone, directory.path()).await {
        let words = "answered 502 Bad Gateway; it cannot reach the tunnel server";
        says_that_the_server_is_gone(&proxy, security, words).await;
    }
}

#[tokio::test]
async fn haproxy_works() {
    let server = server();
    if let Some(proxy) = haproxy(server.local_addr().unwrap()).await {
        works_through(proxy, ClientSecurity::Plain, server).await;
    }
}

/// It says GOAWAY, and carries what there is to its end.
#[tokio::test]
async fn a_haproxy_that_is_replaced_drains_its_agents() {
    let mut server = server();
    let Some(proxy) = haproxy(server.local_addr().unwrap()).await else {
        return;
    };
    let (near, far) = connect(&agent(&proxy, ClientSecurity::Plain), &mut server).await;
    assert!(timeout(Duration::from_millis(100), near.draining()).await.is_err());
    proxy.signal("USR1");
    timeout(Duration::from_secs(10), near.draining()).await.unwrap();
    echo(&near, &far, 1000).await;
    echo(&far, &near, 1000).await;
    near.drain();
    for end in [near, far] {
        let error = timeout(Duration::from_secs(5), end.closed()).await.unwrap();
        assert_eq!(error.code(), Some(CloseCode::DRAINED), "{error:?}");
    }
}

#[tokio::test]
async fn haproxy_without_a_server_is_named() {
    let gone = server().local_addr().unwrap();
    if let Some(proxy) = haproxy(gone).await {
        says_that_the_server_is_gone(&proxy, ClientSecurity::Plain, "503 Service Unavailable").await;
    }
}
