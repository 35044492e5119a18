//! Rules about who may be which agent.

use tunnel_proto::AgentId;

use super::config::ClaimConfig;
use crate::policy::{
    pattern::Pattern,
    rules::{InvalidPolicy, pattern, patterns},
};

#[derive(Clone, Debug)]
pub(super) struct ClaimRule {
    identities: Vec<Pattern>,
    agents: Vec<ClaimedId>,
}

/// A pattern over agent ids.
#[derive(Clone, Debug)]
enum ClaimedId {
    Pattern(Pattern),
    /// The identity's own name between two texts.
    Named {
        before: String,
        after: String,
    },
}

impl ClaimRule {
    pub(super) fn new(name: String, config: ClaimConfig) -> Result<Self, InvalidPolicy> {
        let wrong = |problem: String| InvalidPolicy::Rule {
            rule: name.clone(),
            problem,
        };
        if config.identities.is_empty() || config.agents.is_empty() {
            return Err(wrong("`identities` and `agents` must both name something".into()));
        }
        let agents = config.agents.iter().map(|text| match text.split_once("{name}") {
            Some(_) if text.contains('*') => Err(wrong("`agents`: `{name}` and `*` cannot stand in one text".into())),
            Some((before, after)) => Ok(ClaimedId::Named {
                before: before.to_owned(),
                after: after.to_owned(),
            }),
            None => pattern("agents", text).map(ClaimedId::Pattern).map_err(wrong),
        });
        Ok(Self {
            agents: agents.collect::<Result<_, _>>()?,
            identities: patterns("identities", &config.identities).map_err(wrong)?,
        })
    }

    pub(super) fn allows(&self, name: &str, agent: &AgentId) -> bool {
        self.identities.iter().any(|pattern| pattern.matches(name))
            && self.agents.iter().any(|claimed| claimed.matches(name, agent))
    }
}

impl ClaimedId {
    fn matches(&self, name: &str, agent: &AgentId) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.matches(agent.as_str()),
            Self::Named { before, after } => agent
                .as_str()
                .strip_prefix(before.as_str())
                .and_then(|rest| rest.strip_suffix(after.as_str()))
                .is_some_and(|middle| middle == bare(name)),
        }
    }
}

/// An identity's name without what says its kind: behind the last slash of a SPIFFE ID, else behind the first colon.
fn bare(name: &str) -> &str {
    let split = if name.starts_with("spiffe://") {
        name.rsplit_once('/')
    } else {
        name.split_once(':')
    };
    split.map_or(name, |(_, bare)| bare)
}
