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
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;
use tunnel_proto::{AgentId, Claim, CloseCode, Identity, Rejection};

pub(crate) use self::live::InFlight;
pub use self::{
    live::{LiveConnection, Load},
    view::{Profile, Session, View},
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
    /// Told after every change of the view.
    changed: watch::Sender<()>,
    limits: Limits,
    /// The number of sessions; set while writers take turns, so that the last one has the last word.
    sessions: Gauge,
    next_id: AtomicU64,
}

/// Who made a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An agent, which dialled it and has claimed to be somebody.
    Agent,
    /// This server, which was told whom it dials and has verified that.
    Upstream,
}

/// The name is that of an upstream already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are two upstreams named {0}")]
pub struct DuplicateUpstream(pub AgentId);

/// A connection that joined a session.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) live: Arc<LiveConnection>,
    /// The connections of an older generation, which are out of the registry and wait to be closed.
    pub(crate) replaced: Vec<Arc<LiveConnection>>,
}

impl Registry {
    /// Makes an empty one that shows the number of its sessions in a gauge.
    pub(crate) fn new(limits: Limits, sessions: Gauge) -> Self {
        Self {
            view: ArcSwap::default(),
            writing: Mutex::new(()),
            changed: watch::Sender::new(()),
            limits,
            sessions,
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
        self.judge(&self.view.load(), identity, claim, Origin::Agent)
    }

    /// Keeps a name for an upstream, so that no agent can have it from now on. Gives the connections of an agent that
    /// had it, which are out of the registry and wait to be closed.
    pub(crate) fn reserve(&self, upstream: &AgentId) -> Result<Vec<Arc<LiveConnection>>, DuplicateUpstream> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.view.load();
        if view.is_upstream(upstream) {
            return Err(DuplicateUpstream(upstream.clone()));
        }
        let displaced = view.get(upstream).map(|session| session.connections().to_vec());
        self.replace(view.with_upstream(upstream));
        Ok(displaced.unwrap_or_default())
    }

    /// Adds a connection: to its agent's session, to a new one, or to one that takes over from an older generation.
    pub(crate) fn join(&self, connection: Arc<dyn Connection>, origin: Origin) -> Result<Joined, Rejection> {
        let peer = connection.peer();
        let Some(claim) = peer.claim() else {
            return Err(Rejection::new(CloseCode::INTERNAL, "the peer is not an agent"));
        };
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.view.load();
        self.judge(&view, &peer.identity, claim, origin)?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let live = Arc::new(LiveConnection::new(id, claim.agent.clone(), Arc::clone(&connection)));
        let (session, replaced) = match view.get(&claim.agent) {
            Some(session) if session.generation() == claim.generation => (session.with(&live), Vec::new()),
            Some(session) => (Session::new(peer, claim, &live), session.connections().to_vec()),
            None => (Session::new(peer, claim, &live), Vec::new()),
        };
        self.replace(view.with(session));
        Ok(Joined { live, replaced })
    }

    /// Takes a connection out that has ended, and its session if it was the last.
    pub(crate) fn leave(&self, agent: &AgentId, live: &LiveConnection) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.view.load();
        let Some(session) = view.get(agent) else { return };
        // After a takeover the session under this id is another one, which stays as it is.
        let next = match session.without(live) {
            Some(session) => view.with(session),
            None => view.without(agent),
        };
        self.replace(next);
    }

    /// Waits until an agent is connected; cancel safe.
    pub(crate) async fn wait_for(&self, agent: &AgentId) -> Arc<Session> {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(session) = self.view().get(agent) {
                return Arc::clone(session);
            }
            // The sender is here, so it cannot be gone.
            let _ = changed.changed().await;
        }
    }

    /// Waits until no agent is connected; cancel safe.
    pub(crate) async fn wait_until_empty(&self) {
        let mut changed = self.changed.subscribe();
        while !self.view().is_empty() {
            // The sender is here, so it cannot be gone.
            let _ = changed.changed().await;
        }
    }

    /// Called by whoever holds the writers' lock.
    fn replace(&self, view: View) {
        self.sessions.set(i64::try_from(view.len()).unwrap_or(i64::MAX));
        self.view.store(Arc::new(view));
        self.changed.send_replace(());
    }

    fn judge(&self, view: &View, identity: &Identity, claim: &Claim, origin: Origin) -> Result<(), Rejection> {
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
        let is_agent = origin == Origin::Agent;
        match view.get(agent) {
            // However long the upstream has been away: whoever took its place would get its streams.
            _ if is_agent && view.is_upstream(agent) => Err(reject(
                CloseCode::CONFLICT,
                format!("this server dials {agent} itself, so no agent can have that id; give this agent another one"),
            )),
            None if is_agent && view.len() >= max_agents => Err(reject(
                CloseCode::OVERLOADED,
                format!(
                    "this server has {max_agents} agents, which is its limit; try another server or come back later"
                ),
            )),
            None => Ok(()),
            Some(session) if is_agent && !session.is_of(identity) => Err(reject(
                CloseCode::CONFLICT,
                format!(
                    "another identity is connected as agent {agent}; give this agent an id of its own, or have it show \
                     the same certificate or token wherever it connects"
                ),
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use async_trait::async_trait;
    use bytes::Bytes;
    use proptest::{collection::vec, prelude::*};
    use tunnel_proto::{Generation, StreamHead};

    use super::*;
    use crate::{
        carrier::{Capabilities, ConnectionStats, Inbound, Peer, PeerRole},
        error::{ConnectionError, OpenError},
        stream::Duplex,
    };

    /// Nothing but a peer.
    #[derive(Debug)]
    struct Fake(Peer);

    #[async_trait]
    impl Connection for Fake {
        async fn open_with(&self, _: StreamHead, _: &mut Bytes) -> Result<Duplex, OpenError> {
            Err(OpenError::Draining)
        }
        async fn accept(&self) -> Result<Box<dyn Inbound>, ConnectionError> {
            std::future::pending().await
        }
        async fn draining(&self) {}
        async fn closed(&self) -> ConnectionError {
            std::future::pending().await
        }
        fn close(&self, _: CloseCode, _: &str) {}
        fn drain(&self) {}
        fn peer(&self) -> &Peer {
            &self.0
        }
        fn capabilities(&self) -> Capabilities {
            Capabilities::NATIVE
        }
        fn stats(&self) -> ConnectionStats {
            ConnectionStats::default()
        }
    }

    fn fake(agent: &str, generation: u64, subject: &str) -> Arc<dyn Connection> {
        Arc::new(Fake(Peer {
            carrier: "fake",
            identity: Identity::from_subject(subject),
            role: PeerRole::Agent(Box::new(Claim::new(agent.parse().unwrap(), Generation(generation)))),
            remote_addr: (Ipv4Addr::LOCALHOST, 1).into(),
        }))
    }

    fn registry() -> Registry {
        let limits = Limits {
            max_agents: 3,
            max_connections_per_agent: 2,
            not_before: Duration::from_secs(15),
        };
        Registry::new(limits, Gauge::default())
    }

    fn code(joined: Result<Joined, Rejection>) -> CloseCode {
        joined.unwrap_err().code
    }

    #[test]
    fn joining_asks_again_what_was_checked_before_the_welcome() {
        let registry = registry();
        let late = fake("a", 1, "eve");
        assert!(
            registry
                .check(&late.peer().identity, late.peer().claim().unwrap())
                .is_ok()
        );
        registry.join(fake("a", 1, "alice"), Origin::Agent).unwrap();
        assert_eq!(code(registry.join(late, Origin::Agent)), CloseCode::CONFLICT);
    }

    #[test]
    fn a_certificate_beside_the_token_of_a_session_is_welcome_but_no_token_replaces_a_certificate() {
        let with_certificate = |generation, subject: Option<&str>| -> Arc<dyn Connection> {
            let mut peer = fake("a", generation, "site-a").peer().clone();
            peer.identity.dns = vec!["node-7".to_owned()];
            peer.identity.subject = subject.map(str::to_owned);
            Arc::new(Fake(peer))
        };
        let registry = registry();
        registry.join(fake("a", 1, "site-a"), Origin::Agent).unwrap();
        for other in [None, Some("site-b")] {
            assert_eq!(
                code(registry.join(with_certificate(1, other), Origin::Agent)),
                CloseCode::CONFLICT
            );
        }
        registry
            .join(with_certificate(1, Some("site-a")), Origin::Agent)
            .unwrap();
        assert_eq!(registry.view().sessions()[0].principal(), Some("token:site-a"));
        let taken_over = registry
            .join(with_certificate(2, Some("site-a")), Origin::Agent)
            .unwrap();
        assert_eq!(taken_over.replaced.len(), 2);
        assert_eq!(registry.view().sessions()[0].principal(), Some("dns:node-7"));
        assert_eq!(
            code(registry.join(fake("a", 3, "site-a"), Origin::Agent)),
            CloseCode::CONFLICT
        );
        registry.join(with_certificate(2, None), Origin::Agent).unwrap();
    }

    #[test]
    fn a_replaced_connection_that_leaves_does_not_take_its_successor_along() {
        let registry = registry();
        let old = registry.join(fake("a", 1, "alice"), Origin::Agent).unwrap().live;
        let new = registry.join(fake("a", 2, "alice"), Origin::Agent).unwrap();
        assert_eq!(
            new.replaced.iter().map(|live| live.id()).collect::<Vec<_>>(),
            [old.id()]
        );
        registry.leave(&"a".parse().unwrap(), &old);
        assert_eq!(registry.view().len(), 1);
        registry.leave(&"a".parse().unwrap(), &new.live);
        assert!(registry.view().is_empty());
    }

    #[test]
    fn a_view_does_not_change() {
        let registry = registry();
        let live = registry.join(fake("a", 1, "alice"), Origin::Agent).unwrap().live;
        let view = registry.view();
        registry.leave(&"a".parse().unwrap(), &live);
        registry.join(fake("b", 1, "alice"), Origin::Agent).unwrap();
        let agents: Vec<_> = view.sessions().iter().map(|session| session.agent().as_str()).collect();
        assert_eq!(agents, ["a"]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join(usize, u64, usize),
        Leave(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..5usize, 0..3u64, 0..2usize).prop_map(|(agent, generation, subject)| Step::Join(agent, generation, subject)),
            2 => any::<prop::sample::Index>().prop_map(Step::Leave),
        ]
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_the_sessions_are_sound(steps in vec(step(), 0..60)) {
            let registry = registry();
            let mut joined: Vec<(AgentId, Arc<LiveConnection>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Join(agent, generation, subject) => {
                        let connection = fake(["a", "b", "c", "d", "e"][agent], generation, ["x", "y"][subject]);
                        if let Ok(Joined { live, replaced }) = registry.join(connection, Origin::Agent) {
                            joined.retain(|(_, other)| !replaced.iter().any(|old| old.id() == other.id()));
                            let claim = live.connection().peer().claim().unwrap();
                            joined.push((claim.agent.clone(), live));
                        }
                    }
                    Step::Leave(_) if joined.is_empty() => {}
                    Step::Leave(which) => {
                        let (agent, live) = joined.swap_remove(which.index(joined.len()));
                        registry.leave(&agent, &live);
                    }
                }
                let view = registry.view();
                prop_assert_eq!(registry.sessions.get(), view.len() as i64);
                prop_assert!(view.len() <= 3);
                prop_assert!(view.sessions().is_sorted_by(|a, b| a.agent() < b.agent()));
                let mut held = 0;
                for session in view.sessions() {
                    held += session.connections().len();
                    prop_assert!((1..=2).contains(&session.connections().len()));
                    for live in session.connections() {
                        let peer = live.connection().peer();
                        prop_assert_eq!(peer.identity.principal(), session.principal().map(str::to_owned));
                        prop_assert_eq!(peer.claim().map(|claim| claim.generation), Some(session.generation()));
                    }
                }
                prop_assert_eq!(held, joined.len());
            }
        }
    }
}
