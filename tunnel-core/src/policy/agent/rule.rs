//! Rules about targets.

use std::net::IpAddr;

use super::config::AgentRuleConfig;
use crate::policy::{
    pattern::Pattern,
    rules::{Effect, InvalidPolicy, hosts, patterns},
    special::{readings, special},
    target::{HostRule, PortRange},
};

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) effect: Effect,
    hosts: Vec<HostRule>,
    ports: Vec<PortRange>,
    pub(super) unix: Vec<Pattern>,
}

impl Rule {
    pub(super) fn new(name: String, config: AgentRuleConfig) -> Result<Self, InvalidPolicy> {
        let wrong = |problem| InvalidPolicy::Rule {
            rule: name.clone(),
            problem,
        };
        Ok(Self {
            effect: config.effect,
            hosts: hosts(&config.hosts).map_err(wrong)?,
            unix: patterns("unix", &config.unix).map_err(wrong)?,
            ports: config.ports,
            name,
        })
    }

    pub(super) fn means_everything(&self) -> bool {
        self.hosts.is_empty() && self.ports.is_empty() && self.unix.is_empty()
    }

    /// Whether the rule means hosts at all, and this port of theirs.
    pub(super) fn means_port(&self, port: u16) -> bool {
        let only_unix = self.hosts.is_empty() && self.ports.is_empty() && !self.unix.is_empty();
        !only_unix && (self.ports.is_empty() || self.ports.iter().any(|range| range.contains(port)))
    }

    /// Whether the rule means a host by its name.
    pub(super) fn means_name(&self, name: &str) -> bool {
        self.hosts.is_empty()
            || self.hosts.iter().any(|host| match host {
                HostRule::Any => true,
                HostRule::Name(pattern) => pattern.matches(name),
                HostRule::Net(_) => false,
            })
    }

    /// Whether the rule has this name, without a wildcard.
    pub(super) fn spells(&self, name: &str) -> bool {
        self.hosts.iter().any(|host| match host {
            HostRule::Name(pattern) => !pattern.as_str().contains('*') && pattern.matches(name),
            HostRule::Any | HostRule::Net(_) => false,
        })
    }

    pub(super) fn has_nets(&self) -> bool {
        self.hosts.iter().any(|host| matches!(host, HostRule::Net(_)))
    }

    pub(super) fn means_ip(&self, ip: IpAddr) -> bool {
        self.hosts.is_empty()
            || self.hosts.iter().any(|host| match host {
                HostRule::Any => true,
                HostRule::Net(net) => net.contains(&ip),
                HostRule::Name(_) => false,
            })
    }

    /// Whether the rule means an address or anything that it may be taken for.
    pub(super) fn means_a_reading(&self, ip: IpAddr) -> bool {
        readings(ip).any(|reading| self.means_ip(reading))
    }

    /// Whether the rule names every special thing that an address may be taken for, by networks inside its range.
    pub(super) fn names_special(&self, ip: IpAddr) -> bool {
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
