//! A server's policy as it stands in a configuration file.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::policy::{
    rules::{Effect, Named},
    target::PortRange,
};

/// A policy as it stands in a configuration file.
///
/// ```
/// use tunnel_core::{Policy, PolicyConfig};
///
/// let config: PolicyConfig = toml::from_str(r#"
///     [[claims]]
///     name = "nodes are called by their certificate"
///     identities = ["cn:node-*"]
///     agents = ["{name}"]
///
///     [[rules]]
///     name = "no SSH"
///     effect = "deny"
///     clients = ["*"]
///     ports = [22]
///
///     [[rules]]
///     name = "kubelets"
///     clients = ["cn:kube-apiserver"]
///     agents = ["node-*"]
///     hosts = ["10.0.0.0/8", "*.svc.cluster.local"]
///     ports = [10250, "8000-8999"]
///     may_select = true
/// "#)?;
/// let policy = Policy::new(config)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// What happens to streams that no rule matches. Default: `deny`, but a policy without any rule must say it.
    pub default: Option<Effect>,
    /// Which identity may be which agent. Default: every verified identity may be any.
    pub claims: Vec<ClaimConfig>,
    /// Which client may reach what through whom, in order.
    pub rules: Vec<RuleConfig>,
}

/// Lets identities be agents.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimConfig {
    /// A name for messages.
    pub name: String,
    /// Patterns over the names of [`Identity::names`](tunnel_proto::Identity::names).
    pub identities: Vec<String>,
    /// Patterns over agent ids. `{name}` stands for the identity's name without its kind: `node-7` for `cn:node-7`
    /// and for `spiffe://example/ns/node-7`.
    pub agents: Vec<String>,
}

/// Decides about streams. A field that is left out matches everything.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleConfig {
    /// A name for logs and refusals.
    pub name: String,
    /// What the rule does. Default: `allow`.
    pub effect: Effect,
    /// Patterns over the names of [`Identity::names`](tunnel_proto::Identity::names); `anonymous` is a client that has proven nothing, `*` is
    /// everyone.
    pub clients: Vec<String>,
    /// Patterns over agent ids.
    pub agents: Vec<String>,
    /// Labels that the agent must have. They are the agent's own words.
    pub labels: BTreeMap<String, String>,
    /// Hosts of the target: names with `*`, addresses and networks. A name is not resolved to compare its addresses:
    /// to keep streams away from addresses, use the agent's policy, which sees them.
    pub hosts: Vec<String>,
    /// Ports of the target, as numbers or ranges.
    pub ports: Vec<PortRange>,
    /// Patterns over paths of Unix sockets.
    pub unix: Vec<String>,
    /// Whether an allowing rule also holds for clients that choose the agent, by id or by labels. Default: no.
    pub may_select: bool,
}

impl Default for RuleConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            effect: Effect::Allow,
            clients: Vec::new(),
            agents: Vec::new(),
            labels: BTreeMap::new(),
            hosts: Vec::new(),
            ports: Vec::new(),
            unix: Vec::new(),
            may_select: false,
        }
    }
}

impl Named for RuleConfig {
    const KIND: &'static str = "rule";
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for ClaimConfig {
    const KIND: &'static str = "claim rule";
    fn name(&self) -> &str {
        &self.name
    }
}
