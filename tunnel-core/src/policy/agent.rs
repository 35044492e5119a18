//! What an agent dials.

use std::net::IpAddr;

use serde::Deserialize;
use tunnel_proto::{Host, Target};

use super::{
    pattern::Pattern,
    server::{Effect, InvalidPolicy},
    special::{is_metadata_name, readings, special},
    target::{HostRule, PortRange},
};

/// What an agent dials. It is immutable; an agent takes another one at run time.
///
/// Rules are asked in order, and the first that means a target decides. It is asked twice: about the target as the
/// server names it, before anything is resolved, and about every address that a name resolves to, before a packet is
/// sent there. So a name that resolves to a forbidden address leads nowhere.
///
/// Whatever the rules say in general, some things must be named to be allowed:
///
/// - *Special addresses*: unspecified, link-local (169.254.169.254, the metadata address of most clouds, among them),
///   multicast, broadcast, and the other metadata addresses of clouds. A rule allows them if one of its `hosts` is an
///   address or a network inside the special range, such as `169.254.169.254` or `fe80::/10`; neither `*` nor
///   `0.0.0.0/0` is. The same holds for IPv6 addresses that embed them (NAT64, 6to4, Teredo, ISATAP and the
///   IPv4-mapped, -compatible and -translated forms), and rules that deny an IPv4 network deny its embedded forms, too.
/// - *Names of metadata services*, such as `metadata.google.internal`: by a rule with that very name.
/// - *Unix sockets*: by a rule with a pattern of their path.
///
/// Loopback is not special, because an agent often serves what runs beside it. Deny `127.0.0.0/8` and `::1`, or some
/// ports of them, where that is not wanted.
#[derive(Clone, Debug)]
pub struct AgentPolicy {
    rules: Vec<Rule>,
    default: Effect,
}

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

/// An agent's policy does not let it dial a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetDenied {
    /// A rule forbids it.
    #[error("{0} forbids it")]
    Rule(String),
    /// No rule allows it, and the policy's default is to deny.
    #[error("no rule allows it")]
    NoRule,
    /// It is special, and no rule names it.
    #[error("{ip} is {what}, which only a rule that names it allows")]
    Special {
        /// The address.
        ip: IpAddr,
        /// What it is, as in "a link-local address".
        what: &'static str,
    },
    /// It is the name of a cloud's metadata service, and no rule names it.
    #[error("{0} is a cloud's metadata service, which only a rule with this name allows")]
    MetadataName(String),
    /// It is a Unix socket, and no rule names it.
    #[error("a Unix socket is allowed by a rule with its path alone")]
    UnixSocket,
}

#[derive(Clone, Debug)]
struct Rule {
    name: String,
    effect: Effect,
    hosts: Vec<HostRule>,
    ports: Vec<PortRange>,
    unix: Vec<Pattern>,
}

impl Default for AgentPolicy {
    /// Every target by TCP and UDP, other than the special ones; no Unix socket.
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            default: Effect::Allow,
        }
    }
}

impl AgentPolicy {
    /// Makes a policy of its configuration.
    pub fn new(config: AgentPolicyConfig) -> Result<Self, InvalidPolicy> {
        if config.rules.is_empty() && config.default.is_none() {
            return Err(InvalidPolicy::NoRules);
        }
        let rules = config.rules.into_iter().enumerate();
        Ok(Self {
            rules: rules.map(|(at, rule)| Rule::new(at, rule)).collect::<Result<_, _>>()?,
            default: config.default.unwrap_or_default(),
        })
    }

    /// Asks about a target as it is named. A name passes unless it is denied whatever it resolves to; its addresses
    /// must be asked about with [`check_ip`](Self::check_ip).
    pub fn check(&self, target: &Target) -> Result<(), TargetDenied> {
        let Some(host_port) = target.host_port() else {
            return self.check_unix(target);
        };
        let name = match host_port.host() {
            Host::Ip(ip) => return self.check_ip(target, *ip),
            Host::Name(name) => name.as_str(),
            _ => return Err(TargetDenied::NoRule),
        };
        let metadata = is_metadata_name(name);
        for rule in self.rules.iter().filter(|rule| rule.means_port(host_port.port())) {
            match rule.effect {
                Effect::Deny if rule.means_name(name) => return Err(TargetDenied::Rule(rule.name.clone())),
                // Its addresses decide.
                Effect::Allow if metadata && rule.spells(name) => return Ok(()),
                Effect::Allow if !metadata && (rule.means_name(name) || rule.has_nets()) => return Ok(()),
                _ => {}
            }
        }
        match self.default {
            _ if metadata => Err(TargetDenied::MetadataName(name.to_owned())),
            Effect::Allow => Ok(()),
            Effect::Deny => Err(TargetDenied::NoRule),
        }
    }

    /// Asks about an address that a target is at: the one it was given by, or one that its name resolves to.
    pub fn check_ip(&self, target: &Target, ip: IpAddr) -> Result<(), TargetDenied> {
        let Some(host_port) = target.host_port() else {
            return Err(TargetDenied::UnixSocket);
        };
        let ip = ip.to_canonical();
        let name = match host_port.host() {
            Host::Name(name) => Some(name.as_str()),
            _ => None,
        };
        let special = readings(ip).find_map(|reading| Some((reading, special(reading)?)));
        for rule in self.rules.iter().filter(|rule| rule.means_port(host_port.port())) {
            let by_name = || name.is_some_and(|name| rule.means_name(name));
            match (rule.effect, &special) {
                (Effect::Deny, _) if by_name() || rule.means_a_reading(ip) => {
                    return Err(TargetDenied::Rule(rule.name.clone()));
                }
                (Effect::Allow, Some(_)) if rule.names_special(ip) => return Ok(()),
                (Effect::Allow, None) if by_name() || rule.means_ip(ip) => return Ok(()),
                _ => {}
            }
        }
        match (self.default, special) {
            (_, Some((ip, special))) => Err(TargetDenied::Special { ip, what: special.what }),
            (Effect::Allow, None) => Ok(()),
            (Effect::Deny, None) => Err(TargetDenied::NoRule),
        }
    }

    fn check_unix(&self, target: &Target) -> Result<(), TargetDenied> {
        let Target::Unix(path) = target else {
            return Err(TargetDenied::NoRule);
        };
        for rule in &self.rules {
            let names = rule.unix.iter().any(|pattern| pattern.matches(path.as_str()));
            match rule.effect {
                Effect::Allow if names => return Ok(()),
                Effect::Deny if names || rule.means_everything() => {
                    return Err(TargetDenied::Rule(rule.name.clone()));
                }
                _ => {}
            }
        }
        Err(TargetDenied::UnixSocket)
    }
}

impl Rule {
    fn new(at: usize, config: AgentRuleConfig) -> Result<Self, InvalidPolicy> {
        let name = match config.name.as_str() {
            "" => format!("rule {}", at + 1),
            name => format!("rule {name:?}"),
        };
        let wrong = |field: &str, error: &dyn std::error::Error| InvalidPolicy::Rule {
            rule: name.clone(),
            problem: format!("`{field}`: {error}"),
        };
        let hosts = config.hosts.iter().map(|text| text.parse());
        let unix = config.unix.iter().map(|text| text.parse());
        Ok(Self {
            effect: config.effect,
            hosts: hosts
                .collect::<Result<_, _>>()
                .map_err(|error| wrong("hosts", &error))?,
            unix: unix.collect::<Result<_, _>>().map_err(|error| wrong("unix", &error))?,
            ports: config.ports,
            name,
        })
    }

    fn means_everything(&self) -> bool {
        self.hosts.is_empty() && self.ports.is_empty() && self.unix.is_empty()
    }

    /// Whether the rule means hosts at all, and this port of theirs.
    fn means_port(&self, port: u16) -> bool {
        let only_unix = self.hosts.is_empty() && self.ports.is_empty() && !self.unix.is_empty();
        !only_unix && (self.ports.is_empty() || self.ports.iter().any(|range| range.contains(port)))
    }

    /// Whether the rule means a host by its name.
    fn means_name(&self, name: &str) -> bool {
        self.hosts.is_empty()
            || self.hosts.iter().any(|host| match host {
                HostRule::Any => true,
                HostRule::Name(pattern) => pattern.matches(name),
                HostRule::Net(_) => false,
            })
    }

    /// Whether the rule has this name, without a wildcard.
    fn spells(&self, name: &str) -> bool {
        self.hosts.iter().any(|host| match host {
            HostRule::Name(pattern) => !pattern.as_str().contains('*') && pattern.matches(name),
            HostRule::Any | HostRule::Net(_) => false,
        })
    }

    fn has_nets(&self) -> bool {
        self.hosts.iter().any(|host| matches!(host, HostRule::Net(_)))
    }

    fn means_ip(&self, ip: IpAddr) -> bool {
        self.hosts.is_empty()
            || self.hosts.iter().any(|host| match host {
                HostRule::Any => true,
                HostRule::Net(net) => net.contains(&ip),
                HostRule::Name(_) => false,
            })
    }

    /// Whether the rule means an address or anything that it may be taken for.
    fn means_a_reading(&self, ip: IpAddr) -> bool {
        readings(ip).any(|reading| self.means_ip(reading))
    }

    /// Whether the rule names every special thing that an address may be taken for, by networks inside its range.
    fn names_special(&self, ip: IpAddr) -> bool {
        readings(ip).all(|reading| {
            special(reading).is_none_or(|special| {
                self.hosts.iter().any(|host| match host {
                    HostRule::Net(net) => special.net.contains(net) && net.contains(&reading),
                    HostRule::Any | HostRule::Name(_) => false,
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn rule(effect: Effect, hosts: &[&str], ports: &[&str]) -> AgentRuleConfig {
        AgentRuleConfig {
            effect,
            hosts: hosts.iter().map(ToString::to_string).collect(),
            ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
            ..AgentRuleConfig::default()
        }
    }

    fn unix(effect: Effect, paths: &[&str]) -> AgentRuleConfig {
        AgentRuleConfig {
            effect,
            unix: paths.iter().map(ToString::to_string).collect(),
            ..AgentRuleConfig::default()
        }
    }

    fn policy(default: Option<Effect>, rules: Vec<AgentRuleConfig>) -> AgentPolicy {
        AgentPolicy::new(AgentPolicyConfig { default, rules }).unwrap()
    }

    /// Every way to write `ip` as a target.
    fn spellings(ip: Ipv4Addr) -> Vec<String> {
        let [a, b, c, d] = ip.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let v6 = |segments: [u16; 8]| format!("[{}]", Ipv6Addr::from(segments));
        vec![
            ip.to_string(),
            format!("[::ffff:{ip}]"),
            v6([0, 0, 0, 0, 0, 0, high, low]),
            v6([0, 0, 0, 0, 0xffff, 0, high, low]),
            v6([0x64, 0xff9b, 0, 0, 0, 0, high, low]),
            v6([0x64, 0xff9b, 1, 7, 7, 7, high, low]),
            v6([0x64, 0xff9b, 1, high, c.into(), u16::from(d) << 8, 0, 0]),
            v6([0x64, 0xff9b, 1, a.into(), b.into(), low, 0, 0]),
            v6([
                0x64,
                0xff9b,
                1,
                7,
                a.into(),
                (u16::from(b) << 8) | u16::from(c),
                u16::from(d) << 8,
                0,
            ]),
            v6([0x2002, high, low, 0, 0, 0, 0, 1]),
            v6([0x2001, 0, high, low, 0, 0, 0, 0]),
            v6([0x2001, 0, 0x4136, 0xe378, 0x8000, 0x63bf, !high, !low]),
            v6([0x2001, 0xdb8, 0, 0, 0, 0x5efe, high, low]),
            v6([0x2001, 0xdb8, 0, 0, 0x200, 0x5efe, high, low]),
        ]
    }

    const SPECIAL_V4: &[&str] = &[
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "169.254.170.2",
        "169.254.0.1",
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
    ];
    const SPECIAL_V6: &[&str] = &[
        "::",
        "fe80::1",
        "febf::1",
        "fe80::a9fe:a9fe",
        "ff02::1",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
    ];

    /// Policies that allow everything that can be allowed in general.
    fn generous() -> Vec<AgentPolicy> {
        let all = ["*", "0.0.0.0/0", "::/0"];
        vec![
            AgentPolicy::default(),
            policy(Some(Effect::Allow), vec![]),
            policy(None, vec![rule(Effect::Allow, &[], &[])]),
            policy(None, vec![rule(Effect::Allow, &all, &["1-65535"])]),
            policy(
                None,
                vec![rule(
                    Effect::Allow,
                    &["168.0.0.0/6", "fe00::/9", "fc00::/7", "2002::/16"],
                    &[],
                )],
            ),
        ]
    }

    #[test]
    fn no_special_address_passes_by_default_in_any_form() {
        let embedded = SPECIAL_V4.iter().flat_map(|ip| spellings(ip.parse().unwrap()));
        let plain = SPECIAL_V6.iter().map(|ip| format!("[{ip}]"));
        for host in embedded.chain(plain) {
            // Reading 6to4 of 0.x.y.z and the like as `::x` is caught by the same rules.
            let literal = target(&format!("tcp://{host}:80"));
            let named = target("tcp://innocent.example:80");
            let ip: IpAddr = host.trim_matches(['[', ']']).parse().unwrap();
            for policy in generous() {
                assert!(policy.check(&literal).is_err(), "{host} passes {policy:?}");
                assert!(
                    policy.check_ip(&named, ip).is_err(),
                    "a name at {host} passes {policy:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn link_local_and_multicast_never_pass(low: [u8; 2], at in 0usize..14, octets: [u8; 3], multicast in 224u8..240) {
            let [a, b, c] = octets;
            for ip in [Ipv4Addr::new(169, 254, low[0], low[1]), Ipv4Addr::new(multicast, a, b, c)] {
                let literal = target(&format!("tcp://{}:80", spellings(ip)[at]));
                for policy in generous() {
                    prop_assert!(policy.check(&literal).is_err(), "{} passes {:?}", literal, policy);
                }
            }
        }

        #[test]
        fn a_denied_network_is_denied_in_every_form(octets: [u8; 3], at in 0usize..14) {
            let [b, c, d] = octets;
            let spelling = &spellings(Ipv4Addr::new(10, b, c, d))[at];
            let policy = policy(Some(Effect::Allow), vec![rule(Effect::Deny, &["10.0.0.0/8"], &[])]);
            let literal = target(&format!("tcp://{spelling}:80"));
            prop_assert!(policy.check(&literal).is_err(), "{} passes", spelling);
        }

        #[test]
        fn ordinary_addresses_pass_by_default(octets: [u8; 4], segments: [u16; 7]) {
            let v4 = Ipv4Addr::from(octets);
            if SPECIAL_RANGES.iter().all(|net| !net.parse::<ipnet::Ipv4Net>().unwrap().contains(&v4)) {
                let ordinary = target(&format!("tcp://{v4}:80"));
                prop_assert_eq!(AgentPolicy::default().check(&ordinary), Ok(()));
            }
            // Documentation addresses embed nothing, unless their interface id says ISATAP.
            let [a, b, c, d, e, f, g] = segments;
            if (e, f) != (0, 0x5efe) && (e, f) != (0x200, 0x5efe) {
                let v6 = Ipv6Addr::new(0x3fff, a & 0xfff, b, c | d, e, f, g, 1);
                if !matches!(v6.segments(), [_, _, _, _, 0 | 0x200, 0x5efe, ..]) {
                    let ordinary = target(&format!("tcp://[{v6}]:80"));
                    prop_assert_eq!(AgentPolicy::default().check(&ordinary), Ok(()));
                }
            }
        }
    }

    const SPECIAL_RANGES: &[&str] = &[
        "0.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "168.63.129.16/32",
        "100.100.100.200/32",
        "192.0.0.192/32",
    ];

    #[test]
    fn loopback_and_private_networks_pass_by_default() {
        for text in [
            "127.0.0.1",
            "[::1]",
            "10.0.0.1",
            "192.168.1.1",
            "[fd12::1]",
            "localhost",
            "db.internal",
        ] {
            assert_eq!(
                AgentPolicy::default().check(&target(&format!("tcp://{text}:80"))),
                Ok(()),
                "{text}"
            );
        }
        assert_eq!(
            AgentPolicy::default().check_ip(&target("udp://localhost:53"), "127.0.0.1".parse().unwrap()),
            Ok(())
        );
    }

    #[test]
    fn a_rule_that_names_a_special_address_opens_it_alone() {
        for (named, open, shut) in [
            ("169.254.169.254", "169.254.169.254", "169.254.169.253"),
            ("169.254.20.0/24", "169.254.20.10", "169.254.169.254"),
            ("fe80::/10", "[fe80::1]", "[ff02::1]"),
            ("169.254.0.0/16", "169.254.169.254", "168.63.129.16"),
        ] {
            for effect in [Effect::Allow, Effect::Deny] {
                let policy = policy(Some(effect), vec![rule(Effect::Allow, &[named], &["80"])]);
                assert_eq!(policy.check(&target(&format!("tcp://{open}:80"))), Ok(()), "{named}");
                assert!(policy.check(&target(&format!("tcp://{open}:81"))).is_err(), "{named}");
                assert!(policy.check(&target(&format!("tcp://{shut}:80"))).is_err(), "{named}");
            }
        }
    }

    #[test]
    fn an_embedded_special_address_is_opened_by_the_rule_that_names_it() {
        let policy = policy(None, vec![rule(Effect::Allow, &["169.254.169.254"], &[])]);
        assert_eq!(policy.check(&target("tcp://[64:ff9b::a9fe:a9fe]:80")), Ok(()));
        assert!(policy.check(&target("tcp://[64:ff9b::a9fe:a9fd]:80")).is_err());
    }

    #[test]
    fn metadata_names_are_opened_by_their_very_name() {
        let (name, spelled) = (target("tcp://Metadata.Google.Internal.:80"), "metadata.google.internal");
        let at: IpAddr = "169.254.169.254".parse().unwrap();
        for open in [&["*"][..], &["*.internal"], &["169.254.169.254"]] {
            assert!(
                policy(None, vec![rule(Effect::Allow, open, &[])]).check(&name).is_err(),
                "{open:?}"
            );
        }
        let by_name = policy(None, vec![rule(Effect::Allow, &[spelled], &[])]);
        assert_eq!(by_name.check(&name), Ok(()));
        assert!(by_name.check_ip(&name, at).is_err(), "its address must be named, too");
        let by_both = policy(None, vec![rule(Effect::Allow, &[spelled, "169.254.169.254"], &[])]);
        assert_eq!(by_both.check(&name).and(by_both.check_ip(&name, at)), Ok(()));
    }

    #[test]
    fn the_first_rule_that_means_a_target_decides() {
        let policy = policy(
            Some(Effect::Allow),
            vec![
                rule(Effect::Allow, &["db.example", "10.1.0.0/16"], &["5432"]),
                rule(Effect::Deny, &["*.example", "10.0.0.0/8"], &[]),
                rule(Effect::Deny, &[], &["22"]),
            ],
        );
        for (text, allowed) in [
            ("tcp://db.example:5432", true),
            ("tcp://db.example:5433", false),
            ("tcp://10.1.2.3:5432", true),
            ("tcp://10.1.2.3:80", false),
            ("tcp://10.2.0.1:5432", false),
            ("tcp://192.0.2.1:80", true),
            ("tcp://192.0.2.1:22", false),
            ("tcp://host.test:22", false),
        ] {
            assert_eq!(policy.check(&target(text)).is_ok(), allowed, "{text}");
        }
    }

    #[test]
    fn a_name_is_judged_by_its_addresses_too() {
        let rebound = target("tcp://a.example:80");
        let at = |policy: &AgentPolicy, ip: &str| policy.check_ip(&rebound, ip.parse().unwrap()).is_ok();

        let deny_net = policy(Some(Effect::Allow), vec![rule(Effect::Deny, &["127.0.0.0/8"], &[])]);
        assert_eq!(deny_net.check(&rebound), Ok(()));
        assert!(at(&deny_net, "192.0.2.1") && !at(&deny_net, "127.0.0.1") && !at(&deny_net, "::ffff:127.0.0.1"));

        let allow_net = policy(None, vec![rule(Effect::Allow, &["10.0.0.0/8"], &[])]);
        assert_eq!(allow_net.check(&rebound), Ok(()), "it may resolve into the network");
        assert!(at(&allow_net, "10.1.1.1") && !at(&allow_net, "192.0.2.1"));

        let allow_name = policy(None, vec![rule(Effect::Allow, &["*.example"], &[])]);
        assert!(at(&allow_name, "10.1.1.1") && !at(&allow_name, "169.254.169.254"));
        assert_eq!(allow_name.check(&target("tcp://a.test:80")), Err(TargetDenied::NoRule));
    }

    #[test]
    fn unix_sockets_must_be_named() {
        let socket = target("unix:///run/app.sock");
        for closed in generous() {
            assert!(closed.check(&socket).is_err(), "{closed:?}");
        }
        let open = policy(None, vec![unix(Effect::Allow, &["/run/*.sock"])]);
        assert_eq!(open.check(&socket), Ok(()));
        assert!(open.check(&target("unix:///tmp/app.sock")).is_err());
        assert!(
            open.check(&target("tcp://a.example:80")).is_err(),
            "a rule about paths means no hosts"
        );
        let shut = policy(None, vec![rule(Effect::Deny, &[], &[]), unix(Effect::Allow, &["*"])]);
        assert_eq!(shut.check(&socket), Err(TargetDenied::Rule("rule 1".into())));
    }

    #[test]
    fn a_policy_that_makes_no_sense_says_where() {
        let invalid = |rules, default| {
            AgentPolicy::new(AgentPolicyConfig { default, rules })
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            invalid(vec![], None),
            "the policy has no rules: add one, or say `default = \"allow\"` or `default = \"deny\"`"
        );
        let mut named = rule(Effect::Allow, &["10.0.0.0/33"], &[]);
        assert!(invalid(vec![rule(Effect::Deny, &[], &[]), named.clone()], None).starts_with("rule 2: `hosts`: "));
        named.name = "nodes".to_owned();
        assert!(invalid(vec![named], None).starts_with("rule \"nodes\": `hosts`: "));
        assert!(invalid(vec![unix(Effect::Allow, &[""])], None).starts_with("rule 1: `unix`: "));
    }

    #[test]
    fn denials_say_why() {
        let why = |text: &str| AgentPolicy::default().check(&target(text)).unwrap_err().to_string();
        assert_eq!(
            why("tcp://[64:ff9b::a9fe:a9fe]:80"),
            "169.254.169.254 is a link-local address, which only a rule that names it allows"
        );
        assert_eq!(
            why("tcp://metadata.google.internal:80"),
            "metadata.google.internal is a cloud's metadata service, which only a rule with this name allows"
        );
        assert_eq!(
            why("unix:///run/x"),
            "a Unix socket is allowed by a rule with its path alone"
        );
        let denied = policy(Some(Effect::Allow), vec![rule(Effect::Deny, &[], &["22"])]);
        assert_eq!(
            denied.check(&target("tcp://a.example:22")).unwrap_err().to_string(),
            "rule 1 forbids it"
        );
    }
}
