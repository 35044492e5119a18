//! Programs that have no descriptors left.

use std::{ffi::OsString, net::SocketAddr};

use tokio::{net::TcpStream, process::Command};

use crate::support::{Pki, Process, Server, agent_args, get, soon, target};

const SERVER: &str = env!("CARGO_BIN_EXE_tunnel-server");
const AGENT: &str = env!("CARGO_BIN_EXE_tunnel-agent");

/// Enough to start with, and little more.
const FEW: &str = "ulimit -n 64 && exec \"$0\" \"$@\"";

/// A program that gets no more than a few descriptors from the system.
fn short(name: &'static str, program: &str, args: Vec<OsString>) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", FEW, program]).args(args);
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

#[tokio::test]
async fn a_server_whose_clients_took_all_descriptors_answers_its_probes() {
    let pki = Pki::new();
    let mut args = Server::args(&pki);
    args.extend(Server::own_args().chain(["--carrier=quic://127.0.0.1:0".into(), "--threads=2".into()]));
    let process = short("tunnel-server", SERVER, args);
    let server = Server::of("quic", process).await;
    let agent = Process::agent(agent_args(&pki, server.carrier));
    agent.log.line("connected with server").await;
    let site = target::http("a page\n").await;

    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(TcpStream::connect(server.proxy).await.unwrap());
    }
    server.log.line("cannot accept a client at the moment").await;
    is_answered(server.admin).await;
    // Nothing is kept: it is as before for whoever asks next.
    is_answered(server.admin).await;
    drop(idle);
    assert_eq!(soon("a page", server.fetch(site)).await, "a page\n");
    let log = server.log.text();
    assert!(!log.contains("admin address at the moment"), "{log}");
}

#[tokio::test]
async fn an_agent_whose_targets_took_all_descriptors_answers_its_probes() {
    let pki = Pki::new();
    let server = Server::start(Server::args(&pki)).await;
    let mut args = agent_args(&pki, server.carrier);
    args.retain(|arg| arg != "--admin=off");
    args.extend(["--admin=127.0.0.1:0".into(), "--log=info,tunnel_tls=debug".into()]);
    let agent = short("tunnel-agent", AGENT, args);
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
    let served = async { while server.connect(site).await.status != 200 {} };
    soon("a stream after the shortage", served).await;
    pki.agent();
    agent.log.line("certificates: the changed files are in use").await;
    let log = agent.log.text();
    assert_eq!(log.matches("certificates: ").count(), 1, "{log}");
}
