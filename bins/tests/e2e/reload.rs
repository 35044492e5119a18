//! Files that change while the programs run.

use std::ffi::OsString;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tunnel_tls::Pem;

use crate::support::{Pki, Process, Server, Tunnel, agent_args, soon, target};

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_client() {
    let tunnel = Tunnel::with(&["--frontend=connect+tls://127.0.0.1:0"], &[]).await;
    let line = tunnel.server.log.line("endpoint=connect+tls://").await;
    let (_, proxy) = line.split_once("connect+tls://").unwrap();
    let shown = async || {
        let tls = tunnel.pki.client_tls(None);
        let name = tls.server_name("localhost").unwrap();
        let socket = TcpStream::connect(proxy).await.unwrap();
        let stream = TlsConnector::from(tls.tcp_config(&[]))
            .connect(name, socket)
            .await
            .unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    };
    let before = shown().await;
    let mut held = tunnel.server.connect(target::echo().await).await.tunnel();

    let renewed = tunnel.pki.server();
    tunnel
        .server
        .log
        .line("certificates for clients: the changed files are in use")
        .await;
    tunnel
        .server
        .log
        .line("certificates for agents: the changed files are in use")
        .await;
    let after = shown().await;
    assert_ne!(after, before);
    assert_eq!(after, Pem::file(renewed.cert).certificates().unwrap()[0]);
    // Who is connected stays.
    held.write_all(b"x").await.unwrap();
    assert_eq!(soon("the echo", held.read_u8()).await.unwrap(), b'x');
}

#[tokio::test]
async fn an_agent_of_another_ca_gets_in_when_the_ca_is_added() {
    let (pki, other) = (Pki::new(), Pki::new());
    let read = |pki: &Pki| std::fs::read_to_string(&pki.trust).unwrap();
    let trusted = pki.write("agents.crt", &read(&pki));
    let mut args = Server::args(&pki);
    *args.last_mut().unwrap() = trusted.into();
    let server = Server::start(args).await;
    let pair = other.agent();
    let mut args = agent_args(&pki, server.carrier);
    let at = args.iter().position(|arg| arg == "--cert").unwrap();
    args.splice(
        at..,
        [
            "--cert".into(),
            pair.cert.into(),
            "--key".into(),
            OsString::from(pair.key),
        ],
    );
    let agent = Process::agent(args);
    agent.log.line("not signed by a CA that the peer trusts").await;

    pki.write("agents.crt", &(read(&pki) + &read(&other)));
    agent.log.line("connected with server").await;
}

#[tokio::test]
async fn a_token_is_good_once_it_is_in_the_list() {
    let pki = Pki::new();
    let tokens = pki.write("tokens", "site-a the-token-of-site-a\n");
    let server = Server::start(Server::token_args(&pki, &tokens)).await;
    let agent = |site: &str| {
        let token = pki.write(site, &format!("the-token-of-{site}\n"));
        let args: Vec<OsString> = vec![
            format!("--server=quic://{}", server.carrier).into(),
            format!("--id={site}").into(),
            "--admin=off".into(),
            "--ca".into(),
            pki.trust.clone().into(),
            "--token-file".into(),
            token.into(),
        ];
        Process::agent(args)
    };
    let stays = agent("site-a");
    stays.log.line("connected with server").await;
    agent("site-b").log.line("does not know the token").await;

    pki.write("tokens", "site-b the-token-of-site-b\n");
    server.signal("HUP");
    server
        .log
        .line("tokens: the files were read again and are in use")
        .await;
    agent("site-b").log.line("connected with server").await;
    agent("site-a").log.line("does not know the token").await;
    assert!(!stays.log.text().contains("lost"), "{}", stays.log.text());
}

#[tokio::test]
async fn a_policy_of_the_server_that_forbids_an_open_stream_ends_it() {
    let pki = Pki::new();
    let policy = pki.write("policy.toml", "default = 'allow'\n");
    let policy = policy.to_str().unwrap().to_owned();
    let tunnel = Tunnel::of(pki, &["--policy", &policy], &[]).await;
    forbidden(&tunnel, &tunnel.server, "clients = ['*']").await;
}

#[tokio::test]
async fn a_policy_of_the_agent_that_forbids_an_open_stream_ends_it() {
    let pki = Pki::new();
    let policy = pki.write("policy.toml", "default = 'allow'\n");
    let policy = policy.to_str().unwrap().to_owned();
    let tunnel = Tunnel::of(pki, &[], &["--policy", &policy]).await;
    forbidden(&tunnel, &tunnel.agent, "").await;
}

/// Changes the policy of one of the programs, in whose rules `clients` has to stand.
async fn forbidden(tunnel: &Tunnel, program: &Process, clients: &str) {
    let site = target::echo().await;
    let mut stream = tunnel.server.connect(site).await.tunnel();
    let rule = format!("[[rules]]\nname = 'no loopback'\neffect = 'deny'\nhosts = ['127.0.0.0/8']\n{clients}\n");
    tunnel.pki.write("policy.toml", &format!("default = 'allow'\n{rule}"));
    assert!(soon("the stream's end", stream.read_u8()).await.is_err());
    let text = tunnel.server.connect(site).await.refusal(403).await;
    assert!(text.contains("rule \"no loopback\" forbids it"), "{text}");

    // What makes no sense changes nothing.
    tunnel.pki.write("policy.toml", "[[rules]]\nhots = ['127.0.0.0/8']\n");
    program.signal("HUP");
    let line = program.log.line("policy: what was there stays in use, because").await;
    assert!(line.contains("policy.toml, line 2: unknown field `hots`"), "{line}");
    tunnel.server.connect(site).await.refusal(403).await;
}
