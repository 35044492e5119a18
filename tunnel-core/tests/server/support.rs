//! Agents that behave in one way each, and a server to try them on.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prometheus_client::{encoding::text, registry::Registry};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tunnel_core::{
    AgentId, Carrier, Claim, Client, Connection, ConnectionError, DialError, DuplexIo, Generation, Identity, Inbound,
    OpenFailure, OpenRequest, Opened, Opener, Policy, Refusal, RefusalKind, Selector, Server, ServerBuilder,
    StreamHead,
};
use tunnel_testkit::memory::{self, MemoryCarrier};

/// A server with one memory listener, and the carrier that reaches it.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) carrier: MemoryCarrier,
}

impl World {
    /// A server that lets everybody do everything.
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder.policy(Arc::new(Policy::allow_all())))
    }

    pub(crate) fn with(change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let (carrier, listener) = memory::pair(memory::Config::default());
        let server = change(Server::builder("test".parse().unwrap())).build().unwrap();
        server.listen(Box::new(listener)).unwrap();
        Self { server, carrier }
    }

    /// Connects an agent, on a wire of its own, with an identity of the same name, and waits until it is registered.
    pub(crate) async fn agent(&self, name: &str, behaviour: Behaviour) -> Agent {
        let carrier = self.carrier.another(common_name(name));
        self.connect(&carrier, claim(name, 1), behaviour).await.unwrap()
    }

    pub(crate) async fn connect(
        &self,
        carrier: &MemoryCarrier,
        claim: Claim,
        behaviour: Behaviour,
    ) -> Result<Agent, DialError> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let connection = carrier.dial(&claim, deadline).await?;
        settle().await;
        Ok(Agent {
            id: claim.agent.clone(),
            carrier: carrier.clone(),
            connection: Arc::clone(&connection),
            task: tokio::spawn(behaviour.run(connection)),
        })
    }

    /// Opens a stream for an anonymous client through any agent.
    pub(crate) async fn open(&self) -> Result<Opened, OpenFailure> {
        self.server.open(request()).await
    }

    /// The number of connections that each agent has.
    pub(crate) fn connected(&self) -> Vec<(String, usize)> {
        let view = self.server.agents();
        let sessions = view.sessions().iter();
        sessions
            .map(|session| (session.agent().to_string(), session.connections().len()))
            .collect()
    }

    /// The value of the metric whose line begins so, without its prefix `tunnel_server_`.
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let mut registry = Registry::default();
        self.server.metrics().register(&mut registry);
        let mut all = String::new();
        text::encode(&mut all, &registry).unwrap();
        let wanted = format!("tunnel_server_{line} ");
        let value = all.lines().find_map(|found| found.strip_prefix(&wanted));
        value.map_or(0.0, |value| value.parse().unwrap())
    }
}

pub(crate) struct Agent {
    pub(crate) id: AgentId,
    pub(crate) carrier: MemoryCarrier,
    pub(crate) connection: Arc<dyn Connection>,
    task: JoinHandle<()>,
}

impl Agent {
    /// How the connection ended; fails if it does not within a second.
    pub(crate) async fn end(&self) -> ConnectionError {
        soon(self.connection.closed()).await
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What an agent does with the streams that it is asked for.
#[derive(Clone)]
pub(crate) enum Behaviour {
    /// Sends back what it gets.
    Echo,
    /// Answers no stream.
    Ignore,
    /// Leaves all to the test.
    Wait,
    /// Refuses all.
    Refuse(RefusalKind),
}

impl Behaviour {
    pub(crate) async fn run(self, connection: Arc<dyn Connection>) {
        if matches!(self, Self::Wait) {
            return;
        }
        let mut ignored = Vec::new();
        while let Ok(inbound) = connection.accept().await {
            match &self {
                Self::Echo => drop(tokio::spawn(echo(inbound))),
                Self::Ignore | Self::Wait => ignored.push(inbound),
                Self::Refuse(kind) => inbound.refuse(Refusal::new(*kind, "no")),
            }
        }
    }
}

async fn echo(inbound: Box<dyn Inbound>) {
    let Ok(stream) = inbound.accept().await else { return };
    let (mut reader, mut writer) = tokio::io::split(stream.into_io());
    if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
        let _ = writer.shutdown().await;
    }
}

pub(crate) fn claim(agent: &str, generation: u64) -> Claim {
    Claim::new(agent.parse().unwrap(), Generation(generation))
}

pub(crate) fn common_name(name: &str) -> Identity {
    let mut identity = Identity::anonymous();
    identity.common_name = Some(name.into());
    identity
}

/// An anonymous client's wish for `tcp://db.example:5432`.
pub(crate) fn request() -> OpenRequest {
    OpenRequest {
        client: Client::default(),
        selector: Selector::Any,
        head: StreamHead::new("tcp://db.example:5432".parse().unwrap()),
        early: Bytes::new(),
    }
}

/// Sends bytes through an echo and expects them back, then the end.
pub(crate) async fn round_trip(mut io: DuplexIo, bytes: &[u8]) {
    io.write_all(bytes).await.unwrap();
    io.shutdown().await.unwrap();
    let mut back = Vec::new();
    io.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, bytes);
}

pub(crate) fn kind(result: Result<Opened, OpenFailure>) -> RefusalKind {
    result.unwrap_err().refusal.kind
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(1), future).await.expect("within a second")
}

/// Lets every task do what it can without time passing to speak of.
pub(crate) async fn settle() {
    sleep(Duration::from_millis(1)).await;
}
