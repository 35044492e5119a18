//! A server for agents, and targets for their streams.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use prometheus_client::{encoding::text, registry::Registry};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use tunnel_core::{
    Agent, AgentBuilder, AgentId, DuplexIo, Identity, Policy, RunningAgent, Server, ServerBuilder, Target,
};
use tunnel_testkit::memory::{self, MemoryCarrier};

/// A server with one memory listener, and the carrier that reaches it.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) carrier: MemoryCarrier,
}

impl Site {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |builder| builder)
    }

    pub(crate) fn with(name: &str, change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let (carrier, listener) = memory::pair(memory::Config::default());
        let builder = Server::builder(name.parse().unwrap()).policy(Arc::new(Policy::allow_all()));
        let server = change(builder).build().unwrap();
        server.listen(Box::new(listener)).unwrap();
        let carrier = carrier.another(common_name("node-7"));
        Self { server, carrier }
    }

    /// An agent that is connected with this server alone.
    pub(crate) async fn agent(&self, change: impl FnOnce(AgentBuilder) -> AgentBuilder) -> RunningAgent {
        let builder = Agent::builder(id()).server(vec![Arc::new(self.carrier.clone())]);
        let agent = change(builder).build().unwrap().start();
        soon(agent.connected()).await;
        soon(self.server.wait_for(&id())).await;
        agent
    }

    /// Waits until the server's connection with the agent is draining.
    pub(crate) async fn draining(&self) {
        soon(async {
            while !self.server.agents().get(&id()).unwrap().connections()[0].is_draining() {
                settle().await;
            }
        })
        .await;
    }

    /// Waits until the server's connection with the agent has ended for this reason, as the server counts it.
    pub(crate) async fn ended(&self, reason: &str) {
        let line =
            format!("tunnel_server_connections_ended_total{{carrier=\"memory\",by=\"agent\",reason=\"{reason}\"}}");
        soon(async {
            while figure(&line, |registry| self.server.metrics().register(registry)) < 1.0 {
                settle().await;
            }
        })
        .await;
    }
}

/// Lets every task run until it waits.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn id() -> AgentId {
    "node-7".parse().unwrap()
}

pub(crate) fn common_name(name: &str) -> Identity {
    let mut identity = Identity::anonymous();
    identity.common_name = Some(name.to_owned());
    identity
}

/// What must come soon; in paused time this costs nothing.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(10), future).await.expect("within 10 s")
}

/// A target that sends back what it is sent.
pub(crate) async fn echo_target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                tokio::io::copy(&mut read, &mut write).await?;
                write.shutdown().await
            });
        }
    });
    addr
}

pub(crate) fn tcp(addr: SocketAddr) -> Target {
    Target::try_from(addr).unwrap()
}

/// Sends bytes to an echo, finishes, and takes them back.
pub(crate) async fn round_trip(mut io: DuplexIo, bytes: &[u8]) {
    let echoed = soon(async {
        let mut echoed = Vec::new();
        io.write_all(bytes).await.unwrap();
        io.shutdown().await.unwrap();
        io.read_to_end(&mut echoed).await.unwrap();
        echoed
    });
    assert!(echoed.await == bytes);
}

/// The value of the metric whose line begins so, without its prefix `tunnel_agent_`.
pub(crate) fn metric(agent: &RunningAgent, line: &str) -> f64 {
    figure(&format!("tunnel_agent_{line}"), |registry| {
        agent.metrics().register(registry)
    })
}

fn figure(line: &str, register: impl FnOnce(&mut Registry)) -> f64 {
    let mut registry = Registry::default();
    register(&mut registry);
    let mut all = String::new();
    text::encode(&mut all, &registry).unwrap();
    let value = all
        .lines()
        .find_map(|other| other.strip_prefix(line)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}
