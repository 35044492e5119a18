//! The target dialer: how an agent reaches what a stream asks for.
//!
//! Names are resolved here, on the agent, and policy is asked about each *address* that comes out. Exactly the
//! addresses that passed are dialled, so a name cannot lead to a forbidden one.

mod eyeballs;
mod refusal;
mod resolve;
mod socket;

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpSocket, TcpStream, UnixStream},
    time::{Instant, sleep, timeout_at},
};
use tunnel_proto::{DnsName, Host, HostPort, Refusal, RefusalKind, Target, UnixPath};

pub use self::{
    eyeballs::{ATTEMPT_DELAY, interleave, race},
    resolve::{Resolve, SystemResolver},
    socket::TargetSocket,
};
use crate::time::after;

/// The most addresses of one name that are tried; a name with more is a mistake or an attack.
const MAX_ADDRESSES: usize = 16;

/// How long to wait when a Unix socket's queue of pending connections is full.
const BACKLOG_RETRY: Duration = Duration::from_millis(20);

/// How targets are dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TargetDialOptions {
    /// How long resolving and connecting may take together; a stream's own deadline can only shorten it. 5 seconds by
    /// default: time for two lost SYNs to be sent again, and less than the patience of most clients.
    pub timeout: Duration,
    /// How long a connection attempt may take before one to the next address is started beside it.
    /// [`ATTEMPT_DELAY`] by default.
    pub attempt_delay: Duration,
    /// Whether to switch Nagle's algorithm off. On by default: the relay coalesces already.
    pub nodelay: bool,
    /// How long a TCP target may be silent before keepalive probes it, at intervals of a third of this time; a target
    /// that leaves three probes unanswered is dead. 30 seconds by default, so that a target that vanished is found in
    /// one minute and the state of firewalls on the way stays alive; `None` switches keepalive off.
    pub keepalive: Option<Duration>,
}

impl Default for TargetDialOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            attempt_delay: ATTEMPT_DELAY,
            nodelay: true,
            keepalive: Some(Duration::from_secs(30)),
        }
    }
}

/// Dials targets: TCP with happy eyeballs (RFC 8305), and Unix sockets.
#[derive(Clone, Debug)]
pub struct TargetDialer {
    options: TargetDialOptions,
    resolver: Arc<dyn Resolve>,
}

impl Default for TargetDialer {
    fn default() -> Self {
        Self::new(TargetDialOptions::default())
    }
}

impl TargetDialer {
    /// A dialer that resolves names as the system does.
    #[must_use]
    pub fn new(options: TargetDialOptions) -> Self {
        Self::with_resolver(options, Arc::new(SystemResolver::default()))
    }

    /// A dialer that resolves names by `resolver`.
    #[must_use]
    pub fn with_resolver(options: TargetDialOptions, resolver: Arc<dyn Resolve>) -> Self {
        Self { options, resolver }
    }

    /// Connects to a target. `within` is the stream's own deadline, if it has one; `permit` is asked about each
    /// address, in canonical form, before it is dialled. The caller has asked its policy about the target as such: a
    /// Unix socket's path is not asked about again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes what has been opened; a lookup that the system has begun ends in its own time.
    pub async fn dial<E: fmt::Display>(
        &self,
        target: &Target,
        within: Option<Duration>,
        permit: impl Fn(IpAddr) -> Result<(), E> + Send + Sync,
    ) -> Result<TargetSocket, Refusal> {
        let limit = within.unwrap_or(Duration::MAX).min(self.options.timeout);
        match target {
            Target::Tcp(host_port) => {
                let dial = TcpDial {
                    dialer: self,
                    target,
                    limit,
                    deadline: deadline(limit),
                };
                dial.run(host_port, permit).await.map(TargetSocket::Tcp)
            }
            Target::Unix(path) => dial_unix(target, path, limit).await.map(TargetSocket::Unix),
            Target::Udp(_) => Err(Refusal::new(
                RefusalKind::HttpRequestError,
                format!("cannot reach {target}: this agent does not support UDP"),
            )),
            _ => Err(Refusal::new(
                RefusalKind::HttpRequestError,
                format!("cannot reach {target}: this agent does not know this kind of target"),
            )),
        }
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let socket = match addr {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_nodelay(self.options.nodelay)?;
        if let Some(time) = self.options.keepalive {
            // The kernel counts in seconds and refuses zero.
            let keepalive = TcpKeepalive::new()
                .with_time(time.max(Duration::from_secs(1)))
                .with_interval((time / 3).max(Duration::from_secs(1)))
                .with_retries(3);
            SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
        }
        socket.connect(addr).await
    }
}

/// One dial over TCP.
struct TcpDial<'a> {
    dialer: &'a TargetDialer,
    target: &'a Target,
    /// For messages.
    limit: Duration,
    deadline: Instant,
}

impl TcpDial<'_> {
    async fn run<E: fmt::Display>(
        &self,
        host_port: &HostPort,
        permit: impl Fn(IpAddr) -> Result<(), E>,
    ) -> Result<TcpStream, Refusal> {
        let ips = match host_port.host() {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => self.resolve(name).await?,
            _ => return Err(self.refuse(RefusalKind::HttpRequestError, "its host is of an unknown kind")),
        };
        let permitted = self.permitted(ips, permit)?;
        let addrs = interleave(permitted)
            .into_iter()
            .map(|ip| SocketAddr::new(ip, host_port.port()));
        self.race(addrs.take(MAX_ADDRESSES).collect()).await
    }

    async fn resolve(&self, name: &DnsName) -> Result<Vec<IpAddr>, Refusal> {
        let resolved = timeout_at(self.deadline, self.dialer.resolver.resolve(name)).await;
        match resolved {
            Ok(Ok(ips)) if ips.is_empty() => Err(self.refuse(RefusalKind::DnsError, "the name has no address")),
            Ok(Ok(ips)) => Ok(ips),
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                Err(self.refuse(RefusalKind::DnsTimeout, "the resolver did not answer in time"))
            }
            Ok(Err(error)) => Err(self.refuse(RefusalKind::DnsError, &error.to_string())),
            Err(_) => {
                let what = format!("the name was not resolved within {:?}", self.limit);
                Err(self.refuse(RefusalKind::DnsTimeout, &what))
            }
        }
    }

    /// The addresses that may be dialled, each once.
    fn permitted<E: fmt::Display>(
        &self,
        ips: Vec<IpAddr>,
        permit: impl Fn(IpAddr) -> Result<(), E>,
    ) -> Result<Vec<IpAddr>, Refusal> {
        let mut permitted = Vec::new();
        let mut denied = None;
        for ip in ips {
            // An IPv4-mapped address is dialled as, and must be judged as, the IPv4 address that it means.
            let ip = ip.to_canonical();
            match permit(ip) {
                Ok(()) if permitted.contains(&ip) => {}
                Ok(()) => permitted.push(ip),
                Err(reason) => {
                    denied.get_or_insert_with(|| format!("the agent's policy forbids {ip}: {reason}"));
                }
            }
        }
        match denied {
            Some(denied) if permitted.is_empty() => Err(self.refuse(RefusalKind::DestinationIpProhibited, &denied)),
            _ => Ok(permitted),
        }
    }

    async fn race(&self, addrs: Vec<SocketAddr>) -> Result<TcpStream, Refusal> {
        let mut failures = Vec::new();
        let attempts = addrs.clone().into_iter().map(|addr| async move {
            let connected = self.dialer.connect(addr).await;
            connected.map_err(|error| (addr, error))
        });
        let race = race(attempts, self.dialer.options.attempt_delay, |failure| {
            failures.push(failure);
        });
        match timeout_at(self.deadline, race).await {
            Ok(Some(stream)) => Ok(stream),
            Ok(None) => {
                let (kind, what) = refusal::of_failures(&failures);
                Err(self.refuse(kind, &what))
            }
            Err(_) => {
                let what = refusal::of_timeout(&addrs, &failures, self.limit);
                Err(self.refuse(RefusalKind::ConnectionTimeout, &what))
            }
        }
    }

    fn refuse(&self, kind: RefusalKind, what: &str) -> Refusal {
        refuse(self.target, kind, what)
    }
}

async fn dial_unix(target: &Target, path: &UnixPath, limit: Duration) -> Result<UnixStream, Refusal> {
    let connect = async {
        loop {
            match UnixStream::connect(path).await {
                // The kernel says so when the listener's queue is full, and nothing tells when it no longer is.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(BACKLOG_RETRY).await,
                connected => return connected,
            }
        }
    };
    match timeout_at(deadline(limit), connect).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(refuse(target, refusal::kind_of_unix(&error), &error.to_string())),
        Err(_) => {
            let what = format!("it did not accept within {limit:?}");
            Err(refuse(target, RefusalKind::ConnectionTimeout, &what))
        }
    }
}

/// When a limit that begins now is over.
fn deadline(limit: Duration) -> Instant {
    after(Instant::now(), limit)
}

fn refuse(target: &Target, kind: RefusalKind, what: &str) -> Refusal {
    Refusal::new(kind, format!("cannot reach {target}: {what}"))
}
