//! Dialling by TCP.

use std::{io, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tunnel_core::{
    DialError, Host, HostPort, Resolve, SystemResolver,
    dial::{ATTEMPT_DELAY, interleave, race},
};

use crate::{Dial, Dialled, Proxies, SocketOptions};

/// The most addresses of one name that are tried; a name with more is a mistake.
const MAX_ADDRESSES: usize = 16;

/// Dials servers by TCP, trying several addresses as RFC 8305 asks.
#[derive(Clone, Debug)]
pub struct TcpDialer {
    options: SocketOptions,
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
    pub fn with_resolver(options: SocketOptions, Proxies {}: Proxies, resolver: Arc<dyn Resolve>) -> Self {
        Self { options, resolver }
    }

    /// The addresses of a host, in the order in which to try them.
    async fn resolve(&self, to: &HostPort) -> Result<Vec<SocketAddr>, DialError> {
        let ips = match to.host() {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => {
                let failed = |source| DialError::Resolve {
                    host: name.to_string(),
                    source,
                };
                let mut ips: Vec<_> = self.resolver.resolve(name).await.map_err(failed)?;
                if ips.is_empty() {
                    return Err(failed(io::Error::new(
                        io::ErrorKind::NotFound,
                        "the name has no address",
                    )));
                }
                let mut seen = Vec::new();
                ips.retain(|ip| {
                    let new = !seen.contains(ip);
                    seen.push(*ip);
                    new
                });
                interleave(ips)
            }
            host => return Err(DialError::Unusable(format!("{host} is a host of an unknown kind"))),
        };
        let addrs = ips.into_iter().map(|ip| SocketAddr::new(ip, to.port()));
        Ok(addrs.take(MAX_ADDRESSES).collect())
    }

    /// Connects to the first address that answers.
    async fn connect(&self, to: &HostPort) -> Result<(TcpStream, SocketAddr), DialError> {
        let addrs = self.resolve(to).await?;
        let attempts = addrs.into_iter().map(|addr| async move {
            let connected = self.connect_to(addr).await;
            connected.map(|socket| (socket, addr)).map_err(|error| (addr, error))
        });
        let mut failure = None;
        let connected = race(attempts, ATTEMPT_DELAY, |(addr, error)| {
            tracing::debug!(%to, %addr, %error, "an address does not work");
            // The resolver put the best address first.
            failure.get_or_insert((addr, error));
        });
        let connected = connected.await;
        connected.ok_or_else(|| match failure {
            Some((addr, error)) => DialError::Unreachable {
                remote: describe(to, addr),
                source: Arc::new(error),
            },
            None => DialError::TimedOut { remote: to.to_string() },
        })
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
        let (socket, remote_addr) = self.connect(server).await?;
        Ok(Dialled {
            io: Box::new(socket),
            remote_addr,
            via: None,
        })
    }
}

/// A host as it was named and, if that was not an address, the address that was tried.
fn describe(to: &HostPort, addr: SocketAddr) -> String {
    match to.host() {
        Host::Ip(_) => to.to_string(),
        _ => format!("{to} ({addr})"),
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, net::IpAddr};

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
        let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
        assert_eq!(dialled.remote_addr, addr);
        assert_eq!(dialled.via, None);
        assert_eq!(accepted.remote_addr.ip(), addr.ip());
        assert!(dialled.io.is_write_vectored() && accepted.io.is_write_vectored());
        dialled.io.write_all(b"hello").await.unwrap();
        dialled.io.shutdown().await.unwrap();
        let mut text = String::new();
        accepted.io.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses() {
        let acceptor = acceptor();
        let addr = acceptor.local_addr().unwrap();
        // Nobody listens on the second address of loopback.
        let dialer = dialer(ips(&["127.0.0.2", "127.0.0.2", "127.0.0.1"]));
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
        let (socket, _) = dialer.connect(&server("gw.example", port)).await.unwrap();
        assert!(socket.nodelay().unwrap());
        assert_eq!(SockRef::from(&socket).tcp_notsent_lowat().unwrap(), 128 * 1024);
    }
}
