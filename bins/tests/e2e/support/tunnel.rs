//! A server and an agent that know each other by certificates.

use std::{ffi::OsString, net::SocketAddr, ops::Deref, path::Path};

use tokio::net::{TcpListener, TcpStream};

use super::{AGENT, Answer, Pair, Pki, Process, ask, fetch, get};

/// How the carrier is spoken unless a test says otherwise.
pub(crate) const QUIC: &str = "quic";

/// The token of agents that have no certificate.
pub(crate) const TOKEN: &str = "a-token-that-nobody-could-guess";

/// A server, and where it listens.
pub(crate) struct Server {
    process: Process,
    scheme: &'static str,
    /// For agents.
    pub(crate) carrier: SocketAddr,
    /// For clients.
    pub(crate) proxy: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Server {
    /// Starts on ports that are free. The arguments say which agents are let in.
    pub(crate) async fn start(args: Vec<OsString>) -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), args).await
    }

    /// Starts with the address for agents given.
    pub(crate) async fn start_on(carrier: SocketAddr, args: Vec<OsString>) -> Self {
        Self::start_over(QUIC, carrier, args).await
    }

    /// Starts with a carrier other than QUIC.
    pub(crate) async fn start_over(scheme: &'static str, carrier: SocketAddr, args: Vec<OsString>) -> Self {
        let carrier = OsString::from(format!("--carrier={scheme}://{carrier}"));
        let process = Process::server(Self::own_args().chain([carrier]).chain(args));
        Self::of(scheme, process).await
    }

    /// A server that was started with [`own_args`](Self::own_args) and one carrier.
    pub(crate) async fn of(scheme: &'static str, process: Process) -> Self {
        let carrier = addr(process.log.line("listening for agents").await, "addr=");
        Self::started(process, scheme, carrier).await
    }

    /// Starts without a carrier for agents.
    pub(crate) async fn without_agents(args: Vec<OsString>) -> Self {
        let process = Process::server(Self::own_args().chain(args));
        Self::started(process, "", ([0, 0, 0, 0], 0).into()).await
    }

    /// What every server is given: where it serves clients and its administrator, and its name.
    pub(crate) fn own_args() -> impl Iterator<Item = OsString> {
        let own = ["--frontend=connect://127.0.0.1:0", "--admin=127.0.0.1:0", "--id=gw-1"];
        own.into_iter().map(OsString::from)
    }

    async fn started(process: Process, scheme: &'static str, carrier: SocketAddr) -> Self {
        Self {
            carrier,
            proxy: addr(process.log.line("endpoint=connect://").await, "connect://"),
            admin: addr(process.log.line("admin on http://").await, "http://"),
            process,
            scheme,
        }
    }

    /// The URL by which agents reach it.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.carrier)
    }

    /// The arguments of a server that lets agents in by the CA's certificates.
    pub(crate) fn args(pki: &Pki) -> Vec<OsString> {
        Self::args_with(pki, pki.server())
    }

    /// The same, with a certificate of one's own choice.
    pub(crate) fn args_with(pki: &Pki, Pair { cert, key }: Pair) -> Vec<OsString> {
        let words = [
            "--tls-cert".into(),
            cert.into(),
            "--tls-key".into(),
            key.into(),
            "--agent-ca".into(),
        ];
        words.into_iter().chain([pki.trust.clone().into()]).collect()
    }

    /// The arguments of a server that lets agents in by what they can show over a carrier.
    pub(crate) fn args_over(scheme: &str, pki: &Pki) -> Vec<OsString> {
        if is_clear_text(scheme) {
            Self::token_args(pki, &pki.write("tokens", &format!("site-a {TOKEN}\n")))
        } else {
            Self::args(pki)
        }
    }

    /// The arguments of a server that lets agents in by tokens.
    pub(crate) fn token_args(pki: &Pki, tokens: &Path) -> Vec<OsString> {
        let Pair { cert, key } = pki.server();
        let words = [
            "--tls-cert".into(),
            cert.into(),
            "--tls-key".into(),
            key.into(),
            "--agent-tokens".into(),
        ];
        words.into_iter().chain([tokens.into()]).collect()
    }

    /// Asks it for a target, over TCP in clear text.
    pub(crate) async fn connect(&self, target: SocketAddr) -> Answer<TcpStream> {
        ask(TcpStream::connect(self.proxy).await.unwrap(), target).await
    }

    /// Fetches a page through it.
    pub(crate) async fn fetch(&self, target: SocketAddr) -> String {
        fetch(self.proxy, target).await
    }

    /// Its readiness: status and text.
    pub(crate) async fn readiness(&self) -> (u16, String) {
        get(self.admin, "/readyz").await
    }

    /// Its process, without the addresses.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The address that stands behind `before` in a line.
fn addr(line: String, before: &str) -> SocketAddr {
    let (_, rest) = line.split_once(before).unwrap();
    let addr = rest.split([' ', ':', '/']).take(2).collect::<Vec<_>>().join(":");
    addr.parse().unwrap()
}

impl Deref for Server {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// The arguments of an agent with a certificate of the CA.
pub(crate) fn agent_args(pki: &Pki, server: SocketAddr) -> Vec<OsString> {
    agent_args_to(pki, &format!("{QUIC}://{server}"))
}

/// The same, to a server at a URL.
pub(crate) fn agent_args_to(pki: &Pki, url: &str) -> Vec<OsString> {
    let pair = pki.agent();
    vec![
        format!("--server={url}").into(),
        format!("--id={AGENT}").into(),
        "--admin=off".into(),
        "--proxy=off".into(),
        "--ca".into(),
        pki.trust.clone().into(),
        "--cert".into(),
        pair.cert.into(),
        "--key".into(),
        pair.key.into(),
    ]
}

/// Both, connected.
pub(crate) struct Tunnel {
    pub(crate) pki: Pki,
    pub(crate) server: Server,
    pub(crate) agent: Process,
}

impl Tunnel {
    pub(crate) async fn start() -> Self {
        Self::with(&[], &[]).await
    }

    /// Starts both with more arguments.
    pub(crate) async fn with(server: &[&str], agent: &[&str]) -> Self {
        Self::of(Pki::new(), server, agent).await
    }

    /// Starts both with more arguments, which may name files of the directory.
    pub(crate) async fn of(pki: Pki, server: &[&str], agent: &[&str]) -> Self {
        Self::over(QUIC, pki, server, agent).await
    }

    /// Starts both over a carrier other than QUIC; in clear text the agent shows a token beside its certificate.
    pub(crate) async fn over(scheme: &'static str, pki: Pki, server: &[&str], agent: &[&str]) -> Self {
        let mut args = Server::args_over(scheme, &pki);
        args.extend(server.iter().map(OsString::from));
        let server = Server::start_over(scheme, "127.0.0.1:0".parse().unwrap(), args).await;
        let agent = connected_agent(&pki, &server, agent).await;
        Self { pki, server, agent }
    }

    /// A stream with both its ends in the test's hands: the client's and the target's.
    pub(crate) async fn held(&self) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = self.server.connect(listener.local_addr().unwrap()).await.tunnel();
        (client, listener.accept().await.unwrap().0)
    }

    /// Starts the agent once more.
    pub(crate) async fn restart_agent(&mut self, args: &[&str]) {
        self.agent = connected_agent(&self.pki, &self.server, args).await;
    }
}

/// Whether an agent cannot show a certificate.
fn is_clear_text(scheme: &str) -> bool {
    matches!(scheme, "h2c" | "ws" | "grpc+plain")
}

async fn connected_agent(pki: &Pki, server: &Server, more: &[&str]) -> Process {
    let from = server.log.here();
    let mut args = agent_args_to(pki, &server.url());
    if is_clear_text(server.scheme) {
        args.extend(["--token-file".into(), pki.write("token", TOKEN).into()]);
    }
    args.extend(more.iter().map(OsString::from));
    let agent = Process::agent(args);
    agent.log.line("connected with server").await;
    server.log.line_after(from, "agent connected").await;
    agent
}
