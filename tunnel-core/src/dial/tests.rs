use std::{convert::Infallible, future::pending};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};

use super::*;

/// Knows the answer to every name, or none.
#[derive(Debug)]
enum Fake {
    Addresses(Vec<IpAddr>),
    Error(io::ErrorKind),
    Silent,
}

#[async_trait]
impl Resolve for Fake {
    async fn resolve(&self, _name: &DnsName) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::Addresses(ips) => Ok(ips.clone()),
            Self::Error(kind) => Err((*kind).into()),
            Self::Silent => pending().await,
        }
    }
}

fn dialer(fake: Fake) -> TargetDialer {
    TargetDialer::with_resolver(TargetDialOptions::default(), Arc::new(fake))
}

fn ips(text: &[&str]) -> Fake {
    Fake::Addresses(text.iter().map(|ip| ip.parse().unwrap()).collect())
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn any(_: IpAddr) -> Result<(), Infallible> {
    Ok(())
}

async fn refused(dialer: TargetDialer, target: &Target) -> Refusal {
    dialer.dial(target, None, any).await.unwrap_err()
}

async fn echo_one(listener: TcpListener) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).await.unwrap();
    stream.write_all(&byte).await.unwrap();
}

/// A port of loopback on which nobody listens.
async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn a_name_is_dialled_where_it_leads() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(&format!(
        "tcp://anything.example:{}",
        listener.local_addr().unwrap().port()
    ));
    let echo = tokio::spawn(echo_one(listener));
    let mut socket = dialer(ips(&["127.0.0.1"])).dial(&target, None, any).await.unwrap();
    socket.write_all(b"x").await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'x');
    echo.await.unwrap();

    let TargetSocket::Tcp(stream) = socket else {
        panic!("a TCP socket is wanted")
    };
    assert!(stream.nodelay().unwrap());
    let socket = SockRef::from(&stream);
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
}

#[tokio::test]
async fn the_system_resolves_localhost() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(&format!("tcp://localhost:{}", listener.local_addr().unwrap().port()));
    TargetDialer::default().dial(&target, None, any).await.unwrap();
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(&format!("tcp://two.example:{}", listener.local_addr().unwrap().port()));
    // Nobody listens on the second address of loopback.
    let socket = dialer(ips(&["127.0.0.2", "127.0.0.1"]))
        .dial(&target, None, any)
        .await
        .unwrap();
    let TargetSocket::Tcp(stream) = socket else {
        panic!("a TCP socket is wanted")
    };
    assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
}

#[tokio::test]
async fn a_refused_connection_is_called_so() {
    let port = closed_port().await;
    let target = target(&format!("tcp://127.0.0.1:{port}"));
    let refusal = refused(TargetDialer::default(), &target).await;
    assert_eq!(refusal.kind, RefusalKind::ConnectionRefused);
    let text = refusal.text.to_string();
    assert!(
        text.starts_with(&format!("cannot reach {target}: 127.0.0.1:{port}: ")),
        "{text}"
    );
}

#[tokio::test]
async fn exactly_the_permitted_addresses_are_dialled() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = target(&format!("tcp://mixed.example:{port}"));
    let asked = std::sync::Mutex::new(Vec::new());
    let permit = |ip: IpAddr| {
        asked.lock().unwrap().push(ip);
        if ip == IpAddr::from([127, 0, 0, 1]) {
            Err("not that one")
        } else {
            Ok(())
        }
    };
    // The mapped form is the same address, and is judged as such.
    let dialer = dialer(ips(&["::ffff:127.0.0.1", "127.0.0.1", "127.0.0.2"]));
    let refusal = dialer.dial(&target, None, permit).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::ConnectionRefused);
    assert!(refusal.text.as_str().contains("127.0.0.2"), "{refusal}");
    let expected = [[127, 0, 0, 1], [127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from);
    assert_eq!(*asked.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_name_that_leads_only_to_forbidden_addresses_is_prohibited() {
    let target = target("tcp://metadata.example:80");
    let dialer = dialer(ips(&["169.254.169.254"]));
    let refusal = dialer
        .dial(&target, None, |_| Err("it is link-local"))
        .await
        .unwrap_err();
    assert_eq!(
        refusal,
        Refusal::new(
            RefusalKind::DestinationIpProhibited,
            "cannot reach tcp://metadata.example:80: the agent's policy forbids 169.254.169.254: it is link-local"
        )
    );
}

#[tokio::test(start_paused = true)]
async fn resolution_failures_are_told_apart() {
    let target = target("tcp://gone.example:80");
    let no_address = refused(dialer(ips(&[])), &target).await;
    assert_eq!(no_address.kind, RefusalKind::DnsError);
    let error = refused(dialer(Fake::Error(io::ErrorKind::Other)), &target).await;
    assert_eq!(error.kind, RefusalKind::DnsError);
    let timeout = refused(dialer(Fake::Error(io::ErrorKind::TimedOut)), &target).await;
    assert_eq!(timeout.kind, RefusalKind::DnsTimeout);

    let start = Instant::now();
    let silent = refused(dialer(Fake::Silent), &target).await;
    assert_eq!(silent.kind, RefusalKind::DnsTimeout);
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn the_streams_deadline_shortens_the_dialers_own_and_never_extends_it() {
    let target = target("tcp://silent.example:80");
    let silent = dialer(Fake::Silent);
    for (within, expected) in [(1, 1), (3600, 5)].map(|(a, b)| (Duration::from_secs(a), Duration::from_secs(b))) {
        let start = Instant::now();
        silent.dial(&target, Some(within), any).await.unwrap_err();
        assert_eq!(start.elapsed(), expected);
    }
}

#[tokio::test]
async fn udp_is_refused_in_words() {
    let refusal = refused(TargetDialer::default(), &target("udp://127.0.0.1:53")).await;
    assert_eq!(refusal.kind, RefusalKind::HttpRequestError);
    assert!(
        refusal.text.as_str().ends_with("this agent does not support UDP"),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_unix_socket_is_reached() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let target = Target::unix(path.to_str().unwrap()).unwrap();
    let mut socket = TargetDialer::default().dial(&target, None, any).await.unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    accepted.write_all(b"hello").await.unwrap();
    drop(accepted);
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
}

#[tokio::test]
async fn unix_failures_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let target = Target::unix(path.to_str().unwrap()).unwrap();
    let missing = refused(TargetDialer::default(), &target).await;
    assert_eq!(missing.kind, RefusalKind::DestinationNotFound);
    drop(UnixListener::bind(&path).unwrap());
    let stale = refused(TargetDialer::default(), &target).await;
    assert_eq!(stale.kind, RefusalKind::ConnectionRefused);
}

#[test]
fn the_most_telling_failure_speaks() {
    let failure = |ip: u8, kind: io::ErrorKind| (SocketAddr::from(([10, 0, 0, ip], 80)), io::Error::from(kind));
    let kinds = |failures: &[_]| refusal::of_failures(failures).0;
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    assert_eq!(
        kinds(&[failure(1, NetworkUnreachable)]),
        RefusalKind::DestinationIpUnroutable
    );
    assert_eq!(
        kinds(&[failure(1, HostUnreachable), failure(2, TimedOut)]),
        RefusalKind::ConnectionTimeout
    );
    let (kind, text) = refusal::of_failures(&[failure(1, HostUnreachable), failure(2, ConnectionRefused)]);
    assert_eq!(kind, RefusalKind::ConnectionRefused);
    assert_eq!(text, "10.0.0.2:80: connection refused, and another address failed");

    // EMFILE: the agent is short of something, and another may not be.
    let exhausted = (SocketAddr::from(([10, 0, 0, 1], 80)), io::Error::from_raw_os_error(24));
    assert_eq!(kinds(&[exhausted]), RefusalKind::DestinationUnavailable);
    assert!(RefusalKind::DestinationUnavailable.is_retryable_elsewhere());
}
