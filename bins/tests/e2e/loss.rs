//! Programs that are killed, freeze and come back.

use std::time::Instant;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

use crate::support::{Answer, NOTICED, Process, Server, Tunnel, agent_args, ask, end, get, soon, target, within};

/// Settings by which a dead path is noticed within 900 ms.
const QUICK: [&str; 2] = ["--keepalive-interval=600ms", "--keepalive-timeout=300ms"];

/// Settings by which it would be noticed after minutes, so that what is noticed earlier was noticed in another way.
const PATIENT: [&str; 2] = ["--keepalive-interval=200s", "--keepalive-timeout=100s"];

#[tokio::test]
async fn streams_and_dials_end_when_the_agent_is_killed() {
    let mut tunnel = Tunnel::with(&PATIENT, &PATIENT).await;
    let unanswering = target::Unanswering::new().await;
    let mut download = tunnel.server.connect(target::endless().await).await.tunnel();
    download.read_exact(&mut vec![0; 1 << 20]).await.unwrap();
    let dial = dial(&tunnel, &unanswering).await;

    tunnel.agent.signal("KILL");
    let dial = within(NOTICED, "the dial fails", dial).await.unwrap();
    let text = dial.refusal(502).await;
    assert!(text.contains("error=connection_terminated"), "{text}");
    within(NOTICED, "the download ends", end(&mut download)).await;
    let line = tunnel.server.log.line("agent disconnected").await;
    assert!(line.contains("nobody listens at 127.0.0.1:"), "{line}");

    let site = target::http("a page\n").await;
    tunnel.server.connect(site).await.refusal(503).await;
    tunnel.restart_agent(&PATIENT).await;
    assert_eq!(tunnel.server.fetch(site).await, "a page\n");
}

#[tokio::test]
async fn dials_end_when_the_agent_is_killed_although_nothing_else_moves() {
    let tunnel = Tunnel::with(&PATIENT, &PATIENT).await;
    let unanswering = target::Unanswering::new().await;
    let waiting = dial(&tunnel, &unanswering).await;
    tunnel.agent.signal("KILL");
    let dial = within(NOTICED, "the dial fails", waiting).await.unwrap();
    let text = dial.refusal(502).await;
    assert!(text.contains("error=connection_terminated"), "{text}");
    tunnel.server.log.line("agent disconnected").await;
}

/// Begins a dial and waits until it is pending.
async fn dial(tunnel: &Tunnel, target: &target::Unanswering) -> JoinHandle<Answer<TcpStream>> {
    let (proxy, addr) = (tunnel.server.proxy, target.addr);
    let dial = tokio::spawn(async move { ask(TcpStream::connect(proxy).await.unwrap(), addr).await });
    let pending = async {
        loop {
            let (_, metrics) = get(tunnel.server.admin, "/metrics").await;
            if metrics.contains("\ntunnel_server_dials_pending 1\n") {
                return;
            }
        }
    };
    soon("a dial is pending", pending).await;
    dial
}

#[tokio::test]
async fn an_agent_that_comes_back_before_it_is_missed_serves_at_once() {
    // With the default keepalive, the killed one would be missed after 15 s.
    let mut tunnel = Tunnel::start().await;
    let mut old = tunnel.server.connect(target::echo().await).await.tunnel();
    tunnel.agent.signal("KILL");
    tunnel.agent.ended().await;
    let site = target::http("a page\n").await;
    let start = Instant::now();
    tunnel.restart_agent(&[]).await;
    assert_eq!(tunnel.server.fetch(site).await, "a page\n");
    within(NOTICED, "the streams of the killed one end", end(&mut old)).await;
    assert!(start.elapsed() < NOTICED, "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_agent_returns_to_a_server_that_was_killed() {
    let mut tunnel = Tunnel::with(&PATIENT, &PATIENT).await;
    let (mut client, mut target) = tunnel.held().await;
    let carrier = tunnel.server.carrier;
    tunnel.server.signal("KILL");
    tunnel.server.process().ended().await;
    within(NOTICED, "the client sees the end", end(&mut client)).await;
    // The agent has something to say, and finds out that nobody hears it.
    target.write_all(b"x").await.unwrap();
    let line = tunnel.agent.log.line("lost").await;
    assert!(line.contains("nobody listens at 127.0.0.1:"), "{line}");
    assert!(line.contains("connecting again"), "{line}");
    within(NOTICED, "the target sees the end", end(&mut target)).await;

    let here = tunnel.agent.log.here();
    let mut args = Server::args(&tunnel.pki);
    args.extend(PATIENT.map(Into::into));
    let server = Server::start_on(carrier, args).await;
    within(NOTICED, "the agent is back", async {
        tunnel.agent.log.line_after(here, "connected with server").await;
        server.log.line("agent connected").await;
    })
    .await;
    assert_eq!(server.fetch(target::http("a page\n").await).await, "a page\n");
}

#[tokio::test]
async fn the_end_of_a_drain_that_was_not_finished_is_told() {
    let tunnel = Tunnel::with(&QUICK, &QUICK).await;
    let _held = tunnel.held().await;
    tunnel.server.signal("TERM");
    tunnel.agent.log.line("is draining").await;
    tunnel.server.signal("KILL");
    let line = tunnel.agent.log.line("a draining connection was cut").await;
    assert!(line.contains("WARN"), "{line}");
}

#[tokio::test]
async fn a_frozen_agent_is_noticed_passed_over_and_taken_back() {
    let tunnel = Tunnel::with(&QUICK, &QUICK).await;
    let site = target::http("a page\n").await;
    let (mut client, _target) = tunnel.held().await;
    tunnel.agent.signal("STOP");
    within(NOTICED, "the client sees the end", end(&mut client)).await;
    tunnel.server.log.line("agent disconnected").await;
    // Nobody waits for it any more.
    within(NOTICED, "a refusal", async {
        tunnel.server.connect(site).await.refusal(503).await
    })
    .await;

    let here = tunnel.server.log.here();
    tunnel.agent.signal("CONT");
    within(
        NOTICED,
        "the agent is back",
        tunnel.server.log.line_after(here, "agent connected"),
    )
    .await;
    assert_eq!(tunnel.server.fetch(site).await, "a page\n");
}

#[tokio::test]
async fn a_second_agent_takes_over_for_a_frozen_one() {
    let tunnel = Tunnel::with(&QUICK, &QUICK).await;
    let pair = tunnel.pki.client("node-8");
    let mut args = agent_args(&tunnel.pki, tunnel.server.carrier);
    args.retain(|arg| !arg.to_string_lossy().starts_with("--id="));
    args.extend(["--id=node-8".into()]);
    drop(pair);
    let second = Process::agent(args);
    second.log.line("connected with server").await;
    tunnel.server.log.line("agent=node-8").await;

    tunnel.agent.signal("STOP");
    tunnel.server.log.line("agent disconnected").await;
    let site = target::echo().await;
    for _ in 0..20 {
        let mut stream = tunnel.server.connect(site).await.tunnel();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(soon("the echo", stream.read_u8()).await.unwrap(), b'x');
    }
}
