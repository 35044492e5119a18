//! Signals to end.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{NOTICED, Tunnel, end, soon, target, within};

#[tokio::test]
async fn the_server_drains_and_ends_when_the_last_stream_does() {
    let mut tunnel = Tunnel::start().await;
    let mut stream = tunnel.server.connect(target::echo().await).await.tunnel();
    assert_eq!(tunnel.server.readiness().await, (200, "ok\n".to_owned()));

    tunnel.server.signal("TERM");
    tunnel.server.log.line("draining agents=1").await;
    assert_eq!(tunnel.server.readiness().await, (503, "draining\n".to_owned()));
    tunnel.agent.log.line("is draining").await;
    tunnel.server.log.line("no longer listening for clients").await;
    assert!(
        tokio::net::TcpStream::connect(tunnel.server.proxy).await.is_err(),
        "clients go elsewhere"
    );
    stream.write_all(b"still here").await.unwrap();
    let mut back = [0; 10];
    soon("the echo", stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"still here");

    drop(stream);
    assert!(tunnel.server.process().ended().await.success());
    assert!(
        !tunnel.server.log.text().contains("WARN"),
        "{}",
        tunnel.server.log.text()
    );
}

#[tokio::test]
async fn the_drain_timeout_ends_what_does_not_end_itself() {
    let mut tunnel = Tunnel::with(&["--drain-timeout=300ms"], &[]).await;
    let mut stream = tunnel.server.connect(target::echo().await).await.tunnel();
    tunnel.server.signal("TERM");
    assert!(soon("the stream's end", stream.read_u8()).await.is_err());
    // It did as it was told: for whoever supervises it this is no failure.
    assert_eq!(tunnel.server.process().ended().await.code(), Some(0));
    let line = tunnel.server.log.line("the drain timeout is over").await;
    assert!(
        line.contains("WARN") && line.ends_with("; streams cut short: 1"),
        "{line}"
    );
}

#[tokio::test]
async fn a_second_signal_ends_the_server_at_once_and_the_agent_hears_of_it() {
    let mut tunnel = Tunnel::start().await;
    let (mut client, mut target) = tunnel.held().await;
    tunnel.server.signal("TERM");
    tunnel.server.log.line("draining agents=1").await;
    tunnel.server.signal("INT");
    assert_eq!(tunnel.server.process().ended().await.code(), Some(0));
    tunnel.server.log.line("told twice to stop; streams cut short: 1").await;
    within(NOTICED, "the client sees the end", end(&mut client)).await;
    // The last words of the server have left before its end: the agent does not find out by its keepalive.
    within(NOTICED, "the target sees the end", end(&mut target)).await;
}

#[tokio::test]
async fn the_agent_drains_and_ends_when_the_last_stream_does() {
    let mut tunnel = Tunnel::start().await;
    let site = target::echo().await;
    let mut stream = tunnel.server.connect(site).await.tunnel();
    tunnel.agent.signal("TERM");
    tunnel.agent.log.line("draining streams=1").await;
    // It is told to the server, which therefore opens no more streams there.
    let refused = async { while tunnel.server.connect(site).await.status != 503 {} };
    soon("new streams are refused", refused).await;
    stream.write_all(b"x").await.unwrap();
    assert_eq!(soon("the echo", stream.read_u8()).await.unwrap(), b'x');

    drop(stream);
    assert!(tunnel.agent.ended().await.success());
    let line = tunnel.server.log.line("agent disconnected").await;
    assert!(line.contains("closed the connection: drained"), "{line}");
}

#[tokio::test]
async fn a_second_signal_ends_the_agent_at_once_and_the_server_hears_of_it() {
    let mut tunnel = Tunnel::start().await;
    let mut stream = tunnel.server.connect(target::echo().await).await.tunnel();
    tunnel.agent.signal("TERM");
    tunnel.agent.log.line("a second signal ends at once").await;
    tunnel.agent.signal("TERM");
    assert!(tunnel.agent.ended().await.success());
    tunnel.agent.log.line("told twice to stop; streams cut short: 1").await;
    let line = tunnel.server.log.line("agent disconnected").await;
    assert!(line.contains("the peer closed the connection: "), "{line}");
    assert!(soon("the stream's end", stream.read_u8()).await.is_err());
}
