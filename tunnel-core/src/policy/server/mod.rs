//! What a server allows: which client may reach what through whom, and which identity may be which agent.

mod claim;
mod config;
mod rule;
#[cfg(test)]
mod tests;

use tunnel_proto::{AgentId, Identity, Labels, Target};

use self::{claim::ClaimRule, rule::Rule};
use super::rules::{Effect, InvalidPolicy, numbered};

pub use self::config::{ClaimConfig, PolicyConfig, RuleConfig};

/// A server's policy. It is immutable; a server takes another one at run time.
///
/// Rules are asked in order, and the first that matches decides. What no rule matches is denied, unless the policy's
/// default is to allow.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    claims: Vec<ClaimRule>,
    rules: Vec<Rule>,
    default: Effect,
}

/// A client's wish, as a policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// What the client has proven to be.
    pub client: &'a Identity,
    /// Where it wants to go.
    pub target: &'a Target,
    /// Whether it chooses the agent.
    pub selects: bool,
}

/// A policy's no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", match .rule { Some(rule) => format!("{rule} forbids it"), None => "no rule allows it".to_owned() })]
pub struct Denied {
    /// The rule that decided, if one did.
    pub rule: Option<String>,
}

/// The rules of a policy that concern one wish, whatever the agent.
#[derive(Clone, Debug)]
pub struct Scope<'p> {
    rules: Vec<&'p Rule>,
    default: Effect,
}

impl Policy {
    /// Everybody may reach everything through every agent, and choose it.
    #[must_use]
    pub fn allow_all() -> Self {
        Self {
            default: Effect::Allow,
            ..Self::default()
        }
    }

    /// No client may reach anything. This is the default.
    #[must_use]
    pub fn deny_all() -> Self {
        Self::default()
    }

    /// Makes a policy of its configuration.
    pub fn new(config: PolicyConfig) -> Result<Self, InvalidPolicy> {
        if config.rules.is_empty() && config.default.is_none() {
            return Err(InvalidPolicy::NoRules);
        }
        Ok(Self {
            claims: numbered(config.claims, ClaimRule::new)?,
            rules: numbered(config.rules, Rule::new)?,
            default: config.default.unwrap_or_default(),
        })
    }

    /// Whether an identity may connect as this agent.
    pub fn check_claim(&self, identity: &Identity, agent: &AgentId) -> Result<(), Denied> {
        let allowed = self.claims.is_empty()
            || identity
                .names()
                .any(|name| self.claims.iter().any(|rule| rule.allows(&name, agent)));
        if allowed { Ok(()) } else { Err(Denied { rule: None }) }
    }

    /// Whether a wish may be fulfilled through this agent.
    pub fn check(&self, access: &Access<'_>, agent: &AgentId, labels: &Labels) -> Result<(), Denied> {
        self.scope(access).check(agent, labels)
    }

    /// The rules that concern a wish, so that many agents can be checked against them.
    #[must_use]
    pub fn scope(&self, access: &Access<'_>) -> Scope<'_> {
        let names: Vec<_> = access.client.names().collect();
        let mut rules = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.concerns(access, &names)) {
            rules.push(rule);
            if rule.means_every_agent() {
                break;
            }
        }
        Scope {
            rules,
            default: self.default,
        }
    }
}

impl Scope<'_> {
    /// Whether the wish may be fulfilled through this agent.
    pub fn check(&self, agent: &AgentId, labels: &Labels) -> Result<(), Denied> {
        let decisive = self.rules.iter().find(|rule| rule.means(agent, labels));
        match decisive {
            Some(rule) if rule.effect == Effect::Deny => Err(Denied {
                rule: Some(rule.name.clone()),
            }),
            None if self.default == Effect::Deny => Err(Denied { rule: None }),
            _ => Ok(()),
        }
    }

    /// The denial that holds whatever the agent, if there is one.
    #[must_use]
    pub fn denied_everywhere(&self) -> Option<Denied> {
        if self.rules.iter().any(|rule| rule.effect == Effect::Allow) {
            return None;
        }
        match self.rules.last() {
            Some(rule) if rule.means_every_agent() => Some(Denied {
                rule: Some(rule.name.clone()),
            }),
            _ if self.default == Effect::Deny => Some(Denied { rule: None }),
            _ => None,
        }
    }
}
