//! The programs with proxies of others between them: load balancers before the server, forward proxies before the
//! agent.

use std::{net::SocketAddr, path::PathBuf};

use tokio::{io::AsyncWriteExt as _, process::Command};
use tunnel_testkit::programs::{self, PASSWORD, Program, USER, documented};

use crate::support::{Curl, Pair, Pki, Process, Server, TOKEN, agent_args_to, read_to_end, target};

/// A server in clear text, which agents reach through whatever ends TLS for it.
async fn server_behind(scheme: &'static str, pki: &Pki) -> Server {
    Server::start_over(scheme, "127.0.0.1:0".parse().unwrap(), Server::args_over(scheme, pki)).await
}

/// The arguments of an agent without a proxy, with a token beside its certificate.
fn agent_with_token(pki: &Pki, url: &str) -> Vec<std::ffi::OsString> {
    let mut args = agent_args_to(pki, url);
    args.extend(["--token-file".into(), pki.write("token", TOKEN).into()]);
    args
}

/// A page by curl, and a few megabytes each way.
async fn carries(server: &Server) {
    server.log.line("agent connected").await;
    if let Some(curl) = Curl::find().await {
        let url = format!("http://{}/", target::http("a page\n").await);
        let proxy = format!("http://{}", server.proxy);
        assert_eq!(curl.fetch(&["-p", "-x", &proxy, &url]).await, "a page\n");
    }
    let mut stream = server.connect(target::echo().await).await.tunnel();
    let sent = "0123456789abcdef".repeat(3 << 16);
    let (mut read, mut write) = stream.split();
    let ((), back) = tokio::join!(
        async {
            write.write_all(sent.as_bytes()).await.unwrap();
            write.shutdown().await.unwrap();
        },
        read_to_end(&mut read)
    );
    assert!(back == sent, "{} bytes came back", back.len());
}

/// An agent with TLS to a load balancer, which takes the tunnel to the server in clear text.
async fn works_behind(balancer: &Program, scheme: &str, pki: &Pki, server: &Server) {
    let agent = Process::agent(agent_with_token(pki, &format!("{scheme}://{}", balancer.addr())));
    agent.log.line("connected with server").await;
    carries(server).await;
    let line = server.log.line("agent connected").await;
    assert!(line.contains("identity=token:site-a"), "{line}");
}

#[tokio::test]
async fn a_websocket_passes_nginx() {
    let pki = Pki::new();
    let Pair { cert, key } = pki.server();
    let server = server_behind("ws", &pki).await;
    let nginx = format!(
        "listen 127.0.0.1:PORT ssl;
        ssl_certificate {};
        ssl_certificate_key {};
        location = /tunnel {{
            proxy_pass http://{};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header Host $host;
        }}",
        cert.display(),
        key.display(),
        server.carrier,
    );
    let Some(nginx) = programs::nginx(&nginx).await else {
        return;
    };
    works_behind(&nginx, "wss", &pki, &server).await;

    let agent = Process::agent(agent_with_token(&pki, &format!("wss://{}/elsewhere", nginx.addr())));
    let line = agent.log.line("not connected").await;
    assert!(line.contains("404 Not Found") && line.contains("/elsewhere"), "{line}");
}

#[tokio::test]
async fn a_websocket_passes_haproxy() {
    let pki = Pki::new();
    let server = server_behind("ws", &pki).await;
    let haproxy = format!(
        "defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout tunnel 1h
frontend agents
    bind 127.0.0.1:PORT ssl crt {}
    default_backend tunnel
backend tunnel
    server gw-1 {}
",
        cert_with_key(&pki).display(),
        server.carrier,
    );
    let Some(haproxy) = programs::haproxy(&haproxy).await else {
        return;
    };
    works_behind(&haproxy, "wss", &pki, &server).await;
}

#[tokio::test]
async fn a_grpc_call_passes_nginx() {
    let pki = Pki::new();
    let Pair { cert, key } = pki.server();
    let mut server = server_behind("grpc+plain", &pki).await;
    let nginx = format!(
        "listen 127.0.0.1:PORT ssl http2;
        ssl_certificate {};
        ssl_certificate_key {};
        client_max_body_size 0;
        location /tunnel.v1.Tunnel/ {{
            grpc_pass grpc://{};
        }}",
        cert.display(),
        key.display(),
        server.carrier,
    );
    let Some(nginx) = programs::nginx(&nginx).await else {
        return;
    };
    works_behind(&nginx, "grpc", &pki, &server).await;

    server.signal("KILL");
    server.process().ended().await;
    let agent = Process::agent(agent_with_token(&pki, &format!("grpc://{}", nginx.addr())));
    let line = agent.log.line("not connected").await;
    assert!(line.contains("502 Bad Gateway") && line.contains("nginx"), "{line}");
}

#[tokio::test]
async fn a_grpc_call_passes_envoy() {
    let pki = Pki::new();
    let Pair { cert, key } = pki.server();
    let server = server_behind("grpc+plain", &pki).await;
    let words = [
        (
            "address: 0.0.0.0, port_value: 443",
            "address: 127.0.0.1, port_value: PORT",
        ),
        ("/etc/envoy/tunnel.crt", cert.to_str().unwrap()),
        ("/etc/envoy/tunnel.key", key.to_str().unwrap()),
        ("port_value: 8091", &format!("port_value: {}", server.carrier.port())),
    ];
    let guide = include_str!("../../../docs/grpc.md");
    let Some(envoy) = programs::envoy(&documented(guide, "yaml", &words)).await else {
        return;
    };
    works_behind(&envoy, "grpc", &pki, &server).await;
}

/// As HAProxy wants them.
fn cert_with_key(pki: &Pki) -> PathBuf {
    let Pair { cert, key } = pki.server();
    let both = [cert, key].map(|file| std::fs::read_to_string(file).unwrap());
    pki.write("both.pem", &both.concat())
}

/// An agent that goes through a forward proxy, by its flag or by the environment.
async fn works_through(proxy: &Program, scheme: &'static str) {
    let pki = Pki::new();
    let server = Server::start_over(scheme, "127.0.0.1:0".parse().unwrap(), Server::args(&pki)).await;
    // This machine's own addresses are not asked of a proxy, but this one is not taken for one of them.
    let url = format!("{scheme}://{}", SocketAddr::from(([0, 0, 0, 0], server.carrier.port())));
    // Made once: it writes files.
    let args: Vec<_> = agent_args_to(&pki, &url)
        .into_iter()
        .filter(|arg| arg != "--proxy=off")
        .collect();
    let agent = |flag: Option<String>, variable: Option<String>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tunnel-agent"));
        command
            .args(&args)
            .arg("--server-name=localhost")
            .args(flag.map(|url| format!("--proxy={url}")))
            .envs(variable.map(|url| ("HTTPS_PROXY", url)));
        Process::start("tunnel-agent", command)
    };
    let with = |password: &str| Some(format!("http://{USER}:{password}@{}", proxy.addr()));

    let by_flag = agent(with(PASSWORD), None);
    by_flag.log.line("connected with server").await;
    carries(&server).await;
    drop(by_flag);
    let from = server.log.here();
    let by_variable = agent(None, with(PASSWORD));
    by_variable.log.line("connected with server").await;
    server.log.line_after(from, "agent connected").await;
    carries(&server).await;

    let wrong = "a-wrong-password";
    for refused in [agent(with(wrong), None), agent(None, with(wrong))] {
        let line = refused.log.line("not connected").await;
        let refusal = format!("the proxy http://{} refused CONNECT to ", proxy.addr());
        assert!(line.contains(&refusal) && line.contains(": 40"), "{line}");
        assert!(!refused.log.text().contains(wrong));
    }
    assert!(!by_variable.log.text().contains(PASSWORD));
}

#[tokio::test]
async fn an_agent_passes_tinyproxy() {
    if let Some(proxy) = programs::tinyproxy().await {
        works_through(&proxy, "wss").await;
        works_through(&proxy, "grpc").await;
    }
}

#[tokio::test]
async fn an_agent_passes_squid() {
    if let Some(proxy) = programs::squid().await {
        works_through(&proxy, "wss").await;
        works_through(&proxy, "grpc").await;
    }
}
