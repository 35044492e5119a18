//! The socket that an agent dials from.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, TokioRuntime};

use crate::{config::QuicConfig, reports::PortReports, socket};

/// A UDP socket that carriers dial from, with the task that serves it.
///
/// Any number of [`QuicCarrier`](crate::QuicCarrier)s and connections may share one; several make use of several
/// cores, because one task serves each socket. Clones are handles of the same socket. It must be made inside a tokio
/// runtime, and its connections last no longer than that runtime.
#[derive(Clone, Debug)]
pub struct ClientEndpoint {
    pub(crate) quic: Endpoint,
    pub(crate) reports: PortReports,
    /// Whether packets take the ways of this system.
    routed: bool,
}

impl ClientEndpoint {
    /// Binds a socket to any port, for IPv4 and IPv6 where the system has both.
    pub fn bind(config: &QuicConfig) -> io::Result<Self> {
        Self::with_socket(socket::bind_any(config.socket_buffer)?, config)
    }

    /// Takes a socket that is bound.
    pub fn with_socket(socket: UdpSocket, config: &QuicConfig) -> io::Result<Self> {
        let reports = PortReports::new();
        let socket = socket::wrap(socket, &reports)?;
        let mut endpoint = EndpointConfig::default();
        config.takes(&mut endpoint);
        Self::new(endpoint, socket, reports, true)
    }

    /// Takes anything that behaves like a UDP socket, for example a simulated one. What its `try_send` fails to send is lost
    /// and no worse, except to a dial: that ends when nothing has been sent for it for half a second.
    pub fn with_abstract_socket(config: EndpointConfig, socket: Arc<dyn AsyncUdpSocket>) -> io::Result<Self> {
        let reports = PortReports::new();
        let socket = reports.wrap(socket);
        Self::new(config, socket, reports, false)
    }

    fn new(
        config: EndpointConfig,
        socket: Arc<dyn AsyncUdpSocket>,
        reports: PortReports,
        routed: bool,
    ) -> io::Result<Self> {
        let quic = Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(TokioRuntime))?;
        Ok(Self { quic, reports, routed })
    }

    /// The largest UDP payload that the way to `remote` may carry, if that is known.
    pub(crate) fn way(&self, remote: SocketAddr) -> Option<u16> {
        self.routed.then(|| socket::largest_payload(remote)).flatten()
    }

    /// Where an abstract socket reports that nobody has a peer's port any more.
    #[must_use]
    pub fn port_reports(&self) -> &PortReports {
        &self.reports
    }

    /// Moves to a fresh socket, and its connections with it, for example when the machine has changed its network.
    pub fn rebind(&self, config: &QuicConfig) -> io::Result<()> {
        let socket = socket::bind_any(config.socket_buffer)?;
        self.quic.rebind_abstract(socket::wrap(socket, &self.reports)?)
    }

    /// Waits until no connection is left, and their ends have been told to the peers.
    pub async fn wait_idle(&self) {
        self.quic.wait_idle().await;
    }
}
