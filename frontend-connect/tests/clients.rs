//! Clients as they are in the field: kube-apiserver's dialer and curl.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(clippy::print_stderr, reason = "a test that cannot run says so")]

mod support;

use std::{
    path::Path,
    process::{Command, Output},
};

use frontend_connect::{Endpoint, UnixEndpoint};
use support::{Running, config, pki::Pki, soon};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};
use tunnel_core::{Duplex, OpenRequest, RefusalKind};
use tunnel_tls::ClientAuth;

/// Whether a program is installed. A test that needs it and does without says so.
fn is_installed(program: &str, version: &str) -> bool {
    let found = Command::new(program).arg(version).output().is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

async fn run(mut command: Command) -> Output {
    let running = tokio::task::spawn_blocking(move || command.output());
    running.await.unwrap().unwrap()
}

/// What kube-apiserver does with the answer: it reads one response through a buffered reader, wants the status 200,
/// and fails if the reader holds anything more.
async fn kube_apiserver_dials(client: &mut TcpStream, address: &str) -> Result<(), String> {
    let request = format!("CONNECT {address} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut reader = BufReader::new(client);
    let mut status = String::new();
    soon(reader.read_line(&mut status)).await.unwrap();
    if status.split(' ').nth(1) != Some("200") {
        return Err(status);
    }
    let mut field = String::new();
    while soon(reader.read_line(&mut field)).await.unwrap() > 2 {
        field.clear();
    }
    match reader.buffer().len() {
        0 => Ok(()),
        buffered => Err(format!("{buffered} bytes behind the response")),
    }
}

#[tokio::test]
async fn kube_apiserver_gets_its_tunnel() {
    let mut config = config();
    // The target of this test speaks at once, however slow the machine is.
    config.hold = std::time::Duration::from_secs(3600);
    let mut frontend = Running::tcp(config).await;
    let mut client = frontend.connect().await;
    let target = async {
        let mut far = frontend.dial().await.accept().into_io();
        far.write_all(b"eager").await.unwrap();
        far
    };
    let (dialled, mut far) = tokio::join!(kube_apiserver_dials(&mut client, "10.0.0.1:10250"), target);
    dialled.unwrap();
    client.write_all(b"hello").await.unwrap();
    let mut bytes = [0; 5];
    soon(far.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"hello");
    soon(client.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"eager");
}

#[tokio::test]
async fn kube_apiserver_is_told_why_not() {
    let mut frontend = Running::tcp(config()).await;
    let mut client = frontend.connect().await;
    let refuse = async { frontend.dial().await.refuse(RefusalKind::ConnectionRefused, "no") };
    let (dialled, ()) = tokio::join!(kube_apiserver_dials(&mut client, "[fd00::1]:10250"), refuse);
    assert_eq!(dialled.unwrap_err(), "HTTP/1.1 502 Bad Gateway\r\n");
}

/// Plays an echo server for one connection.
async fn echo(far: Duplex) {
    let (mut rx, mut tx) = tokio::io::split(far.into_io());
    tokio::io::copy(&mut rx, &mut tx).await.unwrap();
    tx.shutdown().await.unwrap();
}

#[tokio::test]
async fn gos_http_library_reads_the_answer() {
    if !is_installed("go", "version") {
        return;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/connect.go");
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("connect");
    let mut build = Command::new("go");
    build
        .args(["build", "-o"])
        .arg(&program)
        .arg(&source)
        .env("GOTOOLCHAIN", "local")
        .env("GOPROXY", "off");
    let built = run(build).await;
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let socket = directory.path().join("connect.sock");
    let tcp = Running::tcp(config()).await;
    let unix = Running::start(Endpoint::Unix(UnixEndpoint::new(&socket)), config()).await;
    let tcp_addr = tcp.addr().to_string();
    for (mut frontend, network, address) in [
        (tcp, "tcp", tcp_addr.as_str()),
        (unix, "unix", socket.to_str().unwrap()),
    ] {
        let mut command = Command::new(&program);
        command.args([network, address, "kubelet.example:10250"]);
        let target = async {
            let dial = frontend.dial().await;
            assert_eq!(dial.request.head.target.to_string(), "tcp://kubelet.example:10250");
            echo(dial.accept()).await;
        };
        let (output, ()) = tokio::join!(run(command), target);
        assert!(
            output.status.success(),
            "{network}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(String::from_utf8_lossy(&output.stdout), "echo\n");

        let mut command = Command::new(&program);
        command.args([network, address, "kubelet.example:10250"]);
        let refuse = async { frontend.dial().await.refuse(RefusalKind::DnsError, "no such host") };
        let (output, ()) = tokio::join!(run(command), refuse);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(errors, "502 Bad Gateway: agent node-7: no such host\n");
    }
}

/// Plays a web server for one request.
async fn web_server(far: Duplex) {
    let mut io = BufReader::new(far.into_io());
    let mut line = String::new();
    soon(io.read_line(&mut line)).await.unwrap();
    assert_eq!(line, "GET /file HTTP/1.1\r\n");
    while line != "\r\n" {
        line.clear();
        soon(io.read_line(&mut line)).await.unwrap();
    }
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nfile\n";
    io.write_all(answer).await.unwrap();
    io.shutdown().await.unwrap();
}

/// curl with these options, on its way to a page.
fn curl(options: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "20"])
        .args(options)
        .arg("http://web.example:8080/file");
    command
}

/// Serves the page that curl wants.
async fn serve_page(frontend: &mut Running) -> OpenRequest {
    let dial = frontend.dial().await;
    let request = dial.request.clone();
    assert_eq!(request.head.target.to_string(), "tcp://web.example:8080");
    web_server(dial.accept()).await;
    request
}

#[tokio::test]
async fn curl_fetches_a_page() {
    if !is_installed("curl", "--version") {
        return;
    }
    let mut frontend = Running::tcp(config()).await;
    let proxy = format!("http://{}", frontend.addr());
    let command = curl(&["--proxytunnel", "--proxy", &proxy]);
    let (output, _) = tokio::join!(run(command), serve_page(&mut frontend));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "file\n", "{output:?}");
}

#[tokio::test]
async fn curl_proves_who_it_is() {
    if !is_installed("curl", "--version") {
        return;
    }
    let pki = Pki::new();
    let tls = pki.server(ClientAuth::Required(pki.trust()));
    let mut frontend = Running::start(Endpoint::Tls("127.0.0.1:0".parse().unwrap(), tls), config()).await;
    let directory = tempfile::tempdir().unwrap();
    let issued = pki.issue("curl.example");
    let (chain, key) = (directory.path().join("curl.crt"), directory.path().join("curl.key"));
    std::fs::write(&chain, issued.chain).unwrap();
    std::fs::write(&key, issued.key).unwrap();
    let mut command = curl(&["--proxytunnel", "--proxy", &format!("https://{}", frontend.addr())]);
    command
        .arg("--proxy-cacert")
        .arg(pki.ca.certificate_file())
        .arg("--proxy-cert")
        .arg(chain)
        .arg("--proxy-key")
        .arg(key);
    let (output, request) = tokio::join!(run(command), serve_page(&mut frontend));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "file\n", "{output:?}");
    assert_eq!(request.client.identity.principal().as_deref(), Some("dns:curl.example"));
}

#[tokio::test]
async fn curl_without_proxytunnel_is_told_what_is_missing() {
    if !is_installed("curl", "--version") {
        return;
    }
    let frontend = Running::tcp(config()).await;
    let command = curl(&["--proxy", &format!("http://{}", frontend.addr())]);
    let body = String::from_utf8(run(command).await.stdout).unwrap();
    assert!(body.contains("curl: add --proxytunnel"), "{body}");
}
