//! Through which agent a stream goes.
//!
//! Strategies are asked in order until one feels responsible; it names the candidates, and the fitter of two drawn
//! among them is taken. All of it is a pure function of the request, the view and the random source.

mod agent_id;
mod choice;
mod default;
mod labels;

use std::{fmt, sync::Arc};

use tokio::time::Instant;
use tunnel_proto::{AgentId, Labels, Refusal, RefusalKind, Target};

pub use self::{agent_id::ByAgentId, choice::choose, default::ByDefault, labels::ByLabels};
use crate::{
    opener::Selector,
    registry::{LiveConnection, Load, Session, View},
};

/// What a strategy may know of a request.
#[derive(Clone, Copy, Debug)]
pub struct RouteRequest<'a> {
    /// What the client asked for.
    pub selector: &'a Selector,
    /// Where the stream should end.
    pub target: &'a Target,
}

/// One way to find the agents that a stream may go through.
pub trait Strategy: fmt::Debug + Send + Sync {
    /// A short name for logs and configuration.
    fn name(&self) -> &'static str;

    /// The candidates, or `None` if the request is not this strategy's, so that the next one is asked. An empty set
    /// of candidates ends the search.
    fn candidates<'v>(&self, request: &RouteRequest<'_>, view: &'v View) -> Option<Candidates<'v>>;
}

/// The strategies that a server has unless told otherwise, in order.
#[must_use]
pub fn strategies() -> Vec<Arc<dyn Strategy>> {
    vec![Arc::new(ByAgentId), Arc::new(ByLabels), Arc::new(ByDefault)]
}

/// The agents that a stream may go through.
#[derive(Clone, Debug)]
pub enum Candidates<'v> {
    /// All of a view.
    All(&'v [Arc<Session>]),
    /// Some of it.
    These(Vec<&'v Arc<Session>>),
}

impl<'v> Candidates<'v> {
    /// Their number.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::All(sessions) => sessions.len(),
            Self::These(sessions) => sessions.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one at this index.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'v Arc<Session>> {
        match self {
            Self::All(sessions) => sessions.get(index),
            Self::These(sessions) => sessions.get(index).copied(),
        }
    }
}

/// Why there is no agent for a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoute {
    #[error("no agent is connected to this server")]
    NoAgent,
    #[error("agent {0} is not connected to this server")]
    UnknownAgent(AgentId),
    #[error("none of the {connected} connected agents has the labels {}", written(.labels))]
    NoneHasLabels { labels: Labels, connected: usize },
    #[error("none of the {connected} connected agents can take the stream")]
    NoneFits { connected: usize },
}

fn written(labels: &Labels) -> String {
    let mut all: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    all.sort();
    all.join(",")
}

impl From<NoRoute> for Refusal {
    fn from(reason: NoRoute) -> Self {
        let kind = match reason {
            NoRoute::UnknownAgent(_) => RefusalKind::DestinationNotFound,
            NoRoute::NoAgent | NoRoute::NoneHasLabels { .. } | NoRoute::NoneFits { .. } => {
                RefusalKind::DestinationUnavailable
            }
        };
        Self::new(kind, reason.to_string())
    }
}

/// The candidates of the first strategy that feels responsible.
pub(crate) fn candidates<'v>(
    strategies: &[Arc<dyn Strategy>],
    request: &RouteRequest<'_>,
    view: &'v View,
) -> Result<Candidates<'v>, NoRoute> {
    let found = strategies
        .iter()
        .find_map(|strategy| strategy.candidates(request, view))
        .filter(|candidates| !candidates.is_empty());
    found.ok_or_else(|| match request.selector {
        Selector::Agent(agent) => NoRoute::UnknownAgent(agent.clone()),
        _ if view.is_empty() => NoRoute::NoAgent,
        Selector::Labels(labels) => NoRoute::NoneHasLabels {
            labels: labels.clone(),
            connected: view.len(),
        },
        Selector::Any => NoRoute::NoneFits { connected: view.len() },
    })
}

/// The fittest connection of a session among those that `usable` lets pass.
pub(crate) fn connection(
    session: &Session,
    now: Instant,
    usable: impl Fn(&LiveConnection) -> bool,
) -> Option<&Arc<LiveConnection>> {
    session
        .connections()
        .iter()
        .filter(|live| usable(live))
        .min_by_key(|live| (live.load(now), fastrand::u32(..)))
}
