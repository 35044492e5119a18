//! Dialling by TCP.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tunnel_core::{
    DialError, Host, HostPort, Resolve, SystemResolver,
    dial::{ATTEMPT_DELAY, interleave, race},
};

use crate::{
    BoxIo, Dial, Dialled, Proxies, Proxy, SocketOptions,
    proxy::{Destination, Refused, Scheme, connect, socks},
};

/// The most addresses of one name that are tried; a name with more is a mistake.
const MAX_ADDRESSES: usize = 16;

/// Dials servers by TCP, trying several addresses as RFC 8305 asks.
#[derive(Clone, Debug)]
pub struct TcpDialer {
    options: SocketOptions,
    proxies: Proxies,
    resolver: Arc<dyn Resolve>,
}

impl TcpDialer {
    /// A dialer that resolves names as the system does.
    #[must_use]
    pub fn new(options: SocketOptions, proxies: Proxies) -> Self {
        Self::with_resolver(options, proxies, Arc::new(SystemResolver::default()))
    }

    /// A dialer that resolves names by `resolver`.
    #[must_use]
    pub fn with_resolver(options: SocketOptions, proxies: Proxies, resolver: Arc<dyn Resolve>) -> Self {
        Self {
            options,
            proxies,
            resolver,
        }
    }

    /// The addresses of a host, in the order in which to try them.
    async fn resolve(&self, to: Hop<'_>) -> Result<Vec<SocketAddr>, DialError> {
        let host_port = to.host_port();
        let ips = match host_port.host() {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => {
                let failed = |source| DialError::Resolve {
                    host: to.name(),
                    source,
                };
                let ips = self.resolver.resolve(name).await.map_err(failed)?;
                if ips.is_empty() {
                    return Err(failed(io::Error::new(
                        io::ErrorKind::NotFound,
                        "the name has no address",
                    )));
                }
                let mut once = Vec::with_capacity(ips.len());
                for ip in ips.iter().map(IpAddr::to_canonical) {
                    if !once.contains(&ip) {
                        once.push(ip);
                    }
                }
                interleave(once)
            }
            host => return Err(DialError::Unusable(format!("{host} is a host of an unknown kind"))),
        };
        let addrs = ips.into_iter().map(|ip| SocketAddr::new(ip, host_port.port()));
        Ok(addrs.take(MAX_ADDRESSES).collect())
    }

    /// Connects to the first address that answers.
    async fn connect(&self, to: Hop<'_>) -> Result<(TcpStream, SocketAddr), DialError> {
        let addrs = self.resolve(to).await?;
        let attempts = addrs.into_iter().map(|addr| async move {
            let connected = self.connect_to(addr).await;
            connected.map(|socket| (socket, addr)).map_err(|error| (addr, error))
        });
        let mut failure = None;
        let connected = race(attempts, ATTEMPT_DELAY, |(addr, error)| {
            tracing::debug!(%to, %addr, %error, "an address does not work");
            if failure.as_ref().is_none_or(|(_, known)| tells_more(&error, known)) {
                failure = Some((addr, error));
            }
        });
        let connected = connected.await;
        connected.ok_or_else(|| match failure {
            Some((addr, error)) => DialError::Unreachable {
                remote: to.describe(addr),
                source: Arc::new(error),
            },
            None => DialError::TimedOut { remote: to.to_string() },
        })
    }

    async fn dial_through(&self, proxy: &Proxy, server: &HostPort) -> Result<Dialled, DialError> {
        tracing::debug!(%server, %proxy, "dialling through a proxy");
        let (io, remote_addr) = match proxy.scheme() {
            Scheme::Http => self.dial_through_http(proxy, server).await?,
            Scheme::Socks5h => {
                let dialled = self.dial_through_socks(proxy, Destination::Named(server)).await?;
                dialled.map_err(|refused| refused.failure.of(proxy))?
            }
            Scheme::Socks5 => self.dial_addresses_through_socks(proxy, server).await?,
        };
        Ok(Dialled {
            io,
            remote_addr,
            via: Some(proxy.to_string()),
        })
    }

    async fn dial_through_http(&self, proxy: &Proxy, server: &HostPort) -> Result<(BoxIo, SocketAddr), DialError> {
        let (socket, addr) = self.connect(Hop::Proxy(proxy)).await?;
        match connect(self.options.congestion.pipe(socket), server, proxy.credentials()).await {
            Ok(io) if io.buffer().is_empty() => Ok((io.into_inner(), addr)),
            Ok(io) => Ok((Box::new(io), addr)),
            Err(failure) => Err(failure.of(proxy)),
        }
    }

    /// Tries the addresses of a server one after another, for a proxy may lack one of the families.
    async fn dial_addresses_through_socks(
        &self,
        proxy: &Proxy,
        server: &HostPort,
    ) -> Result<(BoxIo, SocketAddr), DialError> {
        let mut first = None;
        for addr in self.resolve(Hop::Server(server)).await? {
            let destination = Destination::Address(addr.ip(), addr.port());
            match self.dial_through_socks(proxy, destination).await? {
                Ok(dialled) => return Ok(dialled),
                Err(refused) => {
                    tracing::debug!(%server, %addr, %proxy, explanation = refused.failure.explanation, "no connection");
                    let is_last = !refused.try_next;
                    first.get_or_insert(refused.failure);
                    if is_last {
                        break;
                    }
                }
            }
        }
        Err(match first {
            Some(failure) => failure.of(proxy),
            None => DialError::TimedOut {
                remote: server.to_string(),
            },
        })
    }

    async fn dial_through_socks(
        &self,
        proxy: &Proxy,
        destination: Destination<'_>,
    ) -> Result<Result<(BoxIo, SocketAddr), Refused>, DialError> {
        let (mut socket, addr) = self.connect(Hop::Proxy(proxy)).await?;
        let asked = socks(&mut socket, destination, proxy.credentials()).await;
        Ok(asked.map(|()| (self.options.congestion.pipe(socket), addr)))
    }

    async fn connect_to(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let socket = match addr {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        self.options.apply(SockRef::from(&socket));
        socket.connect(addr).await
    }
}

#[async_trait]
impl Dial for TcpDialer {
    async fn dial(&self, server: &HostPort) -> Result<Dialled, DialError> {
        if let Some(proxy) = self.proxies.proxy_for(server) {
            return self.dial_through(proxy, server).await;
        }
        let (socket, remote_addr) = self.connect(Hop::Server(server)).await?;
        Ok(Dialled {
            io: self.options.congestion.pipe(socket),
            remote_addr,
            via: None,
        })
    }
}

/// Whether an error says more about a host than one that is known: what the host itself said counts more than silence,
/// and silence more than the lack of a way, which is common for one family of addresses.
fn tells_more(error: &io::Error, known: &io::Error) -> bool {
    let rank = |error: &io::Error| match error.kind() {
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::Unsupported => 0,
        io::ErrorKind::TimedOut => 1,
        _ => 2,
    };
    rank(error) > rank(known)
}

/// What is connected to.
#[derive(Clone, Copy, Debug)]
enum Hop<'a> {
    Server(&'a HostPort),
    Proxy(&'a Proxy),
}

impl Hop<'_> {
    fn host_port(&self) -> &HostPort {
        match self {
            Self::Server(server) => server,
            Self::Proxy(proxy) => proxy.host_port(),
        }
    }

    /// What the resolver could not resolve.
    fn name(&self) -> String {
        match self {
            Self::Server(server) => server.host().to_string(),
            Self::Proxy(proxy) => format!("the name of the proxy {proxy}"),
        }
    }

    /// What it was named and, if that was not an address, the address that was tried.
    fn describe(&self, addr: SocketAddr) -> String {
        match self.host_port().host() {
            Host::Ip(_) => self.to_string(),
            _ => format!("{self} ({addr})"),
        }
    }
}

impl fmt::Display for Hop<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(server) => server.fmt(f),
            Self::Proxy(proxy) => write!(f, "the proxy {proxy}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tunnel_core::proto::DnsName;

    use super::*;
    use crate::{Accept, TcpAcceptor};

    /// Knows the answer to every name, or none.
    #[derive(Debug)]
    enum Fake {
        Addresses(Vec<IpAddr>),
        Error(io::ErrorKind),
        Silent,
    }

    #[async_trait]
    impl Resolve for Fake {
        async fn resolve(&self, _name: &DnsName) -> io::Result<Vec<IpAddr>> {
            match self {
                Self::Addresses(ips) => Ok(ips.clone()),
                Self::Error(kind) => Err((*kind).into()),
                Self::Silent => pending().await,
            }
        }
    }

    fn ips(text: &[&str]) -> Fake {
        Fake::Addresses(text.iter().map(|ip| ip.parse().unwrap()).collect())
    }

    fn dialer(fake: Fake) -> TcpDialer {
        TcpDialer::with_resolver(SocketOptions::default(), Proxies::none(), Arc::new(fake))
    }

    fn acceptor() -> TcpAcceptor {
        TcpAcceptor::bind(([127, 0, 0, 1], 0).into(), SocketOptions::default()).unwrap()
    }

    fn server(host: &str, port: u16) -> HostPort {
        HostPort::new(host.parse().unwrap(), port).unwrap()
    }

    #[tokio::test]
    async fn a_pipe_reaches_who_listens() {
        let mut acceptor = acceptor();
        let addr = acceptor.local_addr().unwrap();
        let dialer = TcpDialer::new(SocketOptions::default(), Proxies::none());
        let server = server("localhost", addr.port());
        let (dialled, accepted) = tokio::join!(dialer.dial(&server), acceptor.accept());
        let (mut dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        assert_eq!(dialled.remote_addr, addr);
        assert_eq!(dialled.via, None);
        assert_eq!(accepted.remote_addr.ip(), addr.ip());
        let mut far = accepted.open().unwrap();
        assert!(dialled.io.is_write_vectored() && far.is_write_vectored());
        dialled.io.write_all(b"hello").await.unwrap();
        dialled.io.shutdown().await.unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses() {
        let acceptor = acceptor();
        let addr = acceptor.local_addr().unwrap();
        // Nobody listens on the second address of loopback.
        let dialer = dialer(ips(&["127.0.0.2", "::ffff:127.0.0.2", "127.0.0.1"]));
        let dialled = dialer.dial(&server("gw.example", addr.port())).await.unwrap();
        assert_eq!(dialled.remote_addr, addr);
    }

    #[tokio::test]
    async fn a_server_that_refuses_is_named_with_its_address() {
        let port = acceptor().local_addr().unwrap().port();
        let dialer = dialer(ips(&["127.0.0.1", "127.0.0.2"]));
        let error = dialer.dial(&server("gw.example", port)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot reach gw.example:{port} (127.0.0.1:{port})")
        );
        assert!(matches!(error, DialError::Unreachable { .. }) && error.is_retryable());
        let error = dialer.dial(&server("127.0.0.1", port)).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot reach 127.0.0.1:{port}"));
    }

    #[test]
    fn the_most_telling_failure_speaks() {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, PermissionDenied, TimedOut};
        let more = |error: io::ErrorKind, known: io::ErrorKind| tells_more(&error.into(), &known.into());
        assert!(more(ConnectionRefused, TimedOut) && more(TimedOut, NetworkUnreachable));
        // Else the better address speaks.
        assert!(!more(HostUnreachable, NetworkUnreachable) && !more(PermissionDenied, ConnectionRefused));
        assert!(!more(NetworkUnreachable, ConnectionRefused));
    }

    #[tokio::test]
    async fn a_name_that_leads_nowhere_is_named() {
        for fake in [ips(&[]), Fake::Error(io::ErrorKind::NotFound)] {
            let error = dialer(fake).dial(&server("gw.example", 1)).await.unwrap_err();
            assert_eq!(error.to_string(), "cannot resolve gw.example");
            assert!(matches!(error, DialError::Resolve { .. }));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_caller_bounds_the_time() {
        let silent = dialer(Fake::Silent);
        let server = server("gw.example", 1);
        let dial = silent.dial(&server);
        tokio::time::timeout(std::time::Duration::from_secs(3600), dial)
            .await
            .unwrap_err();
    }

    #[tokio::test]
    async fn sockets_are_set_up() {
        let acceptor = acceptor();
        let port = acceptor.local_addr().unwrap().port();
        let dialer = dialer(ips(&["127.0.0.1"]));
        let (socket, _) = dialer.connect(Hop::Server(&server("gw.example", port))).await.unwrap();
        assert!(socket.nodelay().unwrap());
        assert_eq!(SockRef::from(&socket).tcp_notsent_lowat().unwrap(), 128 * 1024);
    }
}
