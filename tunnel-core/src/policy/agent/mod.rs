//! What an agent dials.

mod config;
mod rule;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use tunnel_proto::{Host, Target};

use self::rule::Rule;
use super::{
    rules::{Effect, InvalidPolicy, numbered},
    special::{is_metadata_name, readings, special},
};

pub use self::config::{AgentPolicyConfig, AgentRuleConfig};

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
        Ok(Self {
            rules: numbered(config.rules, Rule::new)?,
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
