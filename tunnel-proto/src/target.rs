//! Where a stream should end.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
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
    /// The absolute path of a Unix stream socket on the agent's machine.
    Unix(String),
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
    /// An address; an IPv4-mapped IPv6 address is kept as the IPv4 address that it means.
    Ip(IpAddr),
    /// A DNS name of 1 to 255 bytes as it was written; compare it without regard to case.
    Name(String),
}

/// The text is not a target; the message quotes the part that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTarget {
    /// The text has no known scheme.
    #[error("a target starts with tcp://, udp:// or unix://")]
    Scheme,
    /// There is no port, or no number in its place.
    #[error("the target needs a port from 1 to 65535 after its host, as in host:443")]
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
    /// The path is not absolute, too long for a socket address, or holds a zero byte.
    #[error("{0:?} is not an absolute socket path of at most 107 bytes")]
    Path(String),
}

/// The longest host name, in bytes.
pub(crate) const MAX_NAME: usize = 255;
/// The longest socket path: `sun_path` less its terminating zero (unix(7)).
pub(crate) const MAX_PATH: usize = 107;

impl Target {
    /// A TCP target from an authority, `host:port`, as in the request target of HTTP CONNECT (RFC 9110 §9.3.6).
    pub fn from_authority(authority: &str) -> Result<Self, InvalidTarget> {
        authority.parse().map(Self::Tcp)
    }

    /// A Unix socket target.
    pub fn unix(path: impl Into<String>) -> Result<Self, InvalidTarget> {
        let path = path.into();
        if !path.starts_with('/') || path.len() > MAX_PATH || path.contains('\0') {
            return Err(InvalidTarget::Path(path));
        }
        Ok(Self::Unix(path))
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

impl From<SocketAddr> for Target {
    /// A TCP target; a port of zero is kept and refused when it is dialled.
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(HostPort {
            host: addr.ip().into(),
            port: addr.port(),
        })
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

    /// The port, never zero unless it came from a [`SocketAddr`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for HostPort {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidTarget::Port)?;
        // `u16::from_str` would take a sign.
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
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
        if text.is_empty() {
            return Err(InvalidTarget::NoHost);
        }
        if text.len() > MAX_NAME {
            return Err(InvalidTarget::HostTooLong(text.len()));
        }
        if let Ok(ip) = text.parse::<std::net::Ipv4Addr>() {
            return Ok(Self::Ip(ip.into()));
        }
        if text.contains(':') {
            return Err(InvalidTarget::Ipv6(excerpt(text)));
        }
        let bare = text.strip_suffix('.').unwrap_or(text);
        let valid = bare.split('.').all(|label| {
            !label.is_empty()
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
        Ok(Self::Name(text.to_owned()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
        }
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
