//! Listeners: connections that others make with the agent, to have streams opened here as by a server.

use std::{
    error::Error,
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use tokio_util::task::TaskTracker;
use tracing::info;
use tunnel_proto::{CloseCode, Identity, Rejection, Welcome};

use super::{Inner, serve, status::ListenerStatus};
use crate::{
    accept::{self, Gate, Host},
    carrier::{Admission, Admitted, Arrival, Connection, Listener},
    policy::Pattern,
    threads::Threads,
};

/// Who may connect to a listener of an agent.
///
/// What the listener's own security demands, such as a certificate of a certain CA, comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Callers {
    /// Whoever the listener's security lets in.
    #[default]
    Anyone,
    /// Those of whose [names](Identity::names) at least one matches a pattern, such as `spiffe://example/gateway` or
    /// `dns:*.gw.example`.
    These(Vec<Pattern>),
}

impl Callers {
    /// Whether this identity may connect.
    #[must_use]
    pub fn include(&self, identity: &Identity) -> bool {
        match self {
            Self::Anyone => true,
            Self::These(patterns) => identity
                .names()
                .any(|name| patterns.iter().any(|pattern| pattern.matches(&name))),
        }
    }
}

/// One listener of an agent.
pub(super) struct Port {
    carrier: &'static str,
    addr: SocketAddr,
    callers: Callers,
    /// How many connections that came by it are served.
    served: AtomicUsize,
}

impl Port {
    pub(super) fn status(&self) -> ListenerStatus {
        ListenerStatus {
            carrier: self.carrier,
            addr: self.addr,
            connections: self.served.load(Ordering::Relaxed),
        }
    }
}

/// Takes connections in by a listener, in a task of its own, until the agent drains or the listener ends.
pub(super) fn start(agent: &Arc<Inner>, listener: Box<dyn Listener>, callers: Callers) -> io::Result<SocketAddr> {
    let (carrier, addr) = (listener.name(), listener.local_addr()?);
    info!(carrier, %addr, "listening for connections that open streams here");
    let port = Arc::new(Port {
        carrier,
        addr,
        callers,
        served: AtomicUsize::new(0),
    });
    agent.ports().push(Arc::clone(&port));
    let reception = Reception {
        agent: Arc::clone(agent),
        port,
    };
    agent.tasks.spawn(accept::run(Arc::new(reception), listener));
    Ok(addr)
}

/// The agent at one of its listeners.
struct Reception {
    agent: Arc<Inner>,
    port: Arc<Port>,
}

#[async_trait]
impl Admission for Reception {
    async fn admit(&self, arrival: &Arrival) -> Result<Admitted, Rejection> {
        let identity = arrival.identity.clone();
        if !self.port.callers.include(&identity) {
            let text = format!("{identity} is not among those who may connect to this agent");
            return Err(Rejection::new(CloseCode::FORBIDDEN, text));
        }
        let name = self.agent.claim.agent.as_str().parse();
        let name = name.map_err(|_| Rejection::new(CloseCode::INTERNAL, "this agent's name cannot be sent"))?;
        Ok(Admitted {
            identity,
            welcome: Welcome::new(name),
        })
    }
}

impl Host for Reception {
    fn gate(&self) -> &Gate {
        &self.agent.gate
    }

    fn tasks(&self) -> &TaskTracker {
        &self.agent.tasks
    }

    fn threads(&self) -> &Threads {
        &self.agent.threads
    }

    async fn closing(&self) {
        self.agent.closing().await;
    }

    async fn serve(self: Arc<Self>, connection: Arc<dyn Connection>) {
        let agent = &self.agent;
        let peer = connection.peer();
        let (carrier, remote) = (peer.carrier, peer.remote_addr);
        let Ok(_place) = agent.accepted.try_acquire() else {
            let limit = agent.config.max_accepted;
            info!(carrier, %remote, limit, "connection closed: there are too many");
            let text = format!("this agent has {limit} connections by its listeners, which is its limit");
            return connection.close(CloseCode::OVERLOADED, &text);
        };
        info!(carrier, %remote, identity = %peer.identity, "connection taken in");
        let served = Served::new(&self.port);
        let cause = serve::run(Arc::clone(agent), Arc::clone(&connection), served, None).await;
        info!(carrier, %remote, cause = &cause as &dyn Error, "connection ended");
    }
}

/// Counts a connection as served until it is dropped.
struct Served(Arc<Port>);

impl Served {
    fn new(port: &Arc<Port>) -> Self {
        port.served.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(port))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.served.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Reception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reception")
            .field("carrier", &self.port.carrier)
            .field("addr", &self.port.addr)
            .finish_non_exhaustive()
    }
}
