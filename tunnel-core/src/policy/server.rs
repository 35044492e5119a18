//! What a server allows: which client may reach what through whom, and which identity may be which agent.

use std::collections::BTreeMap;

use serde::Deserialize;
use tunnel_proto::{AgentId, Identity, Labels, Target};

use super::{
    pattern::{InvalidPattern, Pattern},
    target::{HostRule, PortRange, TargetRule},
};

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

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The stream may be opened.
    Allow,
    /// It may not.
    #[default]
    Deny,
}

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
    /// Patterns over the names of [`Identity::names`].
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
    /// Patterns over the names of [`Identity::names`]; `anonymous` is a client that has proven nothing, `*` is
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

/// A configured policy that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPolicy {
    /// A rule does.
    #[error("{rule}: {problem}")]
    Rule {
        /// Which one, by its name or its place.
        rule: String,
        /// What is wrong.
        problem: String,
    },
    /// Nothing says what is allowed.
    #[error("the policy has no rules: add one, or say `default = \"allow\"` or `default = \"deny\"`")]
    NoRules,
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

#[derive(Clone, Debug)]
struct Rule {
    name: String,
    effect: Effect,
    clients: Vec<Pattern>,
    agents: Vec<Pattern>,
    labels: Labels,
    targets: TargetRule,
    may_select: bool,
}

#[derive(Clone, Debug)]
struct ClaimRule {
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

impl Rule {
    fn new(name: String, config: RuleConfig) -> Result<Self, InvalidPolicy> {
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
        let hosts = config.hosts.iter().map(|host| {
            host.parse::<HostRule>()
                .map_err(|error| wrong(format!("`hosts`: {error}")))
        });
        let targets = TargetRule {
            hosts: hosts.collect::<Result<_, _>>()?,
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
    fn concerns(&self, access: &Access<'_>, names: &[String]) -> bool {
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

    fn means_every_agent(&self) -> bool {
        self.agents.is_empty() && self.labels.is_empty()
    }

    fn means(&self, agent: &AgentId, labels: &Labels) -> bool {
        (self.agents.is_empty() || self.agents.iter().any(|pattern| pattern.matches(agent.as_str())))
            && labels.contains_all(&self.labels)
    }
}

impl ClaimRule {
    fn new(name: String, config: ClaimConfig) -> Result<Self, InvalidPolicy> {
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

    fn allows(&self, name: &str, agent: &AgentId) -> bool {
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

/// Makes rules of their configuration, each called by its name or, without one, by its place.
fn numbered<C: Named, R>(
    configs: Vec<C>,
    make: impl Fn(String, C) -> Result<R, InvalidPolicy>,
) -> Result<Vec<R>, InvalidPolicy> {
    let named = configs.into_iter().enumerate().map(|(at, config)| {
        let name = match config.name() {
            "" => format!("{} {}", C::KIND, at + 1),
            name => format!("{} {name:?}", C::KIND),
        };
        make(name, config)
    });
    named.collect()
}

trait Named {
    const KIND: &'static str;
    fn name(&self) -> &str;
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

fn patterns(field: &str, texts: &[String]) -> Result<Vec<Pattern>, String> {
    texts.iter().map(|text| pattern(field, text)).collect()
}

fn pattern(field: &str, text: &str) -> Result<Pattern, String> {
    text.parse()
        .map_err(|error: InvalidPattern| format!("`{field}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, effect: Effect, clients: &[&str]) -> RuleConfig {
        RuleConfig {
            name: name.into(),
            effect,
            clients: clients.iter().map(|&text| text.into()).collect(),
            ..RuleConfig::default()
        }
    }

    fn policy(rules: Vec<RuleConfig>) -> Policy {
        let config = PolicyConfig {
            rules,
            ..PolicyConfig::default()
        };
        Policy::new(config).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let mut labels = Labels::default();
        for (name, value) in pairs {
            assert!(labels.insert(name, value));
        }
        labels
    }

    fn common_name(name: &str) -> Identity {
        let mut identity = Identity::anonymous();
        identity.common_name = Some(name.into());
        identity
    }

    struct Wish {
        client: Identity,
        target: &'static str,
        selects: bool,
        agent: &'static str,
        labels: Labels,
    }

    impl Wish {
        fn of(client: Identity) -> Self {
            Self {
                client,
                target: "tcp://10.1.2.3:443",
                selects: false,
                agent: "node-7",
                labels: Labels::default(),
            }
        }

        fn ask(&self, policy: &Policy) -> Result<(), Denied> {
            let target = self.target.parse().unwrap();
            let access = Access {
                client: &self.client,
                target: &target,
                selects: self.selects,
            };
            policy.check(&access, &self.agent.parse().unwrap(), &self.labels)
        }
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let policy = policy(vec![
            RuleConfig {
                ports: vec!["22".parse().unwrap()],
                ..rule("no-ssh", Effect::Deny, &["*"])
            },
            RuleConfig {
                agents: vec!["node-*".into()],
                hosts: vec!["10.0.0.0/8".into()],
                ..rule("nodes", Effect::Allow, &["cn:kube-apiserver"])
            },
        ]);
        let wish = Wish::of(common_name("kube-apiserver"));
        assert_eq!(wish.ask(&policy), Ok(()));
        let denied = |wish: Wish| wish.ask(&policy).unwrap_err().to_string();
        let client = || common_name("kube-apiserver");
        for (wish, why) in [
            (
                Wish {
                    target: "tcp://10.1.2.3:22",
                    ..Wish::of(client())
                },
                "rule \"no-ssh\" forbids it",
            ),
            (
                Wish {
                    target: "tcp://11.1.2.3:443",
                    ..Wish::of(client())
                },
                "no rule allows it",
            ),
            (
                Wish {
                    agent: "edge-1",
                    ..Wish::of(client())
                },
                "no rule allows it",
            ),
            (
                Wish {
                    selects: true,
                    ..Wish::of(client())
                },
                "no rule allows it",
            ),
            (Wish::of(common_name("eve")), "no rule allows it"),
            (Wish::of(Identity::anonymous()), "no rule allows it"),
        ] {
            assert_eq!(denied(wish), why);
        }
    }

    #[test]
    fn anonymous_clients_match_only_what_means_them() {
        for (clients, anonymous, named) in [
            (&["*"][..], true, true),
            (&["anonymous"], true, false),
            (&["cn:*"], false, true),
            (&["*:*"], false, true),
        ] {
            let policy = policy(vec![rule("", Effect::Allow, clients)]);
            assert_eq!(
                Wish::of(Identity::anonymous()).ask(&policy).is_ok(),
                anonymous,
                "{clients:?}"
            );
            assert_eq!(Wish::of(common_name("a")).ask(&policy).is_ok(), named, "{clients:?}");
        }
    }

    #[test]
    fn selecting_an_agent_needs_leave_but_is_no_way_around_a_denial() {
        let allow = RuleConfig {
            may_select: true,
            ..rule("choosers", Effect::Allow, &["cn:a"])
        };
        let wish = Wish {
            selects: true,
            ..Wish::of(common_name("a"))
        };
        assert_eq!(wish.ask(&policy(vec![allow.clone()])), Ok(()));
        let behind_denial = policy(vec![rule("none", Effect::Deny, &["cn:a"]), allow]);
        assert!(wish.ask(&behind_denial).is_err());
    }

    #[test]
    fn labels_of_the_agent_can_be_required() {
        let policy = policy(vec![RuleConfig {
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            ..rule("zone a", Effect::Allow, &["*"])
        }]);
        let wish = |pairs| Wish {
            labels: labels(pairs),
            ..Wish::of(Identity::anonymous())
        };
        assert!(wish(&[("zone", "a"), ("x", "y")]).ask(&policy).is_ok());
        assert!(wish(&[("zone", "b")]).ask(&policy).is_err());
    }

    #[test]
    fn a_scope_knows_when_no_agent_will_do() {
        let target = "tcp://10.1.2.3:443".parse().unwrap();
        let client = Identity::anonymous();
        let access = Access {
            client: &client,
            target: &target,
            selects: false,
        };
        let node_rule = |effect| RuleConfig {
            agents: vec!["node-*".into()],
            ..rule("some", effect, &["*"])
        };
        for (policy, everywhere) in [
            (Policy::deny_all(), true),
            (Policy::allow_all(), false),
            (policy(vec![rule("all", Effect::Deny, &["*"])]), true),
            (policy(vec![node_rule(Effect::Deny)]), true),
            (
                policy(vec![node_rule(Effect::Deny), rule("all", Effect::Allow, &["*"])]),
                false,
            ),
            (policy(vec![node_rule(Effect::Allow)]), false),
        ] {
            assert_eq!(
                policy.scope(&access).denied_everywhere().is_some(),
                everywhere,
                "{policy:?}"
            );
        }
    }

    #[test]
    fn identities_can_be_bound_to_agent_ids() {
        let claim = |identities: &str, agents: &str| ClaimConfig {
            name: String::new(),
            identities: vec![identities.into()],
            agents: vec![agents.into()],
        };
        let policy = Policy::new(PolicyConfig {
            default: Some(Effect::Deny),
            claims: vec![
                claim("cn:node-*", "{name}"),
                claim("spiffe://example/site/*", "site-{name}"),
                claim("token:ci", "ci-*"),
            ],
            rules: vec![],
        })
        .unwrap();
        let mut site = Identity::anonymous();
        site.spiffe = Some("spiffe://example/site/berlin".into());
        for (identity, agent, allowed) in [
            (common_name("node-7"), "node-7", true),
            (common_name("node-7"), "node-8", false),
            (common_name("eve"), "eve", false),
            (site.clone(), "site-berlin", true),
            (site, "berlin", false),
            (Identity::from_subject("ci"), "ci-42", true),
            (Identity::from_subject("ci"), "node-7", false),
        ] {
            let checked = policy.check_claim(&identity, &agent.parse().unwrap());
            assert_eq!(checked.is_ok(), allowed, "{identity} as {agent}");
        }
        let anyone = Identity::from_subject("x");
        assert!(Policy::deny_all().check_claim(&anyone, &"a".parse().unwrap()).is_ok());
    }

    #[test]
    fn mistakes_name_the_rule() {
        let named = RuleConfig {
            hosts: vec!["10.0.*".into()],
            ..rule("db", Effect::Allow, &["*"])
        };
        for (rules, message) in [
            (
                vec![named],
                "rule \"db\": `hosts`: \"10.0.*\" is not a network; write it as address/prefix, as in 10.0.0.0/8 or 2001:db8::/32",
            ),
            (
                vec![rule("a", Effect::Allow, &["*"]), rule("", Effect::Allow, &[])],
                "rule 2: `clients` is empty, so the rule matches nobody; `*` is everyone",
            ),
            (
                vec![rule("", Effect::Allow, &[""])],
                "rule 1: `clients`: a pattern cannot be empty; `*` matches everything",
            ),
        ] {
            let config = PolicyConfig {
                rules,
                ..PolicyConfig::default()
            };
            assert_eq!(Policy::new(config).unwrap_err().to_string(), message);
        }
        assert_eq!(
            Policy::new(PolicyConfig::default()).unwrap_err(),
            InvalidPolicy::NoRules
        );
    }

    #[test]
    fn mistakes_in_a_file_name_the_place() {
        for (text, message) in [
            (
                "[[rules]]\nclients = [\"*\"]\nports = [\"9-8\"]",
                "\"9-8\" is neither a port",
            ),
            (
                "[[rules]]\nclients = [\"*\"]\nports = [70000]",
                "\"70000\" is neither a port",
            ),
            ("[[rules]]\nclients = [\"*\"]\nport = [1]", "unknown field `port`"),
            (
                "[[rules]]\nclients = [\"*\"]\neffect = \"maybe\"",
                "unknown variant `maybe`",
            ),
        ] {
            let error = toml::from_str::<PolicyConfig>(text).unwrap_err().to_string();
            assert!(error.contains(message) && error.contains("line 3"), "{error}");
        }
    }
}
