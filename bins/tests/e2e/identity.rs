//! Agents that are let in, and agents and servers that are not: both logs say why.

use std::{ffi::OsString, net::SocketAddr, path::Path};

use tokio::net::UdpSocket;

use crate::support::{AGENT, Pair, Pki, Process, Server, TOKEN, Tunnel, agent_args, target};

#[tokio::test]
async fn two_processes_with_mutual_tls_carry_a_page() {
    let tunnel = Tunnel::start().await;
    let line = tunnel.server.log.line("agent connected").await;
    assert!(
        line.contains(&format!("agent={AGENT}")) && line.contains(&format!("identity=dns:{AGENT}")),
        "{line}"
    );
    assert_eq!(tunnel.server.fetch(target::http("a page\n").await).await, "a page\n");
}

#[tokio::test]
async fn a_server_whose_ca_the_agent_does_not_know_is_refused() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = Server::start(Server::args(&pki)).await;
    let agent = agent(server.carrier, &other.trust, Some(&pki.agent()), None);
    said(
        &server,
        "the peer refused our certificate: it is not signed by a CA that the peer trusts",
        &agent,
        "the peer's certificate is not signed by a CA that this side trusts",
    )
    .await;
}

#[tokio::test]
async fn an_agent_whose_ca_the_server_does_not_know_is_refused() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = Server::start(Server::args(&pki)).await;
    let agent = agent(server.carrier, &pki.trust, Some(&other.agent()), None);
    said(
        &server,
        "the peer's certificate is not signed by a CA that this side trusts",
        &agent,
        "the peer refused our certificate: it is not signed by a CA that the peer trusts",
    )
    .await;
}

#[tokio::test]
async fn a_server_whose_certificate_has_expired_is_refused() {
    let pki = Pki::new();
    let (pair, expiry) = pki.expiring_server();
    let server = Server::start(Server::args_with(&pki, pair)).await;
    expiry.await;
    let agent = agent(server.carrier, &pki.trust, Some(&pki.agent()), None);
    said(
        &server,
        "the peer refused our certificate: it has expired",
        &agent,
        "the peer's certificate expired on 20",
    )
    .await;
}

#[tokio::test]
async fn an_agent_whose_certificate_has_expired_is_refused() {
    let pki = Pki::new();
    let (pair, expiry) = pki.expiring_agent();
    // The agent starts first, because it would not start with a certificate that has expired.
    let place = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let agent = agent(place.local_addr().unwrap(), &pki.trust, Some(&pair), None);
    agent.log.line("agent node-7 starts").await;
    expiry.await;
    let addr = place.local_addr().unwrap();
    drop(place);
    let server = Server::start_on(addr, Server::args(&pki)).await;
    said(
        &server,
        "the peer's certificate expired on 20",
        &agent,
        "the peer refused our certificate: it has expired",
    )
    .await;
}

#[tokio::test]
async fn a_server_by_another_name_is_refused() {
    let pki = Pki::new();
    let server = Server::start(Server::args(&pki)).await;
    let mut args = agent_args(&pki, server.carrier);
    args.push("--server-name=gw.example".into());
    let agent = Process::agent(args);
    said(
        &server,
        "the peer refused our certificate: it is malformed or lacks the name that the peer expects",
        &agent,
        "certificate not valid for name \"gw.example\"",
    )
    .await;
}

#[tokio::test]
async fn an_agent_without_a_certificate_is_refused() {
    let pki = Pki::new();
    let server = Server::start(Server::args(&pki)).await;
    let agent = agent(server.carrier, &pki.trust, None, Some(TOKEN));
    said(
        &server,
        "the peer sent no certificate, and this side requires one",
        &agent,
        "the peer requires a certificate, and this side sent none",
    )
    .await;
}

#[tokio::test]
async fn an_agent_with_a_wrong_token_is_refused() {
    let (pki, server) = server_with_token().await;
    let agent = agent(server.carrier, &pki.trust, None, Some("a-token-from-somewhere-else"));
    let why = "this server does not know the token";
    said(&server, why, &agent, why).await;
}

#[tokio::test]
async fn an_agent_without_a_token_is_refused() {
    let (pki, server) = server_with_token().await;
    let agent = agent(server.carrier, &pki.trust, Some(&pki.agent()), None);
    let why = "this server requires a token; configure the agent with one";
    said(&server, why, &agent, why).await;
}

#[tokio::test]
async fn an_agent_with_the_right_token_is_let_in() {
    let (pki, server) = server_with_token().await;
    let agent = agent(server.carrier, &pki.trust, None, Some(TOKEN));
    agent.log.line("connected with server gw-1").await;
    let line = server.log.line("agent connected").await;
    assert!(line.contains("identity=token:site-a"), "{line}");
    // A secret belongs into no log.
    assert!(!server.log.text().contains(TOKEN) && !agent.log.text().contains(TOKEN));
}

async fn server_with_token() -> (Pki, Server) {
    let pki = Pki::new();
    let tokens = pki.write("tokens", &format!("site-a {TOKEN}\n"));
    let server = Server::start(Server::token_args(&pki, &tokens)).await;
    (pki, server)
}

/// An agent that trusts one CA and shows what it is given.
fn agent(server: SocketAddr, trust: &Path, pair: Option<&Pair>, token: Option<&str>) -> Process {
    let dir = tempfile::tempdir().unwrap();
    let mut args: Vec<OsString> = vec![
        format!("--server=quic://{server}").into(),
        format!("--id={AGENT}").into(),
        "--admin=off".into(),
        "--ca".into(),
        trust.into(),
    ];
    if let Some(Pair { cert, key }) = pair {
        args.extend(["--cert".into(), cert.into(), "--key".into(), key.into()]);
    }
    if let Some(token) = token {
        let file = dir.keep().join("token");
        std::fs::write(&file, token).unwrap();
        args.extend(["--token-file".into(), file.into()]);
    }
    Process::agent(args)
}

/// Both sides say why nothing comes of it.
async fn said(server: &Server, servers_words: &str, agent: &Process, agents_words: &str) {
    let line = server.log.line("handshake failed").await;
    assert!(line.contains(servers_words), "the server: {line}");
    let line = agent.log.line(agents_words).await;
    assert!(line.contains("not connected: "), "the agent: {line}");
    assert!(
        line.contains(&server.carrier.to_string()),
        "the agent names the server: {line}"
    );
}
