//! The server: takes agents in and opens streams through them.

mod admission;
mod builder;
mod config;
mod inbound;
mod metrics;
mod open;
mod serve;
mod streams;
mod upstream;

use std::{fmt, io, net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::info;
use tunnel_proto::{AgentId, Claim, CloseCode, ServerId, StreamCode, StreamHead, Target};

pub use self::{
    builder::ServerBuilder,
    config::{InvalidServerConfig, ServerConfig, UpstreamConfig},
    inbound::RefuseInbound,
    metrics::ServerMetrics,
    upstream::{UpstreamState, UpstreamStatus},
};
use self::{open::OnBehalf, streams::Streams, upstream::Upstreams};
use crate::{
    accept::{self, Gate, Host},
    admission::Authenticator,
    carrier::{Carrier, Connection, Listener},
    inbound::InboundHandler,
    opener::{Client, OpenFailure, OpenRequest, Opened, Opener, Selector},
    policy::Policy,
    registry::{Registry, Session, View},
    route::Strategy,
    stream::DuplexIo,
    threads::Threads,
};
pub use crate::{
    accept::{AcceptConfig, NoPlace, Place, Places},
    registry::DuplicateUpstream,
};

/// What agents are told when their connection is closed.
const SHUTTING_DOWN: &str = "the server is shutting down";

/// Takes agents in and opens streams through them. Clones are the same server.
///
/// It runs until [`shutdown`](Self::shutdown), or until its last clone is dropped, which ends everything at once.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
    _stop_with_last: Arc<DropGuard>,
}

/// What the server and its tasks share.
struct Inner {
    id: ServerId,
    config: ServerConfig,
    policy: ArcSwap<Policy>,
    authenticator: Arc<dyn Authenticator>,
    strategies: Vec<Arc<dyn Strategy>>,
    inbound: Arc<dyn InboundHandler>,
    gate: Gate,
    threads: Threads,
    registry: Registry,
    upstreams: Upstreams,
    /// For streams that wait for their answer.
    dials: Semaphore,
    streams: Streams,
    metrics: ServerMetrics,
    draining: watch::Sender<bool>,
    /// Holds a token for everything that a drain waits for: open streams and pending dials.
    running: TaskTracker,
    /// Every task of the server.
    tasks: TaskTracker,
    /// Ends every task.
    stop: CancellationToken,
}

impl Server {
    /// Begins to put a server together.
    #[must_use]
    pub fn builder(id: ServerId) -> ServerBuilder {
        ServerBuilder::new(id)
    }

    /// The server's name.
    #[must_use]
    pub fn id(&self) -> &ServerId {
        &self.inner.id
    }

    /// Takes agents in from a listener, in a task of its own, and gives the address it listens on. Must be called in
    /// a tokio runtime.
    pub fn listen(&self, listener: Box<dyn Listener>) -> io::Result<SocketAddr> {
        let addr = listener.local_addr()?;
        info!(carrier = listener.name(), %addr, "listening for agents");
        let inner = &self.inner;
        inner.tasks.spawn(accept::run(Arc::clone(inner), listener));
        Ok(addr)
    }

    /// Connects with a proxy that this server dials itself, and keeps it connected, in tasks of its own, until the
    /// server drains. While it is connected it is an agent like any other, under the name and with the labels of
    /// `claim`. Must be called in a tokio runtime.
    ///
    /// The name belongs to the upstream from now on, also while that is away: no agent can have it, and one that has it
    /// is disconnected. Claim rules of the policy and the limit on agents are about agents and not asked. What `carrier`
    /// dials must be an agent's end of a connection with the name of `claim`; whether it is the right one is for
    /// `carrier` to verify.
    ///
    /// As many `connections` are kept with it, and new streams go to the one that has the fewest.
    pub fn upstream(
        &self,
        claim: Claim,
        carrier: Arc<dyn Carrier>,
        connections: NonZeroU32,
    ) -> Result<(), DuplicateUpstream> {
        upstream::start(&self.inner, claim, carrier, connections)
    }

    /// How the server stands with its upstreams, in the order in which they were added.
    #[must_use]
    pub fn upstreams(&self) -> Vec<UpstreamStatus> {
        self.inner.upstreams.status()
    }

    /// Cuts short what is left of every wait before an upstream is dialled again, and the whole wait after an attempt
    /// that is under way: something has changed, such as a certificate or the network.
    pub fn redial(&self) {
        self.inner.upstreams.redial();
    }

    /// Opens a stream to a target through an agent, for the program itself: no policy is asked. Use
    /// [`Opener::open`] to act for a client.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the dial, on the agent's side, too.
    pub async fn dial(&self, through: impl Into<Selector>, target: Target) -> Result<DuplexIo, OpenFailure> {
        let request = OpenRequest {
            client: Client::default(),
            selector: through.into(),
            head: StreamHead::new(target),
            early: Bytes::new(),
        };
        let opened = self.inner.open(request, OnBehalf::Program).await?;
        Ok(opened.stream.into_io())
    }

    /// The agents that are connected at this moment.
    #[must_use]
    pub fn agents(&self) -> Arc<View> {
        self.inner.registry.view()
    }

    /// Waits until an agent is connected; at once if it is.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn wait_for(&self, agent: &AgentId) -> Arc<Session> {
        self.inner.registry.wait_for(agent).await
    }

    /// How many streams are open, by either side.
    #[must_use]
    pub fn streams_open(&self) -> usize {
        self.inner.streams.len()
    }

    /// What the server counts.
    #[must_use]
    pub fn metrics(&self) -> &ServerMetrics {
        &self.inner.metrics
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.inner.policy.load_full()
    }

    /// Puts another policy in force, for what is open, too: streams that it does not allow are reset with
    /// [`StreamCode::POLICY`], connections of agents whose identity may no longer claim their id are closed with
    /// [`CloseCode::FORBIDDEN`].
    pub fn set_policy(&self, policy: Arc<Policy>) {
        let inner = &self.inner;
        inner.policy.store(Arc::clone(&policy));
        let streams = inner.streams.recheck(&policy);
        let mut agents = 0;
        let view = inner.registry.view();
        // Upstreams have claimed nothing.
        let of_agents = view
            .sessions()
            .iter()
            .filter(|session| !view.is_upstream(session.agent()));
        for session in of_agents {
            if policy.check_claim(session.identity(), session.agent()).is_err() {
                agents += 1;
                for live in session.connections() {
                    live.close(CloseCode::FORBIDDEN, "the server's claim rules have changed");
                }
            }
        }
        info!(streams, agents, "policy changed; what it no longer allows was ended");
    }

    /// Lets nothing new start and everything open go on: agents are told to go elsewhere, new streams are refused
    /// with [`DestinationUnavailable`](tunnel_proto::RefusalKind::DestinationUnavailable). It cannot be undone.
    pub fn drain(&self) {
        if self.inner.draining.send_replace(true) {
            return;
        }
        let view = self.agents();
        info!(agents = view.len(), "draining");
        let connections = view.sessions().iter().flat_map(|session| session.connections());
        connections.for_each(|live| live.connection().drain());
    }

    /// Whether the server is draining: it is not ready for clients.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.inner.is_draining()
    }

    /// Waits until the server is draining; cancel safe.
    pub async fn draining(&self) {
        self.inner.leaving().await;
    }

    /// Drains, waits until the open streams have ended and their last bytes have reached the agents, and ends everything
    /// that is left after `grace`: connections are closed with [`CloseCode::SHUTDOWN`], and streams are reset with
    /// [`StreamCode::SHUTDOWN`]. When it returns, no task of the server runs any more. Gives the number of streams that
    /// did not end in time.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the server goes on draining; call it again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        let inner = &self.inner;
        self.drain();
        inner.running.close();
        let drained = async {
            inner.running.wait().await;
            // What the streams have sent last may be on its way still: a drained connection ends behind it.
            inner.registry.wait_until_empty().await;
        };
        let finished = timeout(grace, drained).await.is_ok();
        let mut cut = 0;
        if !finished {
            // Closed before their streams are reset, lest they count as drained.
            let view = self.agents();
            let connections = view.sessions().iter().flat_map(|session| session.connections());
            connections.for_each(|live| live.close(CloseCode::SHUTDOWN, SHUTTING_DOWN));
            cut = inner.streams.reset_all(StreamCode::SHUTDOWN);
        }
        inner.stop.cancel();
        inner.tasks.close();
        inner.tasks.wait().await;
        info!(cut, "the server has ended");
        cut
    }
}

impl Inner {
    fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Waits until the server is draining.
    async fn leaving(&self) {
        // The sender is part of the server, so it cannot be gone.
        let _ = self.draining.subscribe().wait_for(|&draining| draining).await;
    }
}

impl Host for Inner {
    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    fn threads(&self) -> &Threads {
        &self.threads
    }

    /// A server that drains still takes agents in, to tell them so.
    async fn closing(&self) {
        self.stop.cancelled().await;
    }

    async fn serve(self: Arc<Self>, connection: Arc<dyn Connection>) {
        serve::run(self, connection).await;
    }
}

#[async_trait]
impl Opener for Server {
    async fn open(&self, request: OpenRequest) -> Result<Opened, OpenFailure> {
        self.inner.open(request, OnBehalf::Client).await
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("id", &self.id)
            .field("agents", &self.registry.view().len())
            .field("streams", &self.streams.len())
            .field("draining", &self.is_draining())
            .finish_non_exhaustive()
    }
}
