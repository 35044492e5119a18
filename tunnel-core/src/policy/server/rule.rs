//! Rules about streams.

use tunnel_proto::{AgentId, Labels};

use super::{Access, config::RuleConfig};
use crate::policy::{
    pattern::Pattern,
    rules::{Effect, InvalidPolicy, hosts, patterns},
    target::TargetRule,
};

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) effect: Effect,
    clients: Vec<Pattern>,
    agents: Vec<Pattern>,
    labels: Labels,
    targets: TargetRule,
    may_select: bool,
}

impl Rule {
    pub(super) fn new(name: String, config: RuleConfig) -> Result<Self, InvalidPolicy> {
        let wrong = |problem: String| InvalidPolicy::Rule {
            rule: name.clone(),
            problem,
        };
        if config.clients.is_empty() {
            return Err(wrong(
                "`clients` is empty, so the rule matches nobody; `*` is everyone".into(),
            ));
        }
        let mut labels = Labels::default();
        for (label, value) in &config.labels {
            if !labels.insert(label, value) {
                return Err(wrong(format!("{label}={value} is not a label")));
            }
        }
        let targets = TargetRule {
            hosts: hosts(&config.hosts).map_err(wrong)?,
            ports: config.ports,
            unix: patterns("unix", &config.unix).map_err(wrong)?,
        };
        Ok(Self {
            effect: config.effect,
            clients: patterns("clients", &config.clients).map_err(wrong)?,
            agents: patterns("agents", &config.agents).map_err(wrong)?,
            labels,
            targets,
            may_select: config.may_select,
            name,
        })
    }

    /// Whether the rule matches all but the agent.
    pub(super) fn concerns(&self, access: &Access<'_>, names: &[String]) -> bool {
        let selection = !access.selects || self.may_select || self.effect == Effect::Deny;
        let client = self.clients.iter().any(|pattern| {
            if names.is_empty() {
                matches!(pattern.as_str(), "*" | "anonymous")
            } else {
                names.iter().any(|name| pattern.matches(name))
            }
        });
        selection && client && self.targets.matches(access.target)
    }

    pub(super) fn means_every_agent(&self) -> bool {
        self.agents.is_empty() && self.labels.is_empty()
    }

    pub(super) fn means(&self, agent: &AgentId, labels: &Labels) -> bool {
        (self.agents.is_empty() || self.agents.iter().any(|pattern| pattern.matches(agent.as_str())))
            && labels.contains_all(&self.labels)
    }
}
