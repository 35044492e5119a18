//! Dialling through the proxies that people run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tunnel_core::{DialError, HostPort};
use tunnel_tcp::{Accept, ClientSecurity, Dial, Proxies, Proxy, ServerSecurity, SocketOptions, TcpAcceptor, TcpDialer};
use tunnel_tls::{ClientTls, DevCa, Pem, Purpose, ServerTls, Trust};

/// How long a proxy may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A proxy that lets `me` with the password `hunter2` in; it ends with this value.
struct Running {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a program that is configured by `configure` for a port, or says that it is not installed.
async fn start(program: &str, configure: impl Fn(&Path, u16) -> Vec<String>) -> Option<Running> {
    // Another process can take the port before the program does.
    for _ in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        // A proxy that is started by root becomes another user.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let arguments = configure(directory.path(), port);
        let output = fs::File::create(directory.path().join("output")).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                say(&format!("skipped: {program}: {error}"));
                return None;
            }
        };
        let mut running = Running {
            child,
            port,
            _directory: directory,
        };
        if running.listens().await {
            return Some(running);
        }
        let output = fs::read_to_string(running._directory.path().join("output")).unwrap();
        say(&format!("{program} did not come up: {output}"));
    }
    panic!("{program} does not come up");
}

/// Says it even if the test passes, when its output is not shown.
fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

impl Running {
    async fn listens(&mut self) -> bool {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    fn dialer(&self, user_info: &str) -> TcpDialer {
        let proxy: Proxy = format!("http://{user_info}127.0.0.1:{}", self.port).parse().unwrap();
        TcpDialer::new(SocketOptions::default(), Proxies::one(proxy))
    }
}

fn tinyproxy(directory: &Path, port: u16) -> Vec<String> {
    let file = directory.join("tinyproxy.conf");
    let text = format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nBasicAuth me hunter2\n");
    fs::write(&file, text).unwrap();
    vec!["-d".to_owned(), "-c".to_owned(), file.to_str().unwrap().to_owned()]
}

fn squid(directory: &Path, port: u16) -> Vec<String> {
    let directory = directory.to_str().unwrap();
    // Squid asks a helper.
    let helper = r#"while read -r line; do
if [ "$line" = "me hunter2" ]; then echo OK; else echo ERR; fi
done
"#;
    fs::write(format!("{directory}/helper"), helper).unwrap();
    let text = format!(
        "http_port 127.0.0.1:{port}
pid_filename {directory}/pid
cache_log /dev/null
access_log none
cache deny all
coredump_dir {directory}
shutdown_lifetime 0 seconds
auth_param basic program /bin/sh {directory}/helper
auth_param basic children 1
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
"
    );
    let file = format!("{directory}/squid.conf");
    fs::write(&file, text).unwrap();
    vec!["-N".to_owned(), "-f".to_owned(), file]
}

/// A server that speaks first and then repeats what it is told, under an address that is not taken for this machine's.
async fn echo() -> HostPort {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut rx, mut tx) = socket.split();
                tx.write_all(b"hello\n").await.unwrap();
                // The other end may reset the connection.
                let _ = tokio::io::copy(&mut rx, &mut tx).await;
                let _ = tx.shutdown().await;
            });
        }
    });
    at(port)
}

fn at(port: u16) -> HostPort {
    HostPort::new(std::net::IpAddr::from(Ipv4Addr::UNSPECIFIED).into(), port).unwrap()
}

async fn refusal(dialer: &TcpDialer, server: &HostPort) -> (String, bool) {
    match dialer.dial(server).await.unwrap_err() {
        error @ DialError::Proxy { .. } => (error.to_string(), error.is_retryable()),
        error => panic!("{error:?}"),
    }
}

/// TLS ends at the server and not at the proxy.
async fn works_with_tls_through(proxy: &Running) {
    let directory = tempfile::tempdir().unwrap();
    let ca = DevCa::create_or_load(directory.path().join("ca")).unwrap();
    let names = ["gw.example".parse().unwrap()];
    let issued = ca.issue(&names, Purpose::Server, Duration::from_secs(3600)).unwrap();
    let server = ServerTls::builder(Pem::text(issued.chain), Pem::text(issued.key));
    let server = ServerSecurity::tls(&server.build().unwrap(), &[b"http/1.1"]);
    let client = ClientTls::builder(Trust::ca(Pem::file(ca.certificate_file())));
    let host = "gw.example".parse().unwrap();
    let client = ClientSecurity::tls(&client.build().unwrap(), &host, &[b"http/1.1"]).unwrap();

    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut acceptor = TcpAcceptor::bind(local, SocketOptions::default()).unwrap();
    let port = acceptor.local_addr().unwrap().port();
    let near = async {
        let dialled = proxy.dialer("me:hunter2@").dial(&at(port)).await.unwrap();
        client.secure(dialled.io, "gw.example").await.unwrap()
    };
    let far = async {
        let accepted = acceptor.accept().await.unwrap();
        server.secure(accepted.io).await.unwrap()
    };
    let ((mut near, identity), (mut far, _)) = tokio::join!(near, far);
    assert_eq!(identity.dns, ["gw.example"]);
    far.write_all(b"hello").await.unwrap();
    far.shutdown().await.unwrap();
    let mut text = String::new();
    near.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
}

async fn works_through(proxy: &Running) {
    let server = echo().await;
    let dialled = proxy.dialer("me:%68unter2@").dial(&server).await.unwrap();
    assert_eq!(dialled.remote_addr, SocketAddr::from(([127, 0, 0, 1], proxy.port)));
    let sent: Vec<u8> = (0..1_000_003u32).map(|n| (n % 251) as u8).collect();
    let (mut rx, mut tx) = tokio::io::split(dialled.io);
    let mut received = vec![0; 6 + sent.len()];
    let (written, read) = tokio::join!(tx.write_all(&sent), rx.read_exact(&mut received));
    written.unwrap();
    read.unwrap();
    assert_eq!(&received[..6], b"hello\n");
    assert!(received[6..] == sent);

    let (missing, is_retryable) = refusal(&proxy.dialer(""), &server).await;
    assert!(
        missing.contains(": 407 ") && missing.ends_with("give a user name and password in its URL"),
        "{missing}"
    );
    assert!(!is_retryable);
    let (wrong, is_retryable) = refusal(&proxy.dialer("me:wrong@"), &server).await;
    assert!(wrong.contains(&format!("refused CONNECT to {server}: 40")), "{wrong}");
    assert!(wrong.contains(": 407 ") != is_retryable, "{wrong}");

    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (failed, is_retryable) = refusal(&proxy.dialer("me:%68unter2@"), &at(nobody)).await;
    assert!(failed.contains(": 50"), "{failed}");
    assert!(is_retryable);
}

#[tokio::test]
async fn tinyproxy_works() {
    if let Some(proxy) = start("tinyproxy", tinyproxy).await {
        works_through(&proxy).await;
        works_with_tls_through(&proxy).await;
    }
}

#[tokio::test]
async fn squid_works() {
    // It is not on the path of ordinary users.
    let installed = Path::new("/usr/sbin/squid");
    let program = if installed.exists() {
        installed
    } else {
        Path::new("squid")
    };
    if let Some(proxy) = start(program.to_str().unwrap(), squid).await {
        works_through(&proxy).await;
        works_with_tls_through(&proxy).await;
    }
}
