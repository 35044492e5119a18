//! Logs that nobody reads.

use std::{future::Future, net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, process::Command, task::JoinSet};

use crate::support::{Pki, Process, Server, ask, get, within};

/// Clients at once.
const CLIENTS: usize = 20;
/// Time for some ten thousand refusals.
const LONG: Duration = Duration::from_secs(120);

async fn is_refused(proxy: SocketAddr, target: &str) {
    let client = TcpStream::connect(proxy).await.unwrap();
    assert_eq!(ask(client, target).await.status, 503);
}

/// How many lines the server has dropped.
async fn dropped(server: &Server) -> u64 {
    let (_, metrics) = get(server.admin, "/metrics").await;
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix("tunnel_log_lines_dropped_total "));
    value.unwrap().parse().unwrap()
}

/// Has clients refused, each of which is a line, until something else has happened.
async fn refusals_until<T>(proxy: SocketAddr, happens: impl Future<Output = T>) -> T {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(async move {
            loop {
                is_refused(proxy, "target.test:80").await;
            }
        });
    }
    within(LONG, "it happens beside refusals", async {
        tokio::select! {
            happened = happens => happened,
            ended = clients.join_next() => panic!("a client has ended: {ended:?}"),
        }
    })
    .await
}

/// Fills a pipe that nobody reads, and runs a program with it as standard output.
const UNREAD: &str = r#"mkfifo "$0" && exec 3<>"$0" && head -c 65536 /dev/zero >&3 && exec "$@" >&3"#;

/// A server that has as many lines to write as it keeps, and more.
async fn unread() -> Server {
    let pki = Pki::new();
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", UNREAD])
        .arg(dir.path().join("pipe"))
        .arg(env!("CARGO_BIN_EXE_tunnel-server"))
        .args(Server::own_args())
        .arg("--carrier=quic://127.0.0.1:0")
        .args(Server::args(&pki));
    let server = Server::of("quic", Process::start("tunnel-server", command)).await;
    assert_eq!(dropped(&server).await, 0);
    server.log.pause();
    refusals_until(server.proxy, async { while dropped(&server).await == 0 {} }).await;
    server
}

/// A container's runtime that is stuck must not be what stops a tunnel.
#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_nobody() {
    let server = unread().await;
    is_refused(server.proxy, "target.test:80").await;
    server.log.resume();
    let told = server.log.line("later.test");
    // The first ones may find no room yet.
    let asks = async {
        loop {
            is_refused(server.proxy, "later.test:80").await;
        }
    };
    within(LONG, "what is said later", async {
        tokio::select! {
            _ = told => {}
            () = asks => {}
        }
    })
    .await;
}

#[tokio::test]
async fn nor_does_it_hold_up_the_end() {
    let mut server = unread().await;
    server.process().signal("TERM");
    assert_eq!(server.process().ended().await.code(), Some(0));
}
