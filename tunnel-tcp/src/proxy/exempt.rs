//! Servers that are reached without a proxy.

use std::net::IpAddr;

use ipnet::IpNet;
use tunnel_core::{Host, HostPort};

/// What a list of exceptions exempts; [`super::Proxies`] describes the list.
#[derive(Clone, Debug, Default)]
pub(super) struct Exempt(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Everything,
    Network(IpNet),
    Address {
        ip: IpAddr,
        port: Option<u16>,
    },
    Names {
        /// In lower case, with a dot before it.
        suffix: String,
        /// Whether the name without the dot is meant as well.
        apex: bool,
        port: Option<u16>,
    },
}

impl Exempt {
    /// Adds the entries of a list.
    pub(super) fn add(&mut self, list: &str) {
        let entries = list.split(|c: char| c == ',' || c.is_whitespace());
        self.0.extend(entries.filter_map(Entry::parse));
    }

    /// Whether a server is exempt, or is on this machine.
    pub(super) fn covers(&self, server: &HostPort) -> bool {
        let port = server.port();
        match server.host() {
            Host::Ip(ip) => ip.is_loopback() || self.0.iter().any(|entry| entry.covers_address(*ip, port)),
            host => {
                let name = host.to_string().to_ascii_lowercase();
                let name = name.strip_suffix('.').unwrap_or(&name);
                name == "localhost" || self.0.iter().any(|entry| entry.covers_name(name, port))
            }
        }
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Everything);
        }
        if let Ok(network) = text.parse::<IpNet>() {
            return Some(Self::Network(network));
        }
        let (host, port) = split_port(text)?;
        let bare = host.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
        if let Ok(ip) = bare.unwrap_or(host).parse::<IpAddr>() {
            let ip = ip.to_canonical();
            return Some(Self::Address { ip, port });
        }
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let host = host
            .strip_prefix('*')
            .filter(|rest| rest.starts_with('.'))
            .unwrap_or(host);
        if host.is_empty() {
            return None;
        }
        let apex = !host.starts_with('.');
        let suffix = if apex { format!(".{host}") } else { host.to_owned() };
        Some(Self::Names { suffix, apex, port })
    }

    fn covers_address(&self, to: IpAddr, at: u16) -> bool {
        match self {
            Self::Everything => true,
            Self::Network(network) => network.contains(&to),
            Self::Address { ip, port } => *ip == to && port.is_none_or(|port| port == at),
            Self::Names { .. } => false,
        }
    }

    /// `name` is in lower case and does not end in a dot.
    fn covers_name(&self, name: &str, at: u16) -> bool {
        match self {
            Self::Everything => true,
            Self::Names { suffix, apex, port } => {
                let is_below = name.ends_with(suffix.as_str());
                let is_apex = *apex && suffix.strip_prefix('.') == Some(name);
                (is_below || is_apex) && port.is_none_or(|port| port == at)
            }
            Self::Network(_) | Self::Address { .. } => false,
        }
    }
}

/// Splits a port off; `None` if what stands in its place is none.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let is_ipv6 = !text.starts_with('[') && text.matches(':').count() > 1;
    match text.rsplit_once(':') {
        Some((host, port)) if !is_ipv6 && !text.ends_with(']') => Some((host, Some(port.parse().ok()?))),
        _ => Some((text, None)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn covers(list: &str, server: &str) -> bool {
        let mut exempt = Exempt::default();
        exempt.add(list);
        exempt.covers(&server.parse().unwrap())
    }

    #[test]
    fn entries_mean_what_go_means() {
        for (list, server, expected) in [
            ("", "a.example:1", false),
            ("*", "a.example:1", true),
            ("*", "192.0.2.1:1", true),
            ("example.com", "example.com:1", true),
            ("example.com", "A.Example.COM.:1", true),
            ("Example.Com.", "a.example.com:1", true),
            ("example.com", "notexample.com:1", false),
            ("example.com", "example.com.evil:1", false),
            (".example.com", "example.com:1", false),
            (".example.com", "a.b.example.com:1", true),
            ("*.example.com", "example.com:1", false),
            ("*.example.com", "a.example.com:1", true),
            ("a*.example.com", "ab.example.com:1", false),
            ("example.com:8091", "a.example.com:8091", true),
            ("example.com:8091", "a.example.com:443", false),
            ("example.com:x", "example.com:1", false),
            ("192.0.2.7", "192.0.2.7:1", true),
            ("192.0.2.7", "192.0.2.70:1", false),
            ("192.0.2.7:8091", "192.0.2.7:8091", true),
            ("192.0.2.7:8091", "192.0.2.7:443", false),
            ("::ffff:192.0.2.7", "192.0.2.7:1", true),
            ("2001:db8::7", "[2001:db8::7]:1", true),
            ("[2001:db8::7]", "[2001:db8::7]:1", true),
            ("[2001:db8::7]:8091", "[2001:db8::7]:8091", true),
            ("[2001:db8::7]:8091", "[2001:db8::7]:1", false),
            ("192.0.2.0/24", "192.0.2.255:1", true),
            ("192.0.2.9/24", "192.0.2.1:1", true),
            ("192.0.2.0/24", "192.0.3.0:1", false),
            ("192.0.2.0/33", "192.0.2.0:1", false),
            ("2001:db8::/32", "[2001:db8:1::7]:1", true),
            ("2001:db8::/32", "192.0.2.7:1", false),
            ("192.0.2.0/24", "a.example:1", false),
            ("other, example.com", "example.com:1", true),
            ("other  example.com\n", "example.com:1", true),
            (",, ,.,:,*.,[,]", "example.com:1", false),
        ] {
            assert_eq!(covers(list, server), expected, "{list} {server}");
        }
    }

    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec("[a-z][a-z0-9-]{0,4}[a-z]", 1..5).prop_map(|labels| labels.join("."))
    }

    proptest! {
        #[test]
        fn a_name_covers_itself_and_exactly_what_is_below_it(entry in name(), server in name(), port: u16) {
            prop_assume!(port != 0 && server != "localhost");
            let below = format!("{server}.{entry}");
            prop_assume!(below.len() < 250);
            let at = |host: &str| format!("{host}:{port}");
            prop_assert!(covers(&entry, &at(&entry)));
            prop_assert!(covers(&entry, &at(&below)));
            let only_below = format!(".{entry}");
            prop_assert!(covers(&only_below, &at(&below)));
            prop_assert!(entry == "localhost" || !covers(&only_below, &at(&entry)));
            prop_assert!(entry == "localhost" || !covers(&below, &at(&entry)));
            let expected = server == entry || server.ends_with(&format!(".{entry}"));
            prop_assert_eq!(covers(&entry, &at(&server)), expected);
        }

        #[test]
        fn a_network_covers_what_it_contains(bits: u32, other: u32, len in 0u8..=32) {
            let network = format!("{}/{len}", std::net::Ipv4Addr::from(bits));
            let server = std::net::Ipv4Addr::from(other);
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            let expected = bits & mask == other & mask || server.is_loopback();
            prop_assert_eq!(covers(&network, &format!("{server}:1")), expected);
        }

        #[test]
        fn any_list_is_read_and_every_entry_counts(before: String, after: String, entry in name()) {
            let list = format!("{before},{entry},{after}");
            let server = format!("{entry}:1");
            prop_assert!(covers(&list, &server));
        }

        #[test]
        fn a_port_limits_an_entry(entry in name(), port in 1u16.., other in 1u16..) {
            prop_assume!(entry != "localhost");
            let list = format!("{entry}:{port}");
            prop_assert_eq!(covers(&list, &format!("{entry}:{other}")), port == other);
        }
    }
}
