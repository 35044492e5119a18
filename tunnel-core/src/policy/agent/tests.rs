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
