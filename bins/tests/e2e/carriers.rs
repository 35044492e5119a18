//! What every carrier does, by TLS and in clear text: the other modules look closer, over QUIC.

use std::{io::ErrorKind, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::support::{
    NOTICED, Pki, Process, Server, TOKEN, Tunnel, agent_args_to, ask, end, get, read_to_end, soon, target, within,
};

/// Settings by which a dead path is noticed within 3 s, and a busy machine is not taken for one.
const QUICK: [&str; 2] = ["--keepalive-interval=2s", "--keepalive-timeout=1s"];

/// Makes a test of each function for each way in which a carrier is spoken.
macro_rules! over_each {
    ($($test:ident)*) => {
        over_each!(@ h2 "h2" $($test)*);
        over_each!(@ h2c "h2c" $($test)*);
        over_each!(@ wss "wss" $($test)*);
        over_each!(@ ws "ws" $($test)*);
        over_each!(@ grpc "grpc" $($test)*);
        over_each!(@ grpc_plain "grpc+plain" $($test)*);
    };
    (@ $module:ident $scheme:literal $($test:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test($scheme).await;
                }
            )*
        }
    };
}

over_each! {
    a_page_is_fetched_and_the_logs_name_the_carrier
    both_halves_of_a_stream_end_by_themselves
    a_reset_of_the_target_is_a_reset_for_the_client
    many_streams_at_once_keep_to_themselves
    dials_and_streams_end_when_the_agent_is_killed
    an_agent_returns_to_a_server_that_was_killed
    a_frozen_agent_is_noticed
    a_drain_lets_streams_finish
    a_wrong_token_is_refused_and_both_ends_say_so
    the_first_minute
}

async fn tunnel(scheme: &'static str) -> Tunnel {
    Tunnel::over(scheme, Pki::new(), &[], &[]).await
}

/// The name of the carrier that is meant.
fn carrier(scheme: &str) -> &str {
    match scheme {
        "h2c" => "h2",
        "wss" => "ws",
        "grpc+plain" => "grpc",
        name => name,
    }
}

async fn a_page_is_fetched_and_the_logs_name_the_carrier(scheme: &'static str) {
    let tunnel = tunnel(scheme).await;
    assert_eq!(tunnel.server.fetch(target::http("a page\n").await).await, "a page\n");
    let line = tunnel.server.log.line("agent connected").await;
    let carrier = carrier(scheme);
    assert!(line.contains(&format!("carrier=\"{carrier}\"")), "{line}");
    let identity = match scheme {
        "h2" | "wss" | "grpc" => "identity=dns:node-7",
        _ => "identity=token:site-a",
    };
    assert!(line.contains(identity), "{line}");
    for log in [&tunnel.server.log, &tunnel.agent.log] {
        assert!(!log.text().contains(TOKEN));
    }
    let (_, metrics) = get(tunnel.server.admin, "/metrics").await;
    assert!(metrics.contains(&format!("carrier=\"{carrier}\"")), "{metrics}");
}

async fn both_halves_of_a_stream_end_by_themselves(scheme: &'static str) {
    let tunnel = tunnel(scheme).await;
    let mut stream = tunnel.server.connect(target::count().await).await.tunnel();
    stream.write_all(&vec![7; 3 << 20]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, (3 << 20).to_string());
}

async fn a_reset_of_the_target_is_a_reset_for_the_client(scheme: &'static str) {
    let tunnel = tunnel(scheme).await;
    let mut stream = tunnel.server.connect(target::resetting().await).await.tunnel();
    stream.write_all(b"x").await.unwrap();
    let error = soon("the reset", stream.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

async fn many_streams_at_once_keep_to_themselves(scheme: &'static str) {
    const STREAMS: usize = 100;
    let tunnel = tunnel(scheme).await;
    let target = target::echo().await;
    let mut streams = JoinSet::new();
    for number in 0..STREAMS {
        let mut stream = tunnel.server.connect(target).await.tunnel();
        streams.spawn(async move {
            let text = format!("stream {number}, ").repeat(2000);
            let (mut read, mut write) = stream.split();
            let echo = async {
                let mut back = vec![0; text.len()];
                read.read_exact(&mut back).await.unwrap();
                assert!(back == text.as_bytes());
            };
            let (sent, ()) = tokio::join!(write.write_all(text.as_bytes()), echo);
            sent.unwrap();
        });
    }
    while let Some(stream) = soon("the streams end", streams.join_next()).await {
        stream.unwrap();
    }
}

async fn dials_and_streams_end_when_the_agent_is_killed(scheme: &'static str) {
    // The kernel of the killed one ends its connections, so that no keepalive is waited for.
    let mut tunnel = tunnel(scheme).await;
    let unanswering = target::Unanswering::new().await;
    let mut download = tunnel.server.connect(target::endless().await).await.tunnel();
    download.read_exact(&mut vec![0; 1 << 20]).await.unwrap();
    let proxy = tunnel.server.proxy;
    let dial = tokio::spawn(async move { ask(TcpStream::connect(proxy).await.unwrap(), unanswering.addr).await });
    let pending = async {
        while !get(tunnel.server.admin, "/metrics")
            .await
            .1
            .contains("\ntunnel_server_dials_pending 1\n")
        {}
    };
    soon("a dial is pending", pending).await;

    tunnel.agent.signal("KILL");
    let dial = within(NOTICED, "the dial fails", dial).await.unwrap();
    let text = dial.refusal(502).await;
    assert!(text.contains("error=connection_terminated"), "{text}");
    within(NOTICED, "the download ends", end(&mut download)).await;
    tunnel.server.log.line("agent disconnected").await;

    let site = target::http("a page\n").await;
    tunnel.restart_agent(&[]).await;
    assert_eq!(tunnel.server.fetch(site).await, "a page\n");
}

async fn an_agent_returns_to_a_server_that_was_killed(scheme: &'static str) {
    let mut tunnel = tunnel(scheme).await;
    let (mut client, _target) = tunnel.held().await;
    let carrier = tunnel.server.carrier;
    tunnel.server.signal("KILL");
    tunnel.server.process().ended().await;
    within(NOTICED, "the client sees the end", end(&mut client)).await;
    let line = tunnel.agent.log.line("lost").await;
    assert!(line.contains("connecting again"), "{line}");
    let here = tunnel.agent.log.here();
    let server = Server::start_over(scheme, carrier, Server::args_over(scheme, &tunnel.pki)).await;
    within(NOTICED, "the agent is back", async {
        tunnel.agent.log.line_after(here, "connected with server").await;
        server.log.line("agent connected").await;
    })
    .await;
    assert_eq!(server.fetch(target::http("a page\n").await).await, "a page\n");
}

async fn a_frozen_agent_is_noticed(scheme: &'static str) {
    let tunnel = Tunnel::over(scheme, Pki::new(), &QUICK, &QUICK).await;
    let (mut client, _target) = tunnel.held().await;
    tunnel.agent.signal("STOP");
    within(NOTICED, "the client sees the end", end(&mut client)).await;
    let line = tunnel.server.log.line("agent disconnected").await;
    assert!(line.contains("the peer has been silent for 3s"), "{line}");
    let here = tunnel.server.log.here();
    tunnel.agent.signal("CONT");
    within(
        NOTICED,
        "the agent is back",
        tunnel.server.log.line_after(here, "agent connected"),
    )
    .await;
    assert_eq!(tunnel.server.fetch(target::http("a page\n").await).await, "a page\n");
}

async fn a_drain_lets_streams_finish(scheme: &'static str) {
    let mut tunnel = tunnel(scheme).await;
    let mut stream = tunnel.server.connect(target::echo().await).await.tunnel();
    tunnel.server.signal("TERM");
    tunnel.agent.log.line("is draining").await;
    stream.write_all(b"still here").await.unwrap();
    let mut back = [0; 10];
    soon("the echo", stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"still here");
    drop(stream);
    assert!(tunnel.server.process().ended().await.success());
    // Clear text is worth a warning, but not on loopback.
    let log = tunnel.server.log.text();
    assert!(!log.contains("WARN"), "{log}");
}

async fn a_wrong_token_is_refused_and_both_ends_say_so(scheme: &'static str) {
    let pki = Pki::new();
    let tokens = pki.write("tokens", &format!("site-a {TOKEN}\n"));
    let server = Server::start_over(
        scheme,
        "127.0.0.1:0".parse().unwrap(),
        Server::token_args(&pki, &tokens),
    )
    .await;
    let mut args = agent_args_to(&pki, &server.url());
    args.extend([
        "--token-file".into(),
        pki.write("token", "a-token-from-somewhere-else").into(),
    ]);
    let agent = Process::agent(args);
    let why = "this server does not know the token";
    let line = server.log.line("handshake failed").await;
    assert!(line.contains(why), "the server: {line}");
    let line = agent.log.line(why).await;
    assert!(
        line.contains("not connected: ") && line.contains(&server.carrier.to_string()),
        "{line}"
    );
}

async fn the_first_minute(scheme: &'static str) {
    let state = tempfile::tempdir().unwrap();
    let dev = state.path().join("dev");
    let carrier = format!("{scheme}://127.0.0.1:0");
    let fixed = [
        "--dev",
        "--frontend=connect://127.0.0.1:0",
        "--admin=127.0.0.1:0",
        "--state-dir",
    ];
    let server = Process::server(fixed.into_iter().chain([dev.to_str().unwrap(), "--carrier", &carrier]));
    let line = server.out.line("  curl ").await;
    let proxy = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("http://"))
        .unwrap();
    let site = target::http("a page\n").await;
    assert_eq!(crate::support::fetch(proxy.parse().unwrap(), site).await, "a page\n");
    let line = server.out.line("  tunnel-agent ").await;
    let words = line.replace("THIS-HOST", "127.0.0.1");
    let words: Vec<_> = words
        .split_whitespace()
        .skip(1)
        .chain(["--admin=off", "--proxy=off"])
        .collect();
    let agent = Process::agent(words);
    within(
        Duration::from_secs(30),
        "the agent joins",
        agent.log.line("connected with server"),
    )
    .await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told_on_both_ends() {
    for (scheme, carrier) in [("h2", "h2"), ("wss", "ws"), ("grpc", "grpc")] {
        let (pki, other) = (Pki::new(), Pki::new());
        let server = Server::start_over(scheme, "127.0.0.1:0".parse().unwrap(), Server::args(&pki)).await;
        let agent = Process::agent(agent_args_to(&other, &server.url()));
        let line = agent.log.line("not connected").await;
        assert!(line.contains("not signed by a CA that this side trusts"), "{line}");
        let line = server.log.line("handshake failed").await;
        assert!(line.contains(&format!("carrier=\"{carrier}\"")), "{line}");
    }
}

#[tokio::test]
async fn the_next_url_is_tried_where_the_first_does_not_answer() {
    let pki = Pki::new();
    let server = Server::start_over("wss", "127.0.0.1:0".parse().unwrap(), Server::args(&pki)).await;
    // Nobody has the UDP port of this number.
    let urls = format!("quic://{},{}", server.carrier, server.url());
    let agent = Process::agent(agent_args_to(&pki, &urls));
    let line = agent.log.line("connected with server").await;
    assert!(line.contains("wss://"), "{line}");
}

/// An agent that goes to a server by another scheme.
async fn mismatched(servers: &'static str, agents: &str, hint: &str) -> Server {
    let pki = Pki::new();
    let address = "127.0.0.1:0".parse().unwrap();
    let server = Server::start_over(servers, address, Server::args_over(servers, &pki)).await;
    let mut args = agent_args_to(&pki, &format!("{agents}://{}", server.carrier));
    args.extend(["--token-file".into(), pki.write("token", TOKEN).into()]);
    let agent = Process::agent(args);
    let line = agent.log.line("not connected").await;
    assert!(line.contains(hint), "{agents} to {servers}: {line}");
    server
}

#[tokio::test]
async fn a_scheme_that_is_not_the_servers_is_explained() {
    for (servers, agents, hint) in [
        ("wss", "ws", "does it expect TLS, and so wss://?"),
        ("grpc", "grpc+plain", "does it expect TLS, and so grpc://?"),
        ("h2", "h2c", "does it expect TLS, and so h2://?"),
        ("h2c", "h2", "is one side set to plain text?"),
        ("ws", "wss", "is one side set to plain text?"),
        ("grpc+plain", "grpc", "is one side set to plain text?"),
        ("grpc", "wss", "(ALPN)"),
        ("wss", "grpc", "(ALPN)"),
        ("h2", "grpc", "(ALPN)"),
    ] {
        let server = mismatched(servers, agents, hint).await;
        server.log.line("handshake failed").await;
    }
    // To these servers it is a stranger's request, which anybody may make.
    for (servers, agents, hint) in [
        ("h2", "wss", "upgrades are to tunnel-h2 there"),
        ("wss", "h2", "upgrades are to websocket there"),
    ] {
        mismatched(servers, agents, hint).await;
    }
}
