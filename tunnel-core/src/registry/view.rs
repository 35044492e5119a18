//! What the registry looked like at one moment.

use std::{collections::BTreeSet, ops::Deref, sync::Arc};

use tokio::time::Instant;
use tunnel_proto::{AgentId, Claim, Generation, Identity, Labels, Text};

use super::live::{LiveConnection, Load};
use crate::carrier::Peer;

/// The sessions of a server at one moment. The set never changes; the figures of its connections are live.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Sorted by agent id, each once.
    sessions: Vec<Arc<Session>>,
    /// The names that belong to upstreams, whether they are connected or not.
    upstreams: Arc<BTreeSet<AgentId>>,
}

/// Everything that one life of an agent has at a server. It can be used as the [`Profile`] that it is about.
#[derive(Debug)]
pub struct Session {
    profile: Arc<Profile>,
    connections: Vec<Arc<LiveConnection>>,
}

/// What is known of one life of an agent.
#[derive(Debug)]
pub struct Profile {
    agent: AgentId,
    generation: Generation,
    identity: Identity,
    principal: Option<String>,
    labels: Labels,
    software: Text,
}

impl View {
    /// The sessions, sorted by agent id.
    #[must_use]
    pub fn sessions(&self) -> &[Arc<Session>] {
        &self.sessions
    }

    /// The session of an agent.
    #[must_use]
    pub fn get(&self, agent: &AgentId) -> Option<&Arc<Session>> {
        self.find(agent).ok().map(|at| &self.sessions[at])
    }

    /// The number of sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no agent is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether the name is that of an upstream, which this server dials itself, connected or not.
    #[must_use]
    pub fn is_upstream(&self, agent: &AgentId) -> bool {
        self.upstreams.contains(agent)
    }

    fn find(&self, agent: &AgentId) -> Result<usize, usize> {
        self.sessions.binary_search_by(|session| session.agent.cmp(agent))
    }

    /// This view with a session added or replaced.
    pub(super) fn with(&self, session: Session) -> Self {
        let mut sessions = self.sessions.clone();
        match self.find(&session.agent) {
            Ok(at) => sessions[at] = Arc::new(session),
            Err(at) => sessions.insert(at, Arc::new(session)),
        }
        let upstreams = Arc::clone(&self.upstreams);
        Self { sessions, upstreams }
    }

    /// This view without an agent's session.
    pub(super) fn without(&self, agent: &AgentId) -> Self {
        let mut sessions = self.sessions.clone();
        if let Ok(at) = self.find(agent) {
            sessions.remove(at);
        }
        let upstreams = Arc::clone(&self.upstreams);
        Self { sessions, upstreams }
    }

    /// This view with a name that is an upstream's from now on, and without an agent's session of that name.
    pub(super) fn with_upstream(&self, name: &AgentId) -> Self {
        let mut next = self.without(name);
        Arc::make_mut(&mut next.upstreams).insert(name.clone());
        next
    }
}

impl Session {
    pub(super) fn new(peer: &Peer, claim: &Claim, first: &Arc<LiveConnection>) -> Self {
        Self {
            profile: Arc::new(Profile::new(peer, claim)),
            connections: vec![Arc::clone(first)],
        }
    }

    /// This session and one more connection.
    pub(super) fn with(&self, live: &Arc<LiveConnection>) -> Self {
        let mut connections = self.connections.clone();
        connections.push(Arc::clone(live));
        Self {
            profile: Arc::clone(&self.profile),
            connections,
        }
    }

    /// This session less a connection; none if that was the last.
    pub(super) fn without(&self, live: &LiveConnection) -> Option<Self> {
        let mut connections = self.connections.clone();
        connections.retain(|other| other.id() != live.id());
        (!connections.is_empty()).then(|| Self {
            profile: Arc::clone(&self.profile),
            connections,
        })
    }

    /// What is known of the agent, without its connections.
    #[must_use]
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// The session's connections, oldest first; never empty.
    #[must_use]
    pub fn connections(&self) -> &[Arc<LiveConnection>] {
        &self.connections
    }

    /// How fit the agent is to carry a stream: as its fittest connection, with the streams of all of them.
    #[must_use]
    pub fn load(&self, now: Instant) -> Option<Load> {
        let loads = self.connections.iter().map(|live| live.load(now));
        let streams = loads.clone().map(|load| load.streams).sum();
        loads.min().map(|best| Load { streams, ..best })
    }
}

impl Deref for Session {
    type Target = Profile;

    fn deref(&self) -> &Profile {
        &self.profile
    }
}

impl Profile {
    fn new(peer: &Peer, claim: &Claim) -> Self {
        Self {
            agent: claim.agent.clone(),
            generation: claim.generation,
            identity: peer.identity.clone(),
            principal: peer.identity.principal(),
            labels: claim.labels.clone(),
            software: claim.software.clone(),
        }
    }

    /// The agent's name.
    #[must_use]
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// Which life of the agent this is.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// What the agent has proven to be.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The name of the identity that owns the session: [`Identity::principal`].
    #[must_use]
    pub fn principal(&self) -> Option<&str> {
        self.principal.as_deref()
    }

    /// Whether this identity may join the session or take it over: one with the same principal, and where that is a
    /// token, one that shows a certificate beside the same token, as an agent does that reaches this server behind a
    /// proxy that ends TLS as well as without one. It could as well have kept the certificate to itself.
    ///
    /// The reverse is not enough: the owner of a certificate's session need not be who else holds a token of its.
    #[must_use]
    pub fn is_of(&self, identity: &Identity) -> bool {
        let Some(principal) = self.principal() else {
            return identity.principal().is_none();
        };
        let token = identity.subject.as_deref();
        identity.principal().as_deref() == Some(principal)
            || principal.strip_prefix("token:").is_some_and(|name| token == Some(name))
    }

    /// What the agent says of itself.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The version of the agent's software.
    #[must_use]
    pub fn software(&self) -> &Text {
        &self.software
    }
}
