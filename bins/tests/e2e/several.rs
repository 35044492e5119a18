//! An agent with several connections.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Notify,
};

use crate::support::{Pki, Process, Server, TOKEN, Tunnel, agent_args_to, get, soon, target};

/// How busy the connections are that a server has with its only agent.
async fn streams(server: &Server) -> Vec<u64> {
    let (_, sessions) = get(server.admin, "/sessions").await;
    let sessions: serde_json::Value = serde_json::from_str(&sessions).unwrap();
    let agents = sessions["agents"].as_array().unwrap();
    let connections = agents.iter().flat_map(|agent| agent["connections"].as_array().unwrap());
    connections
        .map(|connection| connection["streams"].as_u64().unwrap())
        .collect()
}

/// Waits until a server has as many connections, all of them idle.
async fn connections(server: &Server, number: usize) {
    let all = async { while streams(server).await != vec![0; number] {} };
    soon("the server has all connections", all).await;
}

/// Waits until a server has as many connections, however busy.
async fn connections_of(server: &Server, number: usize) {
    let all = async { while streams(server).await.len() != number {} };
    soon("the server has all connections", all).await;
}

#[tokio::test]
async fn one_that_is_cut_leaves_the_others_and_is_replaced() {
    let pki = Pki::new();
    let any = "127.0.0.1:0".parse().unwrap();
    let server = Server::start_over("ws", any, Server::args_over("ws", &pki)).await;
    let (cut, carrier) = (Arc::new(Notify::new()), server.carrier);
    let path = target::serve({
        let cut = Arc::clone(&cut);
        move |mut agent| {
            let cut = Arc::clone(&cut);
            async move {
                let mut server = tokio::net::TcpStream::connect(carrier).await?;
                tokio::select! {
                    copied = tokio::io::copy_bidirectional(&mut agent, &mut server) => copied.map(drop),
                    () = cut.notified() => Ok(()),
                }
            }
        }
    })
    .await;
    let mut args = agent_args_to(&pki, &format!("ws://{path}"));
    args.retain(|arg| arg != "--admin=off");
    args.extend(["--connections=3".into(), "--admin=127.0.0.1:0".into()]);
    args.extend(["--token-file".into(), pki.write("token", TOKEN).into()]);
    let agent = Process::agent(args);
    let line = agent.log.line("admin on http://").await;
    let admin = line
        .split(['/', ' '])
        .find_map(|word| word.trim_end_matches(':').parse().ok());
    let admin = admin.unwrap();
    agent.log.line("3 of 3 connections are up").await;
    connections(&server, 3).await;

    let echo = target::echo().await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(server.connect(echo).await.tunnel());
    }
    assert_eq!(streams(&server).await, [1, 1, 1]);

    let here = agent.log.here();
    cut.notify_one();
    let line = agent.log.line_after(here, "a connection with ws://").await;
    assert!(line.contains("2 of 3 connections are left, connecting again"), "{line}");
    server.log.line("agent disconnected").await;
    assert_eq!(get(admin, "/readyz").await.0, 200);
    agent.log.line_after(here, "3 of 3 connections are up").await;
    let mut cut = 0;
    for stream in &mut held {
        let echoed = async {
            stream.write_all(b"x").await?;
            stream.read_u8().await
        };
        cut += usize::from(soon("the echo, or the end", echoed).await.is_err());
    }
    assert_eq!(cut, 1);

    let (_, sessions) = get(admin, "/sessions").await;
    let sessions: serde_json::Value = serde_json::from_str(&sessions).unwrap();
    let kept = sessions["servers"][0]["connections"].as_array().unwrap();
    assert!(
        kept.len() == 3 && kept.iter().all(|connection| connection["state"] == "connected"),
        "{sessions:#}"
    );
}

#[tokio::test]
async fn all_of_them_return_to_a_server_that_was_killed() {
    let mut tunnel = Tunnel::over("ws", Pki::new(), &[], &["--connections=4"]).await;
    tunnel.agent.log.line("4 of 4 connections are up").await;
    connections(&tunnel.server, 4).await;
    let carrier = tunnel.server.carrier;
    let here = tunnel.agent.log.here();
    tunnel.server.signal("KILL");
    tunnel.server.process().ended().await;
    tunnel.agent.log.line_after(here, "not connected: ").await;

    let server = Server::start_over("ws", carrier, Server::args_over("ws", &tunnel.pki)).await;
    tunnel.agent.log.line_after(here, "4 of 4 connections are up").await;
    connections(&server, 4).await;
    assert_eq!(server.fetch(target::http("a page\n").await).await, "a page\n");
    let told = tunnel.agent.log.text();
    let lost = told.lines().skip(here).filter(|line| line.contains(" lost: "));
    assert!(lost.count() <= 2, "{told}");
}

#[tokio::test]
async fn they_are_served_by_several_threads() {
    for scheme in ["quic", "h2", "wss", "grpc"] {
        let agent = ["--connections=6", "--threads=2"];
        let mut tunnel = Tunnel::over(scheme, Pki::new(), &["--threads=3"], &agent).await;
        tunnel.agent.log.line("6 of 6 connections are up").await;
        let echo = target::echo().await;
        let mut held = Vec::new();
        for _ in 0..24 {
            held.push(tunnel.server.connect(echo).await.tunnel());
        }
        assert_eq!(streams(&tunnel.server).await, [4; 6]);

        tunnel.server.signal("TERM");
        tunnel.server.log.line("no longer listening for clients").await;
        for stream in &mut held {
            stream.write_all(b"x").await.unwrap();
            assert_eq!(soon("the echo", stream.read_u8()).await.unwrap(), b'x');
        }
        drop(held);
        assert!(tunnel.server.process().ended().await.success());
        let log = tunnel.server.log.text();
        assert!(!log.contains("WARN"), "{log}");
    }
}

#[tokio::test]
async fn there_are_more_of_them_while_there_are_many_streams() {
    let agent = ["--threads=2"];
    for scheme in ["h2", "wss", "grpc"] {
        let tunnel = Tunnel::over(scheme, Pki::new(), &[], &agent).await;
        let echo = target::echo().await;
        let mut held = Vec::new();
        for _ in 0..9 {
            held.push(tunnel.server.connect(echo).await.tunnel());
        }
        tunnel.agent.log.line("2 of 2 connections are up").await;
        connections_of(&tunnel.server, 2).await;
        while streams(&tunnel.server).await.into_iter().min() < Some(7) {
            assert!(held.len() < 16, "{:?}", streams(&tunnel.server).await);
            held.push(tunnel.server.connect(echo).await.tunnel());
        }
        for stream in &mut held {
            stream.write_all(b"x").await.unwrap();
            assert_eq!(soon("the echo", stream.read_u8()).await.unwrap(), b'x');
        }
    }
}

#[tokio::test]
async fn there_is_one_where_more_gain_nothing_or_are_not_wanted() {
    let unlimited: &[&str] = &["--threads=2"];
    for (scheme, agent) in [("quic", unlimited), ("wss", &["--threads=2", "--max-connections=1"])] {
        let tunnel = Tunnel::over(scheme, Pki::new(), &[], agent).await;
        let echo = target::echo().await;
        let mut held = Vec::new();
        for _ in 0..24 {
            held.push(tunnel.server.connect(echo).await.tunnel());
        }
        assert_eq!(streams(&tunnel.server).await, [24]);
    }
}
