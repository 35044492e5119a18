//! Where a stream should end.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    str::FromStr,
};

/// Where a stream should end: a TCP or UDP destination, or a Unix socket, as the agent sees them.
///
/// The text form is a URI without anything else: `tcp://host:port`, `udp://host:port`, `unix:///path`. Parsing
/// validates once, so that every later user can rely on it; printing gives the same text back, except that
/// IP addresses are printed canonically (RFC 5952).
///
/// ```
/// use tunnel_proto::Target;
///
/// let target: Target = "tcp://[2001:db8::7]:10250".parse()?;
/// assert_eq!(target.to_string(), "tcp://[2001:db8::7]:10250");
/// assert_eq!(Target::from_authority("kubelet.example:10250")?.to_string(), "tcp://kubelet.example:10250");
/// # Ok::<(), tunnel_proto::InvalidTarget>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// A TCP destination.
    Tcp(HostPort),
    /// A UDP destination.
    Udp(HostPort),
    /// A Unix stream socket on the agent's machine.
    Unix(UnixPath),
}

/// A host and a port other than zero.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    host: Host,
    port: u16,
}

/// A name that the agent resolves, or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Host {
    /// An address; parsing and conversion turn an IPv4-mapped IPv6 address into the IPv4 address that it means.
    Ip(IpAddr),
    /// A name that the agent resolves.
    Name(DnsName),
}

/// A DNS name of 1 to 255 bytes as it was written; compare it without regard to case.
///
/// Its labels have 1 to 63 letters, digits, `-` and `_`; it may end in a dot. It is never one that a resolver could
/// read as an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsName(String);

/// The absolute path of a Unix socket, at most 107 bytes.
///
/// It is in normal form, without empty, `.` or `..` components, so that a rule about its beginning cannot be
/// walked around, and without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnixPath(String);

/// The text is not a target; the message quotes the part that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTarget {
    /// The text has no known scheme.
    #[error("a target starts with tcp://, udp:// or unix://")]
    Scheme,
    /// There is no port, or no number in its place.
    #[error("the target needs a port from 1 to 65535, without a zero before it, after its host, as in host:443")]
    Port,
    /// The host is empty.
    #[error("the target has no host")]
    NoHost,
    /// The host is longer than 255 bytes.
    #[error("the host name has {0} bytes; at most 255 are allowed")]
    HostTooLong(usize),
    /// The host is neither a DNS name nor an address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    Host(String),
    /// A name such as `127.1`, which resolvers would read as an address.
    #[error("{0:?} would be read as an IPv4 address by some resolvers; write it as four decimal numbers")]
    NumericName(String),
    /// An IPv6 address without brackets, malformed, or with a zone.
    #[error("{0:?} is not an IPv6 address without a zone in brackets, as in [2001:db8::7]")]
    Ipv6(String),
    /// The path is not a [`UnixPath`].
    #[error("{0:?} is not an absolute socket path of at most 107 bytes in normal form")]
    Path(String),
}

impl Target {
    /// The longest text form, in bytes: a scheme, a name and a port.
    pub const MAX: usize = "tcp://".len() + DnsName::MAX + ":65535".len();

    /// A TCP target from an authority, `host:port`, as in the request target of HTTP CONNECT (RFC 9110 §9.3.6).
    pub fn from_authority(authority: &str) -> Result<Self, InvalidTarget> {
        authority.parse().map(Self::Tcp)
    }

    /// A Unix socket target.
    pub fn unix(path: &str) -> Result<Self, InvalidTarget> {
        path.parse().map(Self::Unix)
    }

    /// Host and port, unless this is a Unix socket.
    #[must_use]
    pub fn host_port(&self) -> Option<&HostPort> {
        match self {
            Self::Tcp(host_port) | Self::Udp(host_port) => Some(host_port),
            Self::Unix(_) => None,
        }
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidTarget::Scheme)?;
        match scheme {
            "tcp" => rest.parse().map(Self::Tcp),
            "udp" => rest.parse().map(Self::Udp),
            "unix" => Self::unix(rest),
            _ => Err(InvalidTarget::Scheme),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host_port) => write!(f, "tcp://{host_port}"),
            Self::Udp(host_port) => write!(f, "udp://{host_port}"),
            Self::Unix(path) => write!(f, "unix://{path}"),
        }
    }
}

impl TryFrom<SocketAddr> for Target {
    type Error = InvalidTarget;

    /// A TCP target, unless the port is zero or the address has a zone, which means nothing on another machine.
    fn try_from(addr: SocketAddr) -> Result<Self, InvalidTarget> {
        if let SocketAddr::V6(v6) = addr
            && v6.scope_id() != 0
        {
            return Err(InvalidTarget::Ipv6(addr.to_string()));
        }
        HostPort::new(addr.ip().into(), addr.port()).map(Self::Tcp)
    }
}

impl HostPort {
    /// Joins a host and a port.
    pub fn new(host: Host, port: u16) -> Result<Self, InvalidTarget> {
        if port == 0 {
            return Err(InvalidTarget::Port);
        }
        Ok(Self { host, port })
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, never zero.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for HostPort {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidTarget::Port)?;
        // `u16::from_str` would take a sign and leading zeros.
        if port.starts_with('0') || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidTarget::Port);
        }
        let port = port.parse().map_err(|_| InvalidTarget::Port)?;
        Self::new(host.parse()?, port)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }
}

impl FromStr for Host {
    type Err = InvalidTarget;

    /// Parses a DNS name, an IPv4 address, or an IPv6 address in brackets.
    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        if let Some(inner) = text.strip_prefix('[') {
            let ip: Option<Ipv6Addr> = inner.strip_suffix(']').and_then(|ip| ip.parse().ok());
            return ip
                .map(|ip| IpAddr::V6(ip).into())
                .ok_or_else(|| InvalidTarget::Ipv6(excerpt(text)));
        }
        if text.contains(':') {
            return Err(InvalidTarget::Ipv6(excerpt(text)));
        }
        match text.parse::<Ipv4Addr>() {
            Ok(ip) => Ok(Self::Ip(ip.into())),
            Err(_) => text.parse().map(Self::Name),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl DnsName {
    /// The longest name, in bytes.
    pub const MAX: usize = 255;
    /// The longest label, in bytes (RFC 1035 §2.3.4).
    const MAX_LABEL: usize = 63;

    /// The name as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DnsName {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        if text.is_empty() {
            return Err(InvalidTarget::NoHost);
        }
        if text.len() > Self::MAX {
            return Err(InvalidTarget::HostTooLong(text.len()));
        }
        let bare = text.strip_suffix('.').unwrap_or(text);
        let valid = bare.split('.').all(|label| {
            (1..=Self::MAX_LABEL).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        });
        if !valid {
            return Err(InvalidTarget::Host(excerpt(text)));
        }
        if ends_in_number(bare) {
            return Err(InvalidTarget::NumericName(excerpt(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for DnsName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl UnixPath {
    /// The longest path, in bytes: `sun_path` less its terminating zero (unix(7)).
    pub const MAX: usize = 107;

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UnixPath {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let normal = |path: &str| {
            path.split('/')
                .all(|part| !matches!(part, "" | "." | "..") && !part.contains(char::is_control))
        };
        let valid = text.len() <= Self::MAX && text.strip_prefix('/').is_some_and(normal);
        if !valid {
            return Err(InvalidTarget::Path(excerpt(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for UnixPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<Path> for UnixPath {
    fn as_ref(&self) -> &Path {
        self.0.as_ref()
    }
}

/// Whether a resolver that follows inet_aton(3) would take the name for an address: its last label is a
/// decimal or hexadecimal number. Such a name would slip past rules about addresses.
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Enough of a peer's text to recognise it in an error message.
fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}
