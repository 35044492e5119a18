//! An agent's policy as it stands in a configuration file.

use serde::Deserialize;

use crate::policy::{
    rules::{Effect, Named},
    target::PortRange,
};

/// An agent's policy as it stands in a configuration file.
///
/// ```
/// use tunnel_core::{AgentPolicy, AgentPolicyConfig};
///
/// let config: AgentPolicyConfig = toml::from_str(r#"
///     [[rules]]
///     name = "no SSH"
///     effect = "deny"
///     ports = [22]
///
///     [[rules]]
///     name = "kubelet and services"
///     hosts = ["127.0.0.1", "10.0.0.0/8", "*.svc.cluster.local"]
///     ports = [443, 10250, "8000-8999"]
///
///     [[rules]]
///     name = "container runtime"
///     unix = ["/run/containerd/*.sock"]
/// "#)?;
/// let policy = AgentPolicy::new(config)?;
/// assert!(policy.check(&"tcp://127.0.0.1:10250".parse()?).is_ok());
/// assert!(policy.check(&"tcp://10.0.0.1:22".parse()?).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentPolicyConfig {
    /// What happens to targets that no rule means. Default: `deny`, but a policy without any rule must say it.
    pub default: Option<Effect>,
    /// Which targets may be dialled, in order.
    pub rules: Vec<AgentRuleConfig>,
}

/// Decides about targets. A field that is left out matches everything.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentRuleConfig {
    /// A name for logs and refusals.
    pub name: String,
    /// What the rule does. Default: `allow`.
    pub effect: Effect,
    /// Hosts: names with `*`, addresses and networks. A target that is given by name is meant by its name or by the
    /// address that it resolves to.
    pub hosts: Vec<String>,
    /// Ports, as numbers or ranges.
    pub ports: Vec<PortRange>,
    /// Patterns over paths of Unix sockets.
    pub unix: Vec<String>,
}

impl Default for AgentRuleConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            effect: Effect::Allow,
            hosts: Vec::new(),
            ports: Vec::new(),
            unix: Vec::new(),
        }
    }
}

impl Named for AgentRuleConfig {
    const KIND: &'static str = "rule";
    fn name(&self) -> &str {
        &self.name
    }
}
