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
