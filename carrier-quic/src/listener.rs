//! The server's side: a listener and the attempts to connect that it yields.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use aws_lc_rs::hmac;
use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, crypto::rustls::QuicServerConfig};
use quinn_proto::HashedConnectionIdGenerator;
use tunnel_core::{
    AcceptError, Admission, Admitted, Arrival, CloseCode, Connection, ConnectionError, HandshakeError, Incoming,
    Listener, Peer,
};
use tunnel_tls::ServerTls;

use crate::{
    ALPN, InvalidConfig, NAME,
    config::QuicConfig,
    connection::QuicConnection,
    control::Control,
    error::connection_error,
    handshake::{self, Disagreement},
    reports::PortReports,
    socket,
    tls_alert::explain,
};

/// How many first packets of connections that nobody has looked at wait, at most; each may hold 64 KiB.
const MAX_INCOMING: usize = 1024;

/// Listens for agents on a UDP socket.
///
/// Dropping it turns further attempts away; connections that are established stay.
#[derive(Debug)]
pub struct QuicListener {
    quic: Endpoint,
    reports: PortReports,
    config: Arc<QuicConfig>,
    /// What there is to a connection, but for the way to its peer, if packets take the ways of this system.
    routed: Option<ServerConfig>,
    pending: Arc<AtomicUsize>,
}

impl QuicListener {
    /// Binds `addr`. An IPv6 wildcard address takes IPv4 as well. It must be called inside a tokio runtime.
    pub fn bind(addr: SocketAddr, tls: &ServerTls, config: QuicConfig) -> io::Result<Self> {
        Self::with_socket(socket::bind(addr, config.socket_buffer)?, tls, config)
    }

    /// Takes a socket that is bound, for example one of several that share a port.
    pub fn with_socket(socket: UdpSocket, tls: &ServerTls, config: QuicConfig) -> io::Result<Self> {
        let reports = PortReports::new();
        let socket = socket::wrap(socket, &reports)?;
        let mut endpoint = endpoint_config(tls);
        config.takes(&mut endpoint);
        let mut listener = Self::new(endpoint, socket, reports, tls, config)?;
        listener.routed = Some(server_config(tls, &listener.config)?);
        Ok(listener)
    }

    /// Takes anything that behaves like a UDP socket, for example a simulated one.
    pub fn with_abstract_socket(
        endpoint: EndpointConfig,
        socket: Arc<dyn AsyncUdpSocket>,
        tls: &ServerTls,
        config: QuicConfig,
    ) -> io::Result<Self> {
        let reports = PortReports::new();
        let socket = reports.wrap(socket);
        Self::new(endpoint, socket, reports, tls, config)
    }

    fn new(
        endpoint: EndpointConfig,
        socket: Arc<dyn AsyncUdpSocket>,
        reports: PortReports,
        tls: &ServerTls,
        config: QuicConfig,
    ) -> io::Result<Self> {
        let server = Some(server_config(tls, &config)?);
        let quic = Endpoint::new_with_abstract_socket(endpoint, server, socket, Arc::new(TokioRuntime))?;
        Ok(Self {
            quic,
            reports,
            config: Arc::new(config),
            routed: None,
            pending: Arc::default(),
        })
    }

    /// Where an abstract socket reports that nobody has a peer's port any more.
    #[must_use]
    pub fn port_reports(&self) -> &PortReports {
        &self.reports
    }

    /// Waits until no connection is left, and their ends have been told to the peers.
    pub async fn wait_idle(&self) {
        self.quic.wait_idle().await;
    }
}

/// Stateless resets (RFC 9000 §10.3) and the connection ids that they answer are made with keys that outlive the
/// process: agents of a server that died learn of it from their next packet to its successor, and not from silence.
fn endpoint_config(tls: &ServerTls) -> EndpointConfig {
    let reset = tls.derive_secret("quic stateless reset");
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset)));
    let mut id = [0; 8];
    id.copy_from_slice(&tls.derive_secret("quic connection id")[..8]);
    let id = u64::from_be_bytes(id);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id)));
    config
}

fn server_config(tls: &ServerTls, config: &QuicConfig) -> io::Result<ServerConfig> {
    let crypto = QuicServerConfig::try_from(tls.quic_config(&[ALPN])).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            InvalidConfig {
                setting: "tls",
                problem: "lacks the cipher suite of QUIC's first packets",
            },
        )
    })?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(config.transport(None))
        .migration(config.migration)
        .max_incoming(MAX_INCOMING);
    Ok(server)
}

#[async_trait]
impl Listener for QuicListener {
    fn name(&self) -> &'static str {
        NAME
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError> {
        loop {
            let incoming = self.quic.accept().await.ok_or(AcceptError::Closed)?;
            let crowded = self.pending.load(Ordering::Relaxed) >= self.config.retry_threshold;
            if crowded && !incoming.remote_address_validated() && incoming.may_retry() {
                // It fails only for those that were validated.
                let _ = incoming.retry();
                continue;
            }
            return Ok(Box::new(QuicIncoming {
                quic: incoming,
                reports: self.reports.clone(),
                config: Arc::clone(&self.config),
                routed: self.routed.clone(),
                pending: Pending::new(&self.pending),
            }));
        }
    }
}

impl Drop for QuicListener {
    fn drop(&mut self) {
        self.quic.set_server_config(None);
    }
}

/// A handshake that is counted while it is pending.
#[derive(Debug)]
struct Pending(Arc<AtomicUsize>);

impl Pending {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A first packet from an address.
#[derive(Debug)]
struct QuicIncoming {
    quic: quinn::Incoming,
    reports: PortReports,
    config: Arc<QuicConfig>,
    routed: Option<ServerConfig>,
    pending: Pending,
}

#[async_trait]
impl Incoming for QuicIncoming {
    fn remote_addr(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    async fn handshake(self: Box<Self>, admission: &dyn Admission) -> Result<Arc<dyn Connection>, HandshakeError> {
        let Self {
            quic,
            reports,
            config,
            routed,
            pending: _pending,
        } = *self;
        let remote_addr = quic.remote_address();
        let accepted = match routed {
            Some(mut server) => {
                server.transport_config(config.transport(socket::largest_payload(remote_addr)));
                quic.accept_with(Arc::new(server))
            }
            None => quic.accept(),
        };
        let quic = accepted.map_err(|error| failure(error, &config))?;
        // A peer that falls silent before it has a connection ends with QUIC's idle timeout.
        let quic = quic.await.map_err(|error| failure(error, &config))?;

        let admitted = tokio::time::timeout(config.handshake_timeout, agree(&quic, remote_addr, admission)).await;
        let (peer, control) = match admitted {
            Ok(Ok(agreed)) => agreed,
            Ok(Err(Refused::Error(error))) => return Err(error),
            Ok(Err(Refused::Disagreement(disagreement))) => {
                return Err(match disagreement {
                    Disagreement::Rejected(rejection) => HandshakeError::Rejected(rejection),
                    Disagreement::Protocol(detail) => HandshakeError::Protocol { detail },
                    Disagreement::Lost(error) => failure(error, &config),
                });
            }
            Err(_) => {
                let reason = "no claim was accepted in time".into();
                handshake::close(&quic, CloseCode::TIMEOUT, &reason);
                return Err(HandshakeError::Lost(ConnectionError::local(CloseCode::TIMEOUT, reason)));
            }
        };
        Ok(QuicConnection::start(quic, &config, control, peer, reports))
    }

    fn refuse(self: Box<Self>) {
        self.quic.refuse();
    }
}

/// Why there is no agreement.
enum Refused {
    Disagreement(Disagreement),
    Error(HandshakeError),
}

impl From<Disagreement> for Refused {
    fn from(disagreement: Disagreement) -> Self {
        Self::Disagreement(disagreement)
    }
}

/// Reads the claim, has it judged and tells the agent.
async fn agree(
    quic: &quinn::Connection,
    remote_addr: SocketAddr,
    admission: &dyn Admission,
) -> Result<(Peer, Control), Refused> {
    let identity = handshake::identity(quic).map_err(|error| {
        let explanation = error.to_string();
        handshake::close(quic, CloseCode::UNAUTHORIZED, &explanation.as_str().into());
        Refused::Error(HandshakeError::Tls {
            explanation,
            source: Arc::new(error),
        })
    })?;
    let (claim, mut control) = handshake::read_claim(quic).await?;
    let arrival = Arrival::new(NAME, remote_addr, identity, claim);
    let Admitted { identity, welcome } = match admission.admit(&arrival).await {
        Ok(admitted) => admitted,
        Err(rejection) => {
            handshake::reject(quic, control.tx, &rejection).await;
            return Err(Disagreement::Rejected(rejection).into());
        }
    };
    handshake::welcome(&mut control, &welcome).await?;
    Ok((arrival.into_peer(identity), control))
}

fn failure(error: quinn::ConnectionError, config: &QuicConfig) -> HandshakeError {
    match explain(&error) {
        Some(explanation) => HandshakeError::Tls {
            explanation,
            source: Arc::new(error),
        },
        None => HandshakeError::Lost(connection_error(error, None, config.keepalive.bound())),
    }
}
