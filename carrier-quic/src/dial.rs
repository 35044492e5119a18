//! The agent's side: dialling a server.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use quinn::{ClientConfig, ConnectError, crypto::rustls::QuicClientConfig};
use tokio::{
    net::lookup_host,
    runtime::{self, Handle},
    time::{Instant, timeout_at},
};
use tunnel_core::{
    Carrier, Claim, CloseCode, Connection, DialError, Host, HostPort, Peer, PeerRole,
    dial::{ATTEMPT_DELAY, race},
};
use tunnel_tls::ClientTls;

use crate::{
    ALPN, ClientEndpoint, NAME,
    config::QuicConfig,
    connection::QuicConnection,
    error::connection_error,
    handshake::{self, Disagreement},
    reports::{PortReports, Watch},
    tls_alert::explain,
};

/// A connection that has passed its TLS handshake.
struct Connected {
    quic: quinn::Connection,
    addr: SocketAddr,
    reports: PortReports,
}

/// Dials one server over QUIC.
#[derive(Debug)]
pub struct QuicCarrier {
    server: HostPort,
    /// The name that the server's certificate must hold.
    server_name: String,
    client: ClientConfig,
    config: Arc<QuicConfig>,
    sockets: Mutex<Sockets>,
}

/// What a carrier dials from.
#[derive(Debug)]
enum Sockets {
    /// The socket that it was given.
    Given(ClientEndpoint),
    /// Its own: one for each runtime that has dialled, which serves it. Made by the first dial, and again when it has
    /// failed.
    Own(HashMap<runtime::Id, ClientEndpoint>),
}

impl Sockets {
    /// The socket for a dial of this runtime.
    fn get(&mut self, config: &QuicConfig) -> Result<ClientEndpoint, DialError> {
        let own = match self {
            Self::Given(endpoint) => return Ok(endpoint.clone()),
            Self::Own(own) => own,
        };
        let runtime = Handle::current().id();
        if let Some(endpoint) = own.get(&runtime) {
            return Ok(endpoint.clone());
        }
        let bound = ClientEndpoint::bind(config)
            .map_err(|error| DialError::Unusable(format!("cannot bind a UDP socket: {error}")))?;
        Ok(own.entry(runtime).or_insert(bound).clone())
    }

    /// The socket for a dial of this runtime has failed.
    fn discard(&mut self) {
        match self {
            Self::Given(_) => *self = Self::own(),
            Self::Own(own) => {
                own.remove(&Handle::current().id());
            }
        }
    }

    fn own() -> Self {
        Self::Own(HashMap::new())
    }
}

impl QuicCarrier {
    /// A carrier with sockets of its own: one for each runtime that dials, bound by its first dial, so that connections
    /// of several threads do not wait for one of them.
    ///
    /// Fails if the server's name cannot be verified or the TLS configuration lacks what QUIC needs.
    pub fn new(server: HostPort, tls: &ClientTls, config: QuicConfig) -> Result<Self, DialError> {
        let unusable = |problem: &str| DialError::Unusable(problem.to_owned());
        let server_name = tls
            .server_name(&server.host().to_string())
            .map_err(|error| DialError::Unusable(error.to_string()))?;
        let crypto = QuicClientConfig::try_from(tls.quic_config(&[ALPN]))
            .map_err(|_| unusable("the TLS configuration lacks the cipher suite of QUIC's first packets"))?;
        let client = ClientConfig::new(Arc::new(crypto));
        Ok(Self {
            server,
            server_name: server_name.to_str().into_owned(),
            client,
            config: Arc::new(config),
            sockets: Mutex::new(Sockets::own()),
        })
    }

    /// Dials from this socket, which may serve other carriers as well.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: ClientEndpoint) -> Self {
        self.sockets = Mutex::new(Sockets::Given(endpoint));
        self
    }

    /// The addresses of the server, in the resolver's order.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, DialError> {
        let port = self.server.port();
        let name = match self.server.host() {
            Host::Ip(ip) => return Ok(vec![(*ip, port).into()]),
            host => host.to_string(),
        };
        let failed = |source| DialError::Resolve {
            host: name.clone(),
            source,
        };
        let addrs: Vec<_> = lookup_host((name.as_str(), port)).await.map_err(failed)?.collect();
        if addrs.is_empty() {
            return Err(failed(std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "the name has no address",
            )));
        }
        Ok(addrs)
    }

    /// Connects to the first address that answers, up to the end of the TLS handshake. Only then is the claim sent, so
    /// that a server sees one at most.
    async fn connect_to_any(&self, addrs: Vec<SocketAddr>) -> Result<Connected, DialError> {
        let attempts = addrs.into_iter().map(|addr| async move {
            let remote = self.describe(addr);
            let (connecting, mut watch) = self.connect(addr, &remote)?;
            tokio::select! {
                biased;
                connected = connecting => match connected {
                    Ok(quic) => Ok(Connected { quic, addr, reports: watch.reports().clone() }),
                    Err(error) => Err(self.failure(error, &remote)),
                },
                why = watch.dead_end() => Err(unreachable(&remote, why)),
            }
        });
        let mut failure = None;
        let connected = race(attempts, ATTEMPT_DELAY, |error| {
            tracing::debug!(%error, "an address of the server does not work");
            // What a server said tells more than the silence of another address.
            let vague = matches!(
                failure,
                None | Some(DialError::TimedOut { .. } | DialError::Unreachable { .. })
            );
            if vague {
                failure = Some(error);
            }
        });
        match connected.await {
            Some(connected) => Ok(connected),
            None => Err(failure.unwrap_or_else(|| self.timed_out())),
        }
    }

    /// Claim and welcome on a connection that has passed its TLS handshake.
    async fn agree(
        &self,
        Connected { quic, addr, reports }: Connected,
        claim: &Claim,
    ) -> Result<Arc<dyn Connection>, DialError> {
        let remote = self.describe(addr);
        let identity = handshake::identity(&quic).map_err(|error| {
            let explanation = error.to_string();
            handshake::close(&quic, CloseCode::UNAUTHORIZED, &explanation.as_str().into());
            DialError::Tls {
                remote: remote.clone(),
                explanation,
                source: Arc::new(error),
            }
        })?;
        let agreed = handshake::introduce(&quic, claim).await;
        let (welcome, control) = agreed.map_err(|disagreement| match disagreement {
            Disagreement::Rejected(rejection) => DialError::Rejected {
                remote: remote.clone(),
                rejection,
            },
            Disagreement::Protocol(detail) => DialError::Protocol {
                remote: remote.clone(),
                detail,
            },
            // With TLS 1.3 a server looks at the client's certificate when the client is through already.
            Disagreement::Lost(error) => self.failure(error, &remote),
        })?;
        let peer = Peer {
            carrier: NAME,
            identity,
            role: PeerRole::Server(Box::new(welcome)),
            remote_addr: addr,
        };
        Ok(QuicConnection::start(quic, &self.config, control, peer, reports))
    }

    /// Begins to connect, and watches whether packets can arrive there.
    fn connect(&self, addr: SocketAddr, remote: &str) -> Result<(quinn::Connecting, Watch), DialError> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..2 {
            let endpoint = sockets.get(&self.config)?;
            let watch = endpoint.reports.watch(addr);
            let mut client = self.client.clone();
            client.transport_config(self.config.transport(endpoint.way(addr)));
            match endpoint.quic.connect_with(client, addr, &self.server_name) {
                Ok(connecting) => return Ok((connecting, watch)),
                Err(ConnectError::EndpointStopping) => sockets.discard(),
                Err(error) => return Err(unreachable(remote, error)),
            }
        }
        Err(unreachable(remote, ConnectError::EndpointStopping))
    }

    fn failure(&self, error: quinn::ConnectionError, remote: &str) -> DialError {
        let remote = remote.to_owned();
        if let Some(explanation) = explain(&error) {
            return DialError::Tls {
                remote,
                explanation,
                source: Arc::new(error),
            };
        }
        match error {
            quinn::ConnectionError::TimedOut => DialError::TimedOut { remote },
            quinn::ConnectionError::VersionMismatch => DialError::Protocol {
                remote,
                detail: "it does not speak QUIC version 1".to_owned(),
            },
            quinn::ConnectionError::ConnectionClosed(close)
                if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
            {
                unreachable(&remote, quinn::ConnectionError::ConnectionClosed(close))
            }
            error => DialError::Lost {
                remote,
                source: connection_error(error, None, self.config.keepalive.bound()),
            },
        }
    }

    fn timed_out(&self) -> DialError {
        DialError::TimedOut { remote: self.remote() }
    }

    /// The server as it was named and, if that was not an address, the address that is tried.
    fn describe(&self, addr: SocketAddr) -> String {
        match self.server.host() {
            Host::Ip(_) => self.remote(),
            _ => format!("{} ({addr})", self.remote()),
        }
    }
}

fn unreachable(remote: &str, error: impl std::error::Error + Send + Sync + 'static) -> DialError {
    DialError::Unreachable {
        remote: remote.to_owned(),
        source: Arc::new(error),
    }
}

#[async_trait]
impl Carrier for QuicCarrier {
    fn name(&self) -> &'static str {
        NAME
    }

    fn remote(&self) -> String {
        format!("{NAME}://{}", self.server)
    }

    /// Hardly: all connections of a listener share its socket, and what is under way on several makes small requests wait.
    fn gains_from_several(&self) -> bool {
        false
    }

    /// Tries the server's addresses a quarter of a second apart, and takes the first that answers (RFC 8305 §5).
    async fn dial(&self, claim: &Claim, deadline: Instant) -> Result<Arc<dyn Connection>, DialError> {
        let dialled = async {
            let addrs = self.resolve().await?;
            let connected = self.connect_to_any(addrs).await?;
            self.agree(connected, claim).await
        };
        match timeout_at(deadline, dialled).await {
            Ok(dialled) => dialled,
            Err(_) => Err(self.timed_out()),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use tunnel_core::Listener as _;
    use tunnel_testkit::{ends::Verdict, pki::Pki};

    use super::*;
    use crate::QuicListener;

    #[tokio::test]
    async fn packets_become_as_large_as_the_way_and_both_ends_take_them() {
        let pki = Pki::new();
        let mut listener =
            QuicListener::bind((Ipv4Addr::LOCALHOST, 0).into(), &pki.server(), QuicConfig::default()).unwrap();
        let addr = listener.local_addr().unwrap();
        let carrier =
            QuicCarrier::new(addr.to_string().parse().unwrap(), &pki.client(), QuicConfig::default()).unwrap();
        let server = tokio::spawn(async move {
            let incoming = listener.accept().await.unwrap();
            incoming.handshake(&Verdict::default()).await
        });
        let (connecting, _watch) = carrier.connect(addr, "the server").unwrap();
        let quic = connecting.await.unwrap();
        let discovered = async {
            while quic.stats().path.current_mtu < 6000 {
                tokio::task::yield_now().await;
            }
        };
        // It takes a few round trips.
        let discovered = tokio::time::timeout(Duration::from_secs(20), discovered).await;
        assert!(discovered.is_ok(), "{:?}", quic.stats().path);
        server.abort();
    }
}
