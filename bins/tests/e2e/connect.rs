//! CONNECT over HTTP/2: an agent that others connect to, a server that dials, and both with programs of others.

use std::{ffi::OsString, io::ErrorKind, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};
use tunnel_testkit::programs::{self, documented};

use crate::support::{Pair, Pki, Process, Server, ask, ask_with, get, soon, target};

pub(crate) const GUIDE: &str = include_str!("../../../docs/http2.md");

/// Who the two programs are in a mesh.
const GATEWAY: &str = "spiffe://example.org/ns/edge/sa/gateway";
const SITE: &str = "spiffe://example.org/ns/site/sa/agent";

/// An agent that listens, and where.
pub(crate) struct Listening {
    pub(crate) process: Process,
    pub(crate) addr: SocketAddr,
}

impl Listening {
    async fn start(scheme: &str, args: Vec<OsString>) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), scheme, args).await
    }

    async fn on(addr: SocketAddr, scheme: &str, args: Vec<OsString>) -> Self {
        let own = [
            format!("--forward={scheme}://{addr}"),
            "--id=node-7".to_owned(),
            "--admin=off".to_owned(),
        ];
        let process = Process::agent(own.map(OsString::from).into_iter().chain(args));
        let line = process.log.line("listening for connections").await;
        let (_, addr) = line.split_once("addr=").unwrap();
        Self {
            addr: addr.parse().unwrap(),
            process,
        }
    }

    /// As a member of a mesh.
    async fn in_mesh(pki: &Pki, trust: &Pki, callers: &str) -> Self {
        Self::over_tls("hbone", pki.member_server("site", SITE), trust, callers).await
    }

    /// With a certificate, for callers that `trust` has signed.
    pub(crate) async fn over_tls(scheme: &str, own: Pair, trust: &Pki, callers: &str) -> Self {
        let mut args = files([
            ("--forward-cert", own.cert),
            ("--forward-key", own.key),
            ("--forward-client-ca", trust.trust.clone()),
        ]);
        args.push(format!("--forward-client={callers}").into());
        Self::start(scheme, args).await
    }
}

fn files<const N: usize>(flags: [(&str, std::path::PathBuf); N]) -> Vec<OsString> {
    let words = flags.into_iter().flat_map(|(flag, file)| [flag.into(), file.into()]);
    words.collect()
}

/// A server with an upstream and nothing else.
async fn server_with(upstream: &str, more: Vec<OsString>) -> Server {
    let mut args = vec![format!("--upstream=site-a={upstream}").into(), "--allow-select".into()];
    args.extend(more);
    Server::without_agents(args).await
}

/// A server that is a member of a mesh.
async fn server_in_mesh(pki: &Pki, trust: &Pki, proxy: SocketAddr, expected: &str) -> Server {
    let Pair { cert, key } = pki.member_client("gateway", GATEWAY);
    let args = files([
        ("--upstream-ca", trust.trust.clone()),
        ("--upstream-cert", cert),
        ("--upstream-key", key),
    ]);
    let upstream = format!("hbone://{proxy}?spiffe={expected}&baggage=service.name%3Dgateway");
    server_with(&upstream, args).await
}

/// How one end ends, as the other sees it.
type End = Result<usize, ErrorKind>;

/// A target that does what the first byte says: sends everything back, resets, or tells how the client has ended.
async fn obedient(ends: mpsc::Sender<End>) -> SocketAddr {
    target::serve(move |mut socket| {
        let ends = ends.clone();
        async move {
            match socket.read_u8().await? {
                b'e' => {
                    let (mut read, mut write) = socket.split();
                    tokio::io::copy(&mut read, &mut write).await?;
                    write.shutdown().await
                }
                b'r' => socket.set_zero_linger(),
                _ => {
                    let end = socket.read(&mut [0; 16]).await.map_err(|error| error.kind());
                    ends.send(end).await.map_err(std::io::Error::other)
                }
            }
        }
    })
    .await
}

/// A few megabytes each way, the end of one half and then of the other; and how resets arrive.
async fn carries(open: impl AsyncFn(SocketAddr) -> TcpStream) -> (End, End) {
    let (ends, mut ended) = mpsc::channel(1);
    let target = obedient(ends).await;
    carries_to(target, &mut ended, open).await
}

async fn carries_to(
    target: SocketAddr,
    ended: &mut mpsc::Receiver<End>,
    open: impl AsyncFn(SocketAddr) -> TcpStream,
) -> (End, End) {
    let mut stream = open(target).await;
    carries_bytes(&mut stream).await;
    stream.shutdown().await.unwrap();
    let end = soon("the end", stream.read(&mut [0; 16])).await;
    assert_eq!(end.unwrap(), 0);
    resets(target, ended, open).await
}

/// A few megabytes there and back.
async fn carries_bytes(stream: &mut TcpStream) {
    let sent: Vec<u8> = (0..=250).cycle().take(3 << 20).collect();
    let mut back = vec![0; sent.len()];
    let (mut read, mut write) = stream.split();
    let there = async {
        write.write_all(b"e").await?;
        write.write_all(&sent).await
    };
    let moved = async { tokio::try_join!(there, read.read_exact(&mut back)) };
    soon("the bytes", moved).await.unwrap();
    assert!(back == sent, "they come back as they were");
}

/// How resets arrive: of the target at the client, of the client at the target.
async fn resets(
    target: SocketAddr,
    ended: &mut mpsc::Receiver<End>,
    open: impl AsyncFn(SocketAddr) -> TcpStream,
) -> (End, End) {
    let mut reset = open(target).await;
    reset.write_all(b"r").await.unwrap();
    let of_target = soon("the end", reset.read(&mut [0; 16])).await;

    let mut resetting = open(target).await;
    resetting.write_all(b"x").await.unwrap();
    // The reset must not overtake the byte.
    tokio::time::sleep(Duration::from_millis(200)).await;
    resetting.set_zero_linger().unwrap();
    drop(resetting);
    let of_client = soon("the client's end", ended.recv()).await.unwrap();
    (of_target.map_err(|error| error.kind()), of_client)
}

/// A port that nobody has.
pub(crate) fn closed_port() -> SocketAddr {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    closed.local_addr().unwrap()
}

const RESET: End = Err(ErrorKind::ConnectionReset);

#[tokio::test]
async fn a_server_dials_an_agent_that_listens() {
    let agent = Listening::start("h2c", Vec::new()).await;
    let server = server_with(&format!("h2c://{}?label=zone=a", agent.addr), Vec::new()).await;
    server.log.line("upstream site-a: connected with h2c://").await;
    let ends = carries(async |target| server.connect(target).await.tunnel()).await;
    assert_eq!(ends, (RESET, RESET));

    let closed = closed_port();
    let refusal = server.connect(closed).await.refusal(502).await;
    let said = format!("cannot reach tcp://{closed}");
    assert!(
        refusal.contains(&said) && refusal.contains("site-a; error=connection_refused"),
        "{refusal}"
    );

    let page = target::http("a page\n").await;
    for chosen in ["Tunnel-Agent: site-a\r\n", "Tunnel-Agent-Labels: zone=a\r\n"] {
        let socket = TcpStream::connect(server.proxy).await.unwrap();
        ask_with(socket, page, chosen).await.tunnel();
    }
    let (_, sessions) = get(server.admin, "/sessions").await;
    for part in [
        "\"agent\": \"site-a\"",
        "\"zone\": \"a\"",
        "\"state\": \"connected\"",
        "\"name\": \"site-a\"",
    ] {
        assert!(sessions.contains(part), "{sessions}");
    }
    let (_, metrics) = get(server.admin, "/metrics").await;
    let line = "tunnel_server_upstream_attempts_total{upstream=\"site-a\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn an_agent_that_was_killed_is_back_when_it_is_back() {
    let mut agent = Listening::start("h2c", Vec::new()).await;
    let server = server_with(&format!("h2c://{}", agent.addr), Vec::new()).await;
    let page = target::http("a page\n").await;
    server.log.line("upstream site-a: connected").await;
    assert_eq!(server.fetch(page).await, "a page\n");
    agent.process.signal("KILL");
    agent.process.ended().await;
    server.log.line("upstream site-a: not connected: cannot reach").await;
    let refusal = server.connect(page).await.refusal(503).await;
    assert!(refusal.contains("no agent is connected"), "{refusal}");

    let from = server.log.here();
    let agent = Listening::on(agent.addr, "h2c", Vec::new()).await;
    server.log.line_after(from, "upstream site-a: connected").await;
    assert_eq!(server.fetch(page).await, "a page\n");
    // The end of one that drains is not a failure of anybody.
    agent.process.signal("TERM");
    agent.process.log.line("agent node-7 has ended").await;
    server.log.line_after(from, "upstream site-a: ").await;
}

#[tokio::test]
async fn members_of_a_mesh_know_each_other() {
    let pki = Pki::new();
    let agent = Listening::in_mesh(&pki, &pki, "spiffe://example.org/ns/edge/*").await;
    let server = server_in_mesh(&pki, &pki, agent.addr, SITE).await;
    let line = server.log.line("upstream site-a: connected").await;
    assert!(line.contains("hbone://") && line.ends_with(SITE), "{line}");
    let line = agent.process.log.line("connection taken in").await;
    assert!(line.contains(&format!("identity={GATEWAY}")), "{line}");
    assert_eq!(
        carries(async |target| server.connect(target).await.tunnel()).await,
        (RESET, RESET)
    );
    // A whole trust domain will do as well.
    let server = server_in_mesh(&pki, &pki, agent.addr, "spiffe://example.org").await;
    server.log.line("upstream site-a: connected").await;
}

#[tokio::test]
async fn strangers_to_a_mesh_are_told_so_at_both_ends() {
    let (pki, other) = (Pki::new(), Pki::new());
    for (agent, server, servers_words, agents_words) in [
        (
            Listening::in_mesh(&pki, &pki, "spiffe://*").await,
            (&pki, &other, SITE),
            "the peer's certificate is not signed by a CA that this side trusts",
            "the peer refused our certificate",
        ),
        (
            Listening::in_mesh(&pki, &pki, "spiffe://*").await,
            (&pki, &pki, "spiffe://example.org/ns/site/sa/another"),
            "for spiffe://example.org/ns/site/sa/agent, not for spiffe://example.org/ns/site/sa/another",
            "the peer refused our certificate",
        ),
        (
            Listening::in_mesh(&pki, &other, "spiffe://*").await,
            (&pki, &pki, SITE),
            "the peer refused our certificate",
            "the peer's certificate is not signed by a CA that this side trusts",
        ),
        (
            Listening::in_mesh(&pki, &pki, "spiffe://example.org/ns/other/*").await,
            (&pki, &pki, SITE),
            "spiffe://example.org/ns/edge/sa/gateway is not among those who may connect",
            "spiffe://example.org/ns/edge/sa/gateway is not among those who may connect",
        ),
    ] {
        let (own, trusted, expected) = server;
        let server = server_in_mesh(own, trusted, agent.addr, expected).await;
        let line = server.log.line("upstream site-a: not connected").await;
        assert!(line.contains(servers_words), "the server: {line}");
        let line = agent.process.log.line("handshake failed").await;
        assert!(line.contains(agents_words), "the agent: {line}");
    }
}

#[tokio::test]
async fn nghttpx_opens_streams_through_an_agent() {
    let agent = Listening::start("h2c", Vec::new()).await;
    let Some(nghttpx) = programs::nghttpx(agent.addr).await else {
        return;
    };
    let open = async |target| ask(TcpStream::connect(nghttpx.addr()).await.unwrap(), target).await;
    let (ends, mut ended) = mpsc::channel(1);
    let target = obedient(ends).await;
    // It takes the end of one half for the end of all.
    carries_bytes(&mut open(target).await.tunnel()).await;
    let (of_target, of_client) = resets(target, &mut ended, async |target| open(target).await.tunnel()).await;
    assert!(matches!(of_target, Ok(0) | RESET), "{of_target:?}");
    assert_eq!(of_client, RESET);
    let refused = open(closed_port()).await;
    assert_eq!(refused.status, 502);
    assert!(
        refused.head.contains("node-7; error=connection_refused"),
        "{}",
        refused.head
    );
}

#[tokio::test]
async fn envoy_opens_streams_through_an_agent() {
    let pki = Pki::new();
    let (own, envoy) = (pki.named_server("node-7"), pki.client("gw.example"));
    let agent = Listening::over_tls("h2", own, &pki, "dns:*.example").await;
    let (ends, mut ended) = mpsc::channel(1);
    let target = obedient(ends).await;
    let configured = |target: SocketAddr| {
        let words = [
            (
                "address: 127.0.0.1, port_value: 5432",
                "address: 127.0.0.1, port_value: PORT",
            ),
            ("db.internal:5432", &target.to_string()),
            ("/etc/envoy/gw.crt", envoy.cert.to_str().unwrap()),
            ("/etc/envoy/gw.key", envoy.key.to_str().unwrap()),
            ("/etc/envoy/agents.crt", pki.trust.to_str().unwrap()),
            ("port_value: 8443", &format!("port_value: {}", agent.addr.port())),
        ];
        documented(GUIDE, "yaml client", &words)
    };
    let Some(proxy) = programs::envoy(&configured(target)).await else {
        return;
    };
    let open = async |_| TcpStream::connect(proxy.addr()).await.unwrap();
    let (of_target, of_client) = carries_to(target, &mut ended, open).await;
    // What it makes of a reset is its own affair, but not bytes.
    assert!(matches!(of_target, Ok(0) | RESET), "{of_target:?}");
    assert!(matches!(of_client, Ok(0) | RESET), "{of_client:?}");
    let line = agent.process.log.line("connection taken in").await;
    assert!(line.contains("identity=dns:gw.example"), "{line}");

    // Nobody speaks HTTP behind it, so a refusal is an end.
    if let Some(proxy) = programs::envoy(&configured(closed_port())).await {
        let mut refused = TcpStream::connect(proxy.addr()).await.unwrap();
        let end = soon("the end", refused.read(&mut [0; 16])).await;
        assert!(matches!(end.map_err(|error| error.kind()), Ok(0) | RESET));
    }
}

#[tokio::test]
async fn envoy_ends_streams_of_a_server() {
    let pki = Pki::new();
    let (proxy, own) = (pki.server(), pki.client("gw.example"));
    let words = [
        (
            "address: 0.0.0.0, port_value: 8443",
            "address: 127.0.0.1, port_value: PORT",
        ),
        ("/etc/envoy/proxy.crt", proxy.cert.to_str().unwrap()),
        ("/etc/envoy/proxy.key", proxy.key.to_str().unwrap()),
        ("/etc/envoy/servers.crt", pki.trust.to_str().unwrap()),
    ];
    let Some(envoy) = programs::envoy(&documented(GUIDE, "yaml server", &words)).await else {
        return;
    };
    let trust = ("--upstream-ca", pki.trust.clone());
    let shown = [("--upstream-cert", own.cert), ("--upstream-key", own.key)];
    let [cert, key] = shown;
    let upstream = format!("h2://{}", envoy.addr());
    let server = server_with(&upstream, files([trust.clone(), cert, key])).await;
    let line = server.log.line("upstream site-a: connected").await;
    assert!(line.contains("dns:localhost"), "{line}");
    let ends = carries(async |target| server.connect(target).await.tunnel()).await;
    assert_eq!(ends.0, RESET);
    assert!(matches!(ends.1, Ok(0) | RESET), "{ends:?}");

    let refusal = server.connect(closed_port()).await.refusal(503).await;
    for part in ["503 Service Unavailable", "upstream connect error", "site-a; error="] {
        assert!(refusal.contains(part), "{refusal}");
    }
    // It wants to know who asks.
    let unknown = server_with(&upstream, files([trust])).await;
    let line = unknown.log.line("upstream site-a: not connected").await;
    assert!(
        line.contains("requires a certificate") || line.contains("certificate"),
        "{line}"
    );
    drop(envoy);
    server.log.line("upstream site-a: connection with h2://").await;
}
