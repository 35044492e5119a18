//! A carrier on the mux: all that one has to do whose links have no headers.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};
use tunnel_core::{
    AcceptError, Admission, Arrival, Carrier, Claim, Connection, ConnectionError, DialError, HandshakeError, HostPort,
    Identity, Incoming, Listener, Peer, PeerRole,
    mux::{HandshakeFailure, MuxConfig, introduce, read_claim, reject, start, welcome},
};
use tunnel_tcp::{Accept, Accepted, Dial, Dialled};

use super::link::PipeLink;

/// The carrier's name.
const NAME: &str = "sim";

/// Whom the network vouches for, by address: what TLS proves elsewhere. Who is not in it is not trusted.
pub type Known = BTreeMap<IpAddr, Identity>;

/// Dials a [`LinkListener`]. Claim and welcome are the first messages of the link.
#[derive(Clone, Debug)]
pub struct LinkCarrier {
    server: HostPort,
    dial: Arc<dyn Dial>,
    known: Known,
    config: MuxConfig,
}

impl LinkCarrier {
    /// Makes one that dials `server` and trusts it if it is known.
    #[must_use]
    pub fn new(server: HostPort, dial: Arc<dyn Dial>, known: Known, config: MuxConfig) -> Self {
        Self {
            server,
            dial,
            known,
            config,
        }
    }

    async fn connect(&self, claim: &Claim) -> Result<Arc<dyn Connection>, DialError> {
        let Dialled { io, remote_addr, .. } = self.dial.dial(&self.server).await?;
        let Some(identity) = self.known.get(&remote_addr.ip()).cloned() else {
            return Err(DialError::Tls {
                remote: self.remote(),
                explanation: "the agent does not know the server".to_owned(),
                source: Arc::new(io::Error::from(io::ErrorKind::PermissionDenied)),
            });
        };
        let mut link = PipeLink::new(io);
        let welcome = introduce(&mut link, claim)
            .await
            .map_err(|failure| self.dial_error(failure))?;
        let server = Peer {
            carrier: NAME,
            identity,
            role: PeerRole::Server(Box::new(welcome)),
            remote_addr,
        };
        Ok(start(Box::new(link), server, self.config.clone()))
    }

    fn dial_error(&self, failure: HandshakeFailure) -> DialError {
        let remote = self.remote();
        match failure {
            HandshakeFailure::Rejected(rejection) => DialError::Rejected { remote, rejection },
            HandshakeFailure::Protocol(detail) => DialError::Protocol { remote, detail },
            lost => DialError::Lost {
                remote,
                source: ConnectionError::transport(lost),
            },
        }
    }
}

#[async_trait]
impl Carrier for LinkCarrier {
    fn name(&self) -> &'static str {
        NAME
    }

    fn remote(&self) -> String {
        format!("{NAME}://{}", self.server)
    }

    async fn dial(&self, claim: &Claim, deadline: Instant) -> Result<Arc<dyn Connection>, DialError> {
        let remote = || self.remote();
        let late = |_elapsed| DialError::TimedOut { remote: remote() };
        timeout_at(deadline, self.connect(claim)).await.map_err(late)?
    }
}

/// Yields the dials of [`LinkCarrier`]s.
#[derive(Debug)]
pub struct LinkListener {
    accept: Box<dyn Accept>,
    known: Arc<Known>,
    config: MuxConfig,
}

impl LinkListener {
    /// Makes one that trusts the agents that are known.
    #[must_use]
    pub fn new(accept: Box<dyn Accept>, known: Known, config: MuxConfig) -> Self {
        Self {
            accept,
            known: Arc::new(known),
            config,
        }
    }
}

#[async_trait]
impl Listener for LinkListener {
    fn name(&self) -> &'static str {
        NAME
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.accept.local_addr()
    }

    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError> {
        Ok(Box::new(LinkIncoming {
            accepted: self.accept.accept().await?,
            known: Arc::clone(&self.known),
            config: self.config.clone(),
        }))
    }
}

/// An attempt to connect.
#[derive(Debug)]
struct LinkIncoming {
    accepted: Accepted,
    known: Arc<Known>,
    config: MuxConfig,
}

#[async_trait]
impl Incoming for LinkIncoming {
    fn remote_addr(&self) -> SocketAddr {
        self.accepted.remote_addr
    }

    async fn handshake(self: Box<Self>, admission: &dyn Admission) -> Result<Arc<dyn Connection>, HandshakeError> {
        let (remote_addr, io) = (self.accepted.remote_addr, self.accepted.open()?);
        let Some(identity) = self.known.get(&remote_addr.ip()).cloned() else {
            return Err(HandshakeError::Tls {
                explanation: "the server does not know the agent".to_owned(),
                source: Arc::new(io::Error::from(io::ErrorKind::PermissionDenied)),
            });
        };
        let mut link = PipeLink::new(io);
        let claim = read_claim(&mut link).await.map_err(handshake_error)?;
        let arrival = Arrival::new(NAME, remote_addr, identity, claim);
        let admitted = match admission.admit(&arrival).await {
            Ok(admitted) => admitted,
            Err(rejection) => {
                reject(&mut link, &rejection).await;
                return Err(HandshakeError::Rejected(rejection));
            }
        };
        welcome(&mut link, &admitted.welcome).await.map_err(handshake_error)?;
        let agent = arrival.into_peer(admitted.identity);
        Ok(start(Box::new(link), agent, self.config))
    }

    /// Drops the pipe.
    fn refuse(self: Box<Self>) {}
}

fn handshake_error(failure: HandshakeFailure) -> HandshakeError {
    match failure {
        HandshakeFailure::Rejected(rejection) => HandshakeError::Rejected(rejection),
        HandshakeFailure::Protocol(detail) => HandshakeError::Protocol { detail },
        lost => HandshakeError::Lost(ConnectionError::transport(lost)),
    }
}
