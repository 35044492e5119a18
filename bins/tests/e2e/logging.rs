//! Logs that nobody reads.

use tokio::{net::TcpStream, task::JoinSet};

use crate::support::{Pki, Server, ask, get, soon};

/// What may wait to be written, a pipe of 64 KiB, and some more.
const LINES: usize = 10_000;
/// Clients at once.
const CLIENTS: usize = 20;

/// A container's runtime that is stuck must not be what stops a tunnel.
#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_nobody() {
    let pki = Pki::new();
    let server = Server::start(Server::args(&pki)).await;
    server.log.read(false);
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let proxy = server.proxy;
        clients.spawn(async move {
            for _ in 0..LINES / CLIENTS {
                let client = TcpStream::connect(proxy).await.unwrap();
                assert_eq!(ask(client, "target.test:80").await.status, 503);
            }
        });
    }
    soon("all refusals", clients.join_all()).await;
    let (_, metrics) = get(server.admin, "/metrics").await;
    let dropped = metrics
        .lines()
        .find_map(|line| line.strip_prefix("tunnel_log_lines_dropped_total "));
    let dropped: usize = dropped.unwrap().parse().unwrap();
    assert!((1..LINES).contains(&dropped), "{dropped}");
    // It is told what was said since, when somebody reads again.
    server.log.read(true);
    let from = server.log.here();
    server.log.line_after(from, "refused").await;
}
