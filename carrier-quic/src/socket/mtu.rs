//! How large a packet to a peer may be, as far as this system knows.

use std::net::SocketAddr;

/// The headers of IPv6 and UDP, which those of IPv4 are shorter than.
const HEADERS: i32 = 40 + 8;

/// The largest UDP payload that leaves this system whole on the way to `remote`, if the system tells: what lies behind
/// the first link may carry less.
#[cfg(target_os = "linux")]
pub(crate) fn largest_payload(remote: SocketAddr) -> Option<u16> {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

    use nix::sys::socket::{getsockopt, sockopt::IpMtu};

    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting sends nothing. It looks up the route, and whatever was learnt about the path.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(remote).ok()?;
    let packet = getsockopt(&socket, IpMtu).ok()?;
    Some(u16::try_from((packet - HEADERS).max(0)).unwrap_or(u16::MAX))
}

/// Other systems are not asked.
#[cfg(not(target_os = "linux"))]
pub(crate) fn largest_payload(_: SocketAddr) -> Option<u16> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn the_loopback_interface_carries_more_than_ethernet() {
        assert!(largest_payload((Ipv4Addr::LOCALHOST, 9).into()).unwrap() > 1500);
        // A system without IPv6 has no way there.
        assert!(largest_payload((Ipv6Addr::LOCALHOST, 9).into()).is_none_or(|payload| payload > 1500));
    }
}
