//! Which targets a rule means.

use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, de};
use tunnel_proto::{Host, Target};

use super::pattern::{InvalidPattern, Pattern};

/// Hosts by name or by address: `*`, a pattern such as `*.example`, an address, or a network such as `10.0.0.0/8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRule {
    /// Every host, whether named or given by address.
    Any,
    /// Hosts that were named. A name is not resolved to compare its addresses.
    Name(Pattern),
    /// Hosts that were given by address.
    Net(IpNet),
}

/// The text does not say which hosts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidHostRule {
    /// The text is no pattern.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    /// The text looks like a network or addresses with `*`, and would match no name.
    #[error("{0:?} is not a network; write it as address/prefix, as in 10.0.0.0/8 or 2001:db8::/32")]
    Net(String),
    /// The text holds what no name does, such as a blank, a comma or a letter beyond ASCII.
    #[error("{0:?} is neither a DNS name, in ASCII and perhaps with `*`, nor an address or a network")]
    Name(String),
}

impl HostRule {
    /// Whether the rule means this host.
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Name(pattern), Host::Name(name)) => pattern.matches(name.as_str()),
            (Self::Net(net), Host::Ip(ip)) => net.contains(&ip.to_canonical()),
            _ => false,
        }
    }
}

impl FromStr for HostRule {
    type Err = InvalidHostRule;

    fn from_str(text: &str) -> Result<Self, InvalidHostRule> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Net(ip.to_canonical().into()));
        }
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self::Net(canonical(net.trunc())));
        }
        let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || b".*".contains(&byte));
        if text.contains(['/', ':']) || (numeric && !text.is_empty()) {
            return Err(InvalidHostRule::Net(text.chars().take(64).collect()));
        }
        if !could_be_name(text) {
            return Err(InvalidHostRule::Name(text.chars().take(64).collect()));
        }
        Ok(Self::Name(Pattern::host(text)?))
    }
}

/// A network of IPv4-mapped addresses as the IPv4 network that it means: addresses are compared in that form.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    v6.addr()
        .to_ipv4_mapped()
        .zip(v6.prefix_len().checked_sub(96))
        .and_then(|(addr, prefix)| Ipv4Net::new(addr, prefix).ok())
        .map_or(net, IpNet::V4)
}

/// Whether there is a DNS name that this pattern stands for.
fn could_be_name(pattern: &str) -> bool {
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte);
    pattern.bytes().all(in_name) && !pattern.contains("..") && !pattern.starts_with('.')
}

impl<'de> Deserialize<'de> for HostRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Ports: one, or a range such as `8000-8999`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(RangeInclusive<u16>);

/// The text is no port or range of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a port from 1 to 65535 nor a range such as 8000-8999")]
pub struct InvalidPortRange(String);

impl PortRange {
    /// Whether the range holds this port.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }
}

impl FromStr for PortRange {
    type Err = InvalidPortRange;

    fn from_str(text: &str) -> Result<Self, InvalidPortRange> {
        let invalid = || InvalidPortRange(text.chars().take(64).collect());
        // The number parser would take a sign, too.
        let port = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|port: &u16| digits && *port > 0)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = port(first).ok_or_else(invalid)?..=port(last).ok_or_else(invalid)?;
        if range.is_empty() {
            Err(invalid())
        } else {
            Ok(Self(range))
        }
    }
}

impl<'de> Deserialize<'de> for PortRange {
    /// Takes a number, too.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = PortRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port or a range such as \"8000-8999\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PortRange, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, port: i64) -> Result<PortRange, E> {
                self.visit_str(&port.to_string())
            }

            fn visit_u64<E: de::Error>(self, port: u64) -> Result<PortRange, E> {
                self.visit_str(&port.to_string())
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// The targets that a rule means: hosts on ports, and paths of Unix sockets. Without any of the three it means every
/// target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetRule {
    /// Hosts; none means every host, if there are ports.
    pub hosts: Vec<HostRule>,
    /// Ports; none means every port, if there are hosts.
    pub ports: Vec<PortRange>,
    /// Paths of Unix sockets.
    pub unix: Vec<Pattern>,
}

impl TargetRule {
    /// Whether the rule means this target.
    #[must_use]
    pub fn matches(&self, target: &Target) -> bool {
        let Self { hosts, ports, unix } = self;
        if hosts.is_empty() && ports.is_empty() && unix.is_empty() {
            return true;
        }
        match target {
            Target::Unix(path) => unix.iter().any(|pattern| pattern.matches(path.as_str())),
            _ if hosts.is_empty() && ports.is_empty() => false,
            _ => target.host_port().is_some_and(|wanted| {
                (hosts.is_empty() || hosts.iter().any(|host| host.matches(wanted.host())))
                    && (ports.is_empty() || ports.iter().any(|range| range.contains(wanted.port())))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn hosts_are_meant_by_name_or_by_address() {
        for (rule, meant, other) in [
            ("*", &["a.example", "10.1.2.3"][..], &[][..]),
            ("*.example", &["a.example", "A.EXAMPLE."], &["example", "10.1.2.3"]),
            ("10.0.0.0/8", &["10.1.2.3"], &["11.1.2.3", "a.example", "[2001:db8::7]"]),
            ("10.1.2.3", &["10.1.2.3", "[::ffff:10.1.2.3]"], &["10.1.2.4"]),
            ("::ffff:10.0.0.0/104", &["10.1.2.3", "[::ffff:10.1.2.3]"], &["11.1.2.3"]),
            ("::ffff:0:0/96", &["10.1.2.3"], &["[2001:db8::7]"]),
            ("2001:db8::/32", &["[2001:db8::7]"], &["[2001:db9::7]", "32.1.13.184"]),
        ] {
            let rule: HostRule = rule.parse().unwrap();
            for host in meant {
                assert!(rule.matches(&host.parse().unwrap()), "{rule:?} means {host}");
            }
            for host in other {
                assert!(!rule.matches(&host.parse().unwrap()), "{rule:?} does not mean {host}");
            }
        }
    }

    #[test]
    fn an_address_in_ipv6_form_is_no_way_around_a_network() {
        let rule: HostRule = "10.0.0.0/8".parse().unwrap();
        assert!(rule.matches(&Host::Ip("::ffff:10.1.2.3".parse().unwrap())));
    }

    #[test]
    fn a_rule_that_could_never_match_is_refused() {
        for text in ["10.0.*", "10.0.0.0/33", "2001:db8:*", "10.0.0"] {
            assert!(
                matches!(text.parse::<HostRule>(), Err(InvalidHostRule::Net(_))),
                "{text}"
            );
        }
        for text in [
            "db.example ",
            "b\u{fc}cher.example",
            "a.example,b.example",
            "a..example",
        ] {
            assert!(
                matches!(text.parse::<HostRule>(), Err(InvalidHostRule::Name(_))),
                "{text}"
            );
        }
        for text in ["", "0", "70000", "9-8", "-", "80-", "+80", "a"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_and_ports_must_both_match() {
        let rule = TargetRule {
            hosts: vec!["*.example".parse().unwrap()],
            ports: vec!["443".parse().unwrap(), "8000-8999".parse().unwrap()],
            unix: vec![],
        };
        assert!(rule.matches(&target("tcp://a.example:443")));
        assert!(rule.matches(&target("udp://a.example:8999")));
        assert!(!rule.matches(&target("tcp://a.example:9000")));
        assert!(!rule.matches(&target("tcp://a.test:443")));
        assert!(!rule.matches(&target("unix:///run/a.sock")));
    }

    #[test]
    fn unix_sockets_must_be_named_unless_everything_is_meant() {
        let sockets = TargetRule {
            unix: vec!["/run/*.sock".parse().unwrap()],
            ..TargetRule::default()
        };
        assert!(sockets.matches(&target("unix:///run/a.sock")));
        assert!(!sockets.matches(&target("unix:///tmp/a.sock")));
        assert!(!sockets.matches(&target("tcp://a.example:443")));
        assert!(TargetRule::default().matches(&target("unix:///run/a.sock")));
    }
}
