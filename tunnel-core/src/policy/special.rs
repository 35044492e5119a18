//! Addresses and names at which hardly anybody means to arrive, and everybody who attacks does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range of special addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Special {
    pub(super) net: IpNet,
    /// What it is, as in "is a link-local address".
    pub(super) what: &'static str,
}

const UNSPECIFIED: &str = "an unspecified address";
const LINK_LOCAL: &str = "a link-local address";
const MULTICAST: &str = "a multicast address";
const BROADCAST: &str = "the broadcast address";
const METADATA: &str = "a cloud metadata address";

/// The special ranges. Link-local IPv4 holds the metadata address of most clouds, 169.254.169.254.
const SPECIAL: &[Special] = &[
    v4([0, 0, 0, 0], 8, UNSPECIFIED), // RFC 1122 §3.2.1.3; a socket takes it for loopback
    v4([169, 254, 0, 0], 16, LINK_LOCAL), // RFC 3927
    v4([224, 0, 0, 0], 4, MULTICAST), // RFC 5771
    v4([255, 255, 255, 255], 32, BROADCAST), // RFC 919 §7
    v4([168, 63, 129, 16], 32, METADATA), // Azure's wire server
    v4([100, 100, 100, 200], 32, METADATA), // Alibaba Cloud
    v4([192, 0, 0, 192], 32, METADATA), // Oracle Cloud Classic
    v6([0; 8], 128, UNSPECIFIED),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, LINK_LOCAL), // RFC 4291 §2.5.6
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, MULTICAST),   // RFC 4291 §2.7
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32, METADATA), // AWS: ::254 instances, ::23 credentials of pods
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, METADATA), // Google Cloud
    v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128, METADATA), // Oracle Cloud
    v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128, METADATA), // Scaleway
];

/// Names that clouds resolve to their metadata service.
const METADATA_NAMES: &[&str] = &[
    "metadata.google.internal",
    "metadata.goog",
    "instance-data.ec2.internal",
    "metadata.tencentyun.com",
    "metadata.platformequinix.com",
];

const fn v4(octets: [u8; 4], prefix: u8, what: &'static str) -> Special {
    let [a, b, c, d] = octets;
    Special {
        net: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)),
        what,
    }
}

const fn v6(segments: [u16; 8], prefix: u8, what: &'static str) -> Special {
    let [a, b, c, d, e, f, g, h] = segments;
    Special {
        net: IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)),
        what,
    }
}

/// The special range that an address is in.
pub(super) fn special(ip: IpAddr) -> Option<&'static Special> {
    SPECIAL.iter().find(|special| special.net.contains(&ip))
}

/// Whether clouds resolve this name to their metadata service.
pub(super) fn is_metadata_name(name: &str) -> bool {
    let bare = name.strip_suffix('.').unwrap_or(name);
    METADATA_NAMES
        .iter()
        .any(|metadata| metadata.eq_ignore_ascii_case(bare))
}

/// An address, and every IPv4 address that a translator or a tunnel on the way may take it for.
///
/// Where the form alone does not tell whether an address is embedded, all that it could embed are given: nobody needs
/// to reach `64:ff9b::a9fe:a9fe` so much that it should be a way around a rule about 169.254.169.254.
pub(super) fn readings(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let canonical = ip.to_canonical();
    let embedded = match canonical {
        IpAddr::V4(_) => [None; 4],
        IpAddr::V6(v6) => embedded(v6),
    };
    let embedded = embedded.into_iter().flatten().map(IpAddr::V4);
    std::iter::once(canonical).chain(embedded)
}

fn embedded(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    let segments = ip.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    let last = join(segments[6], segments[7]);
    match segments {
        // IPv4-compatible (RFC 4291 §2.5.5.1); `::` and `::1` are themselves.
        [0, 0, 0, 0, 0, 0, high, low] if (high, low) > (0, 1) => [Some(last), None, None, None],
        // IPv4-translated (RFC 2765 §2.1).
        [0, 0, 0, 0, 0xffff, 0, _, _] => [Some(last), None, None, None],
        // NAT64 with the well-known prefix (RFC 6052 §2.1).
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => [Some(last), None, None, None],
        // NAT64 with a prefix of the site's own (RFC 8215), of any of the lengths of RFC 6052 §2.2 that fit.
        [0x64, 0xff9b, 1, ..] => {
            let octets = ip.octets();
            let pick = |at: [usize; 4]| Some(Ipv4Addr::from(at.map(|at| octets[at])));
            [
                pick([6, 7, 9, 10]),
                pick([7, 9, 10, 11]),
                pick([9, 10, 11, 12]),
                Some(last),
            ]
        }
        // 6to4 (RFC 3056 §2).
        [0x2002, high, low, ..] => [Some(join(high, low)), None, None, None],
        // Teredo: its server, and its client, inverted (RFC 4380 §4).
        [0x2001, 0, high, low, ..] => [
            Some(join(high, low)),
            Some(join(!segments[6], !segments[7])),
            None,
            None,
        ],
        // ISATAP (RFC 5214 §6.1).
        [_, _, _, _, 0 | 0x200, 0x5efe, _, _] => [Some(last), None, None, None],
        _ => [None; 4],
    }
}
