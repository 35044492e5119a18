//! `tunnel-server --dev`: the first minute.

use std::{net::SocketAddr, path::Path};

use tokio::net::TcpStream;

use crate::support::{Curl, Process, ask_with, fetch, read_to_end, target};

/// A development server on free ports.
fn start(state: &Path, carrier: &str) -> Process {
    let state = state.to_str().unwrap();
    let fixed = ["--dev", "--frontend=connect://127.0.0.1:0", "--admin=127.0.0.1:0"];
    Process::server(fixed.into_iter().chain(["--state-dir", state, "--carrier", carrier]))
}

/// The words of the printed command that begins with `program`.
async fn printed(server: &Process, program: &str) -> Vec<String> {
    let line = server.out.line(&format!("  {program} ")).await;
    line.split_whitespace().map(str::to_owned).collect()
}

async fn proxy(server: &Process) -> SocketAddr {
    let curl = printed(server, "curl").await;
    let proxy = curl.iter().find_map(|word| word.strip_prefix("http://")).unwrap();
    proxy.parse().unwrap()
}

#[tokio::test]
async fn the_printed_curl_line_fetches_a_page() {
    let state = tempfile::tempdir().unwrap();
    let server = start(&state.path().join("dev"), "quic://127.0.0.1:0");
    let site = target::http("a page\n").await;
    assert_eq!(fetch(proxy(&server).await, site).await, "a page\n");

    let mut words = printed(&server, "curl").await;
    *words.last_mut().unwrap() = format!("http://{site}/");
    let Some(curl) = Curl::find().await else { return };
    let words: Vec<_> = words.iter().skip(1).map(String::as_str).collect();
    assert_eq!(curl.fetch(&words).await, "a page\n");
}

#[tokio::test]
async fn the_printed_agent_command_joins_and_survives_a_second_start() {
    let state = tempfile::tempdir().unwrap();
    let dev = state.path().join("dev");
    let site = target::http("a page\n").await;
    let mut first = start(&dev, "quic://127.0.0.1:0");

    let words = printed(&first, "tunnel-agent").await;
    let words: Vec<_> = words
        .iter()
        .map(|word| word.replace("THIS-HOST", "127.0.0.1"))
        .collect();
    let agent = Process::agent(words[1..].iter().map(String::as_str).chain(["--admin=off"]));
    agent.log.line("connected with server").await;
    through(&first, "my-agent", site).await;

    let keep = ["ca.crt", "ca.key", "token", "server.crt"];
    let kept = || keep.map(|name| std::fs::read(dev.join(name)).unwrap());
    let before = kept();
    let here = agent.log.here();
    first.signal("TERM");
    assert!(first.ended().await.success());
    let carrier = words.iter().find(|word| word.starts_with("quic://")).unwrap();
    let second = start(&dev, carrier);
    agent.log.line_after(here, "connected with server").await;
    through(&second, "my-agent", site).await;
    through(&second, "dev", site).await;
    assert!(
        before == kept(),
        "the second start has made a new CA, token or certificate"
    );
}

#[tokio::test]
async fn its_configuration_can_be_checked() {
    let state = tempfile::tempdir().unwrap();
    let dev = state.path().join("dev");
    let mut check = Process::server(["--dev", "--check-config", "--state-dir", dev.to_str().unwrap()]);
    assert!(check.ended().await.success());
    check.out.line("the configuration is fine").await;
}

/// Fetches a page through the agent with this name, when it is connected.
async fn through(server: &Process, agent: &str, site: SocketAddr) {
    server.log.line(&format!("agent={agent} ")).await;
    let socket = TcpStream::connect(proxy(server).await).await.unwrap();
    let answer = ask_with(socket, site, &format!("Tunnel-Agent: {agent}\r\n")).await;
    let mut tunnel = answer.tunnel();
    tokio::io::AsyncWriteExt::write_all(&mut tunnel, b"GET / HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    assert!(read_to_end(&mut tunnel).await.ends_with("a page\n"));
}
