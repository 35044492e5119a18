//! Which agents are connected.
//!
//! Writers take turns; readers take an immutable [`View`] and hold no lock. A view costs one pointer for each session
//! to replace, so ten thousand agents that connect at once are no burden.

mod live;
mod view;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tunnel_proto::{AgentId, Claim, CloseCode, Identity, Rejection};

pub(crate) use self::live::InFlight;
pub use self::{
    live::{LiveConnection, Load},
    view::{Session, View},
};
use crate::carrier::Connection;

/// How many sessions there may be, and how large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_agents: usize,
    pub(crate) max_connections_per_agent: usize,
    /// When an agent that was turned away may find things changed.
    pub(crate) not_before: Duration,
}

/// The sessions of one server.
#[derive(Debug)]
pub(crate) struct Registry {
    view: ArcSwap<View>,
    /// Held while a new view replaces the old one.
    writing: Mutex<()>,
    limits: Limits,
    next_id: AtomicU64,
}

/// A connection that joined a session.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) live: Arc<LiveConnection>,
    /// The connections of an older generation, which are out of the registry and wait to be closed.
    pub(crate) replaced: Vec<Arc<LiveConnection>>,
}

impl Registry {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            view: ArcSwap::default(),
            writing: Mutex::new(()),
            limits,
            next_id: AtomicU64::new(1),
        }
    }

    /// The sessions of this moment.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Whether a connection with this identity and claim could join now. Time may pass between the welcome and
    /// [`join`](Self::join), which asks again.
    pub(crate) fn check(&self, identity: &Identity, claim: &Claim) -> Result<(), Rejection> {
        self.judge(&self.view.load(), identity, claim)
    }

    /// Adds an agent's connection: to its session, to a new one, or to one that takes over from an older generation.
    pub(crate) fn join(&self, connection: Arc<dyn Connection>) -> Result<Joined, Rejection> {
        let peer = connection.peer();
        let Some(claim) = peer.claim() else {
            return Err(Rejection::new(CloseCode::INTERNAL, "the peer is not an agent"));
        };
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.view.load();
        self.judge(&view, &peer.identity, claim)?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let live = Arc::new(LiveConnection::new(id, Arc::clone(&connection)));
        let (session, replaced) = match view.get(&claim.agent) {
            Some(session) if session.generation() == claim.generation => (session.with(&live), Vec::new()),
            Some(session) => (Session::new(peer, claim, &live), session.connections().to_vec()),
            None => (Session::new(peer, claim, &live), Vec::new()),
        };
        self.view.store(Arc::new(view.with(session)));
        Ok(Joined { live, replaced })
    }

    /// Takes a connection out that has ended, and its session if it was the last.
    pub(crate) fn leave(&self, agent: &AgentId, live: &LiveConnection) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.view.load();
        let Some(session) = view.get(agent) else { return };
        // After a takeover the session under this id is another one.
        if !session.connections().iter().any(|other| other.id() == live.id()) {
            return;
        }
        let next = match session.without(live) {
            Some(session) => view.with(session),
            None => view.without(agent),
        };
        self.view.store(Arc::new(next));
    }

    fn judge(&self, view: &View, identity: &Identity, claim: &Claim) -> Result<(), Rejection> {
        let Limits {
            max_agents,
            max_connections_per_agent,
            not_before,
        } = self.limits;
        let reject = |code, text: String| Rejection {
            not_before: Some(not_before),
            ..Rejection::new(code, text)
        };
        let agent = &claim.agent;
        match view.get(agent) {
            None if view.len() >= max_agents => Err(reject(
                CloseCode::OVERLOADED,
                format!(
                    "this server has {max_agents} agents, which is its limit; try another server or come back later"
                ),
            )),
            None => Ok(()),
            Some(session) if session.principal() != identity.principal().as_deref() => Err(reject(
                CloseCode::CONFLICT,
                format!("another identity is connected as agent {agent}; give this agent an id of its own"),
            )),
            Some(session) if claim.generation < session.generation() => Err(reject(
                CloseCode::REPLACED,
                format!(
                    "a newer generation of agent {agent} is connected; stop one of the two or give them different ids"
                ),
            )),
            Some(session)
                if claim.generation == session.generation()
                    && session.connections().len() >= max_connections_per_agent =>
            {
                Err(reject(
                    CloseCode::OVERLOADED,
                    format!(
                        "agent {agent} has {max_connections_per_agent} connections, which is the limit; let it make fewer"
                    ),
                ))
            }
            Some(_) => Ok(()),
        }
    }
}
