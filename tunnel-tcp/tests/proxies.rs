//! Dialling through proxies that follow a script.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tunnel_core::{DialError, HostPort, Resolve, proto::DnsName};
use tunnel_tcp::{Dial, Dialled, Proxies, Proxy, SocketOptions, TcpDialer};

const PASSWORD: &str = "hunter2";
/// `me:hunter2` in Basic authentication.
const BASIC: &str = "bWU6aHVudGVyMg==";

/// Knows these names alone.
#[derive(Debug, Default)]
struct Names(HashMap<&'static str, Vec<IpAddr>>);

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, name: &DnsName) -> io::Result<Vec<IpAddr>> {
        let found = self.0.get(name.as_str()).cloned();
        found.ok_or_else(|| io::Error::other("there is no such name"))
    }
}

/// A dialer that knows the address of `proxy.example`, and of others.
fn dialer(proxies: Proxies, others: &[(&'static str, &[&str])]) -> TcpDialer {
    let addrs = |ips: &[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect();
    let mut names: HashMap<_, _> = others.iter().map(|(name, ips)| (*name, addrs(ips))).collect();
    names.insert("proxy.example", addrs(&["127.0.0.1"]));
    TcpDialer::with_resolver(SocketOptions::default(), proxies, Arc::new(Names(names)))
}

fn one(url: &str) -> Proxies {
    Proxies::one(url.parse::<Proxy>().unwrap())
}

fn server(text: &str) -> HostPort {
    text.parse().unwrap()
}

/// An error with its causes, in one line.
fn words(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", words(cause)),
        None => error.to_string(),
    }
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A proxy that hears a client out up to `ends`, says this, and goes on as the server, an echo; it serves one client
/// for each script and gives what they said.
async fn scripted(scripts: Vec<Vec<(&'static [u8], Vec<u8>)>>) -> (u16, JoinHandle<Vec<Vec<u8>>>) {
    let (listener, port) = listen().await;
    let task = tokio::spawn(async move {
        let mut heard = Vec::new();
        for script in scripts {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut all = Vec::new();
            for (ends, says) in script {
                let begin = all.len();
                while !all[begin..].ends_with(ends) {
                    all.push(socket.read_u8().await.unwrap());
                }
                socket.write_all(&says).await.unwrap();
            }
            heard.push(all);
            let (mut rx, mut tx) = socket.split();
            // A client that has heard enough may reset the connection.
            let _ = tokio::io::copy(&mut rx, &mut tx).await;
            let _ = tx.shutdown().await;
        }
        heard
    });
    (port, task)
}

/// A proxy that answers one CONNECT like this.
async fn answering(response: &str) -> (u16, JoinHandle<Vec<Vec<u8>>>) {
    scripted(vec![vec![(b"\r\n\r\n", response.as_bytes().to_vec())]]).await
}

/// Whether the congestion control of a connection adapts to it, if it can with that of the system.
fn adapts(dialled: &Dialled) -> bool {
    let own = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    let can = ["cubic", "reno", "bbr"].contains(&own.trim());
    !can || format!("{:?}", dialled.io).contains("Watched")
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let (port, proxy) = answering("HTTP/1.1 200 Connection established\r\n\r\nhello, ").await;
    let dialer = dialer(one(&format!("http://me:{PASSWORD}@proxy.example:{port}")), &[]);
    let mut dialled = dialer.dial(&server("gw.example:443")).await.unwrap();
    assert_eq!(dialled.via, Some(format!("http://proxy.example:{port}")));
    assert_eq!(dialled.remote_addr, SocketAddr::from(([127, 0, 0, 1], port)));
    assert!(dialled.io.is_write_vectored());
    assert!(adapts(&dialled), "{dialled:?}");
    dialled.io.write_all(b"you").await.unwrap();
    dialled.io.shutdown().await.unwrap();
    let mut text = String::new();
    dialled.io.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello, you");
    let request = String::from_utf8(proxy.await.unwrap().remove(0)).unwrap();
    assert!(request.starts_with("CONNECT gw.example:443 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(BASIC), "{request}");
}

#[tokio::test]
async fn an_exception_is_dialled_directly() {
    let (listener, port) = listen().await;
    let proxies = one("http://proxy.example:1").except("gw.example");
    let dialer = dialer(proxies, &[("gw.example", &["127.0.0.1"])]);
    let dialled = dialer.dial(&server(&format!("gw.example:{port}"))).await.unwrap();
    assert_eq!(dialled.via, None);
    assert_eq!(dialled.remote_addr, listener.local_addr().unwrap());
    assert!(adapts(&dialled), "{dialled:?}");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_quoted() {
    let head = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
    let (port, _proxy) = answering(head).await;
    let dialer = dialer(one(&format!("http://proxy.example:{port}")), &[]);
    let error = dialer.dial(&server("gw.example:8091")).await.unwrap_err();
    assert_eq!(
        words(&error),
        format!(
            "the proxy http://proxy.example:{port} refused CONNECT to gw.example:8091: 407 Proxy Authentication \
             Required; give a user name and password in its URL"
        )
    );
    assert_eq!((error.label(), error.is_retryable()), ("proxy", false));

    let (port, _proxy) = answering("HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
    let dialer = self::dialer(one(&format!("proxy.example:{port}")), &[]);
    let error = dialer.dial(&server("gw.example:8091")).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let (listener, port) = listen().await;
    drop(listener);
    let gw = server("gw.example:8091");
    let error = dialer(one(&format!("http://proxy.example:{port}")), &[])
        .dial(&gw)
        .await
        .unwrap_err();
    assert!(matches!(error, DialError::Unreachable { .. }));
    assert!(
        words(&error).starts_with(&format!(
            "cannot reach the proxy http://proxy.example:{port} (127.0.0.1:{port}): Connection refused"
        )),
        "{}",
        words(&error)
    );
    let error = dialer(one("socks5h://nowhere.example:9"), &[])
        .dial(&gw)
        .await
        .unwrap_err();
    assert_eq!(
        words(&error),
        "cannot resolve the name of the proxy socks5h://nowhere.example:9: there is no such name"
    );
    // The server's name is for this side to resolve only with socks5.
    let error = dialer(one("socks5://proxy.example:9"), &[])
        .dial(&gw)
        .await
        .unwrap_err();
    assert_eq!(words(&error), "cannot resolve gw.example: there is no such name");
}

#[tokio::test]
async fn a_proxy_that_does_not_answer_is_given_up_with_the_dial() {
    let (listener, port) = listen().await;
    let dialer = dialer(one(&format!("http://proxy.example:{port}")), &[]);
    let server = server("gw.example:8091");
    let mut dial = Box::pin(dialer.dial(&server));
    let mut accepted: TcpStream = tokio::select! {
        dialled = &mut dial => panic!("{dialled:?}"),
        accepted = listener.accept() => accepted.unwrap().0,
    };
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        tokio::select! {
            dialled = &mut dial => panic!("{dialled:?}"),
            byte = accepted.read_u8() => request.push(byte.unwrap()),
        }
    }
    drop(dial);
    assert_eq!(accepted.read(&mut [0]).await.unwrap(), 0);
}

/// SOCKS 5 without authentication, to this destination, with this reply.
fn socks(request: &'static [u8], reply: u8) -> Vec<(&'static [u8], Vec<u8>)> {
    vec![
        (&[5, 1, 0], vec![5, 0]),
        (request, vec![5, reply, 0, 1, 0, 0, 0, 0, 0, 0]),
    ]
}

#[tokio::test]
async fn socks5_tries_the_addresses_of_a_server_in_turn() {
    let (v6, v4) = (b"\x00\x07\x01\xbb", b"\xc0\x00\x02\x07\x01\xbb");
    let (port, proxy) = scripted(vec![socks(v6, 4), socks(v4, 0)]).await;
    let names: &[(_, &[&str])] = &[("gw.example", &["2001:db8::7", "192.0.2.7", "192.0.2.8"])];
    let dialer = dialer(one(&format!("socks5://proxy.example:{port}")), names);
    let mut dialled = dialer.dial(&server("gw.example:443")).await.unwrap();
    assert_eq!(dialled.via, Some(format!("socks5://proxy.example:{port}")));
    dialled.io.write_all(b"hello").await.unwrap();
    dialled.io.shutdown().await.unwrap();
    let mut text = String::new();
    dialled.io.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
    assert_eq!(proxy.await.unwrap().len(), 2);
}

#[tokio::test]
async fn socks5_gives_up_when_the_proxy_allows_none() {
    let (port, proxy) = scripted(vec![socks(b"\xc0\x00\x02\x07\x01\xbb", 2)]).await;
    let names: &[(_, &[&str])] = &[("gw.example", &["192.0.2.7", "192.0.2.8"])];
    let dialer = dialer(one(&format!("socks5://proxy.example:{port}")), names);
    let error = dialer.dial(&server("gw.example:443")).await.unwrap_err();
    assert_eq!(
        words(&error),
        format!(
            "the proxy socks5://proxy.example:{port} refused to connect: its rules do not allow the connection (reply 2)"
        )
    );
    proxy.await.unwrap();
}

#[tokio::test]
async fn socks5h_leaves_the_name_to_the_proxy() {
    let (port, proxy) = scripted(vec![socks(b"gw.example\x01\xbb", 0)]).await;
    let dialer = dialer(one(&format!("socks5h://proxy.example:{port}")), &[]);
    let dialled = dialer.dial(&server("gw.example:443")).await.unwrap();
    assert!(adapts(&dialled), "{dialled:?}");
    drop(dialled);
    proxy.await.unwrap();
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn credentials_show_nowhere() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let http: Vec<(&'static [u8], Vec<u8>)> = vec![(
        b"\r\n\r\n",
        b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n".to_vec(),
    )];
    // RFC 1929 ends with the password.
    let socks: Vec<(&'static [u8], Vec<u8>)> = vec![(&[5, 2, 0, 2], vec![5, 2]), (b"hunter2", vec![1, 1])];
    let mut shown = String::new();
    for (scheme, script) in [("http", http), ("socks5", socks.clone()), ("socks5h", socks)] {
        let (port, proxy) = scripted(vec![script]).await;
        for port in [port, 1] {
            let proxies = one(&format!("{scheme}://me:{PASSWORD}@proxy.example:{port}"));
            let dialer = dialer(proxies, &[("gw.example", &["192.0.2.7"])]);
            let error = dialer.dial(&server("gw.example:443")).await.unwrap_err();
            shown.push_str(&format!("{dialer:?} {error:?} {}\n", words(&error)));
        }
        timeout(Duration::from_secs(60), proxy).await.unwrap().unwrap();
    }
    let shown = shown + &log.text();
    assert!(
        shown.contains("does not accept the user name and password of its URL"),
        "{shown}"
    );
    assert!(log.text().contains("an address does not work"), "{shown}");
    for secret in [PASSWORD, BASIC, "hunter"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
