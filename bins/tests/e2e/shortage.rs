//! Programs that have no descriptors left.

use std::{ffi::OsString, net::SocketAddr};

use tokio::{net::TcpStream, process::Command};

use crate::support::{Pki, Process, Server, agent_args, agent_args_to, get, soon, target};

const SERVER: &str = env!("CARGO_BIN_EXE_tunnel-server");
const AGENT: &str = env!("CARGO_BIN_EXE_tunnel-agent");

/// Enough to start with, and little more.
const FEW: usize = 64;

/// A program that gets so many descriptors from the system.
fn short(name: &'static str, program: &str, descriptors: usize, args: Vec<OsString>) -> Process {
    let mut command = Command::new("sh");
    let limited = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
    command.args(["-c", &limited, program]).args(args);
    Process::start(name, command)
}

/// Who probes and who scrapes is answered, and as quickly as ever.
async fn is_answered(admin: SocketAddr) {
    for _ in 0..3 {
        for path in ["/livez", "/readyz", "/metrics", "/sessions"] {
            let (status, text) = soon("an answer of the admin address", get(admin, path)).await;
            assert_eq!(status, 200, "{path}: {text}");
        }
    }
}

/// There are streams again, soon after the shortage.
async fn serves_again(server: &Server, site: SocketAddr) {
    let served = async { while server.connect(site).await.status != 200 {} };
    soon("a stream after the shortage", served).await;
}

#[tokio::test]
async fn a_server_whose_clients_took_all_descriptors_answers_its_probes() {
    let pki = Pki::new();
    let mut args = Server::args(&pki);
    args.extend(Server::own_args().chain(["--carrier=quic://127.0.0.1:0".into(), "--threads=2".into()]));
    let process = short("tunnel-server", SERVER, FEW, args);
    let server = Server::of("quic", process).await;
    let agent = Process::agent(agent_args(&pki, server.carrier));
    agent.log.line("connected with server").await;
    let site = target::echo().await;

    let mut idle = Vec::new();
    for _ in 0..FEW {
        idle.push(TcpStream::connect(server.proxy).await.unwrap());
    }
    server.log.line("cannot accept a client at the moment").await;
    is_answered(server.admin).await;
    // Also when others keep connections there that they do not use.
    for _ in 0..FEW {
        idle.push(TcpStream::connect(server.admin).await.unwrap());
    }
    is_answered(server.admin).await;
    // Nothing is kept: it is as before for whoever asks next.
    is_answered(server.admin).await;
    drop(idle);
    serves_again(&server, site).await;
    let log = server.log.text();
    assert!(!log.contains("admin address at the moment"), "{log}");
    assert_eq!(log.matches("cannot accept a client").count(), 1, "{log}");
}

#[tokio::test]
async fn an_agent_whose_targets_took_all_descriptors_answers_its_probes() {
    let pki = Pki::new();
    let server = Server::start(Server::args(&pki)).await;
    let mut args = agent_args(&pki, server.carrier);
    args.retain(|arg| arg != "--admin=off");
    args.extend(["--admin=127.0.0.1:0".into(), "--log=info,tunnel_tls=debug".into()]);
    let agent = short("tunnel-agent", AGENT, FEW, args);
    let line = agent.log.line("admin on http://").await;
    let (_, admin) = line.split_once("http://").unwrap();
    let admin = admin.split(": ").next().unwrap().parse().unwrap();
    agent.log.line("connected with server").await;
    let site = target::echo().await;

    let mut held = Vec::new();
    let refused = loop {
        let answer = server.connect(site).await;
        match answer.status {
            200 => held.push(answer.tunnel()),
            status => break status,
        }
    };
    assert_eq!(refused, 503);
    is_answered(admin).await;
    // Something happens beside its certificates, which it cannot open to see whether they have changed.
    pki.write("beside", "");
    agent.log.line("cannot tell whether a file has changed").await;

    drop(held);
    serves_again(&server, site).await;
    pki.agent();
    agent.log.line("certificates: the changed files are in use").await;
    let log = agent.log.text();
    assert_eq!(log.matches("certificates: ").count(), 1, "{log}");
}

#[tokio::test]
async fn clients_leave_room_for_agents() {
    let pki = Pki::new();
    let mut args = Server::args(&pki);
    args.extend(Server::own_args().chain(["--carrier=wss://127.0.0.1:0".into(), "--threads=2".into()]));
    let server = Server::of("wss", short("tunnel-server", SERVER, 2 * FEW, args)).await;
    server.log.line("because no more open files are granted").await;
    let agent = Process::agent(agent_args_to(&pki, &server.url()));
    agent.log.line("connected with server").await;
    let site = target::echo().await;

    let mut held = Vec::new();
    let refused = loop {
        let answer = server.connect(site).await;
        if answer.status != 200 {
            break answer;
        }
        held.push(answer.tunnel());
    };
    let text = refused.refusal(503).await;
    let full = format!("all {} connections that this frontend may have are in use", held.len());
    assert!(text.contains(&full), "{text}");
    // One that comes now, and one that comes back.
    let (from, mut args) = (server.log.here(), agent_args_to(&pki, &server.url()));
    args.push("--connections=2".into());
    let agent = Process::agent(args);
    agent.log.line("2 of 2 connections are up").await;
    server.log.line_after(from, "agent connected").await;
    is_answered(server.admin).await;
}
