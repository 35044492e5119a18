//! Header fields of an operator's own in the request for a WebSocket.

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    process::Command,
};

use crate::support::{Pki, Process, TOKEN, soon};

const AGENT: &str = env!("CARGO_BIN_EXE_tunnel-agent");

/// A gateway that wants to know who asks: it refuses the first request that comes, and gives its header fields.
async fn gateway(listener: TcpListener) -> Vec<String> {
    let (socket, _) = soon("an agent", listener.accept()).await.unwrap();
    let mut socket = BufReader::new(socket);
    let mut fields = Vec::new();
    loop {
        let mut line = String::new();
        soon("the request", socket.read_line(&mut line)).await.unwrap();
        match line.trim_end() {
            "" => break,
            line => fields.push(line.to_owned()),
        }
    }
    let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    socket.write_all(answer).await.unwrap();
    fields
}

/// Starts an agent with `how` it is told of header fields, and gives what a gateway got and what the agent said of it.
async fn asked(how: impl FnOnce(&mut Command, &Pki)) -> (Vec<String>, String) {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token = pki.write("token", TOKEN);
    let mut command = Command::new(AGENT);
    command
        .arg(format!("--server=ws://{}/tunnel", listener.local_addr().unwrap()))
        .args([
            "--id=node-7",
            "--admin=off",
            "--proxy=off",
            "--log=trace",
            "--token-file",
        ])
        .arg(token);
    how(&mut command, &pki);
    let agent = Process::start("tunnel-agent", command);
    let fields = gateway(listener).await;
    agent.log.line("not connected: ").await;
    (fields, agent.log.text())
}

/// The fields of these names, in any letter case, in their order.
fn named<'a>(fields: &'a [String], name: &str) -> Vec<&'a str> {
    let fields = fields.iter().filter_map(|field| field.split_once(": "));
    let of_name = fields.filter(|(given, _)| given.eq_ignore_ascii_case(name));
    of_name.map(|(_, value)| value).collect()
}

#[tokio::test]
async fn a_gateway_gets_the_header_fields_of_flags_environment_and_file() {
    let flags = asked(|command, _| {
        command.args(["--ws-header=X-Key: hunter2:hunter2", "--ws-header", "Host:gw.example"]);
    });
    let environment = asked(|command, _| {
        command.env("TUNNEL_WS_HEADER", "X-Key: hunter2:hunter2\nHost: gw.example\n");
    });
    let file = asked(|command, pki| {
        let text = "ws-header = ['X-Key: hunter2:hunter2', 'Host: gw.example']\n";
        command.arg("--config").arg(pki.write("agent.toml", text));
    });
    for (how, (fields, log)) in [
        ("flags", flags.await),
        ("environment", environment.await),
        ("file", file.await),
    ] {
        assert_eq!(named(&fields, "x-key"), ["hunter2:hunter2"], "{how}: {fields:?}");
        assert_eq!(named(&fields, "host"), ["gw.example"], "{how}: {fields:?}");
        assert!(log.contains("TRACE") && !log.contains("hunter2"), "{how}: {log}");
    }
}

#[tokio::test]
async fn a_value_shows_neither_in_the_help_nor_in_a_complaint() {
    let secret = "X-Key: hunter2";
    for args in [
        &["--help"][..],
        // One that is wrong, and one that nothing is done with.
        &["--check-config", "--server=ws://gw.example", "--ws-header=hunter2"],
        &["--check-config", "--server=h2c://gw.example", "--log=trace"],
    ] {
        let pki = Pki::new();
        let mut command = Command::new(AGENT);
        command.args(args).env("TUNNEL_WS_HEADER", secret);
        command.arg("--token-file").arg(pki.write("token", TOKEN));
        let mut agent = Process::start("tunnel-agent", command);
        agent.ended().await;
        let said = agent.out.text() + &agent.log.text();
        assert!(said.contains("ws-header") && !said.contains("hunter2"), "{said}");
    }
}
