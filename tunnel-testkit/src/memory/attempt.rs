//! An attempt to connect.

use std::{future::pending, io, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use tokio::{select, sync::oneshot};
use tunnel_core::{
    Admission, Admitted, Arrival, Claim, Connection, ConnectionError, HandshakeError, Identity, Incoming, Peer,
    PeerRole, Rejection,
};

use super::{Config, NAME, connection::MemoryConnection, link::Link, listener::SERVER, wire::Wire};
use crate::Side;

/// What becomes of an attempt, for the one who dials.
#[derive(Debug)]
pub(super) enum Outcome {
    Connected(Arc<MemoryConnection>),
    Rejected(Rejection),
    /// One end does not trust the other's certificate.
    Untrusted(&'static str),
}

/// What the dialling end brings.
#[derive(Debug)]
pub(super) struct Attempt {
    /// None if the peer never says anything.
    pub(super) claim: Option<Claim>,
    pub(super) identity: Identity,
    pub(super) is_trusted: bool,
    pub(super) remote_addr: SocketAddr,
    pub(super) config: Arc<Config>,
    pub(super) wire: Wire,
}

/// An attempt to connect over memory.
#[derive(Debug)]
pub struct MemoryIncoming {
    attempt: Attempt,
    /// Dropping it refuses.
    outcome: oneshot::Sender<Outcome>,
}

impl MemoryIncoming {
    pub(super) fn new(attempt: Attempt) -> (Self, oneshot::Receiver<Outcome>) {
        let (outcome, receiver) = oneshot::channel();
        (Self { attempt, outcome }, receiver)
    }
}

#[async_trait]
impl Incoming for MemoryIncoming {
    fn remote_addr(&self) -> SocketAddr {
        self.attempt.remote_addr
    }

    async fn handshake(self: Box<Self>, admission: &dyn Admission) -> Result<Arc<dyn Connection>, HandshakeError> {
        let Self { attempt, mut outcome } = *self;
        let judged = select! {
            biased;
            () = outcome.closed() => return Err(lost()),
            () = attempt.wire.is_cut() => return Err(lost()),
            judged = attempt.judge(admission) => judged,
        };
        let (told, result) = match judged {
            Ok((admitted, claim)) => {
                let (agent, server) = attempt.connect(admitted, claim);
                let server: Arc<dyn Connection> = Arc::new(server);
                (Outcome::Connected(Arc::new(agent)), Ok(server))
            }
            Err(Objection::Certificate(explanation)) => {
                let source = Arc::new(io::Error::from(io::ErrorKind::PermissionDenied));
                let error = HandshakeError::Tls {
                    explanation: explanation.to_owned(),
                    source,
                };
                (Outcome::Untrusted(explanation), Err(error))
            }
            Err(Objection::Claim(rejection)) => (
                Outcome::Rejected(rejection.clone()),
                Err(HandshakeError::Rejected(rejection)),
            ),
        };
        match outcome.send(told) {
            Ok(()) => result,
            Err(_gone) => Err(lost()),
        }
    }

    fn refuse(self: Box<Self>) {}
}

/// Why there is no connection.
enum Objection {
    Certificate(&'static str),
    Claim(Rejection),
}

impl Attempt {
    /// Checks the certificates, hears the claim and has it judged.
    async fn judge(&self, admission: &dyn Admission) -> Result<(Admitted, Claim), Objection> {
        self.wire.usable().await;
        let Some(mut claim) = self.claim.clone() else {
            return pending().await;
        };
        if !self.is_trusted {
            return Err(Objection::Certificate(
                "the server does not trust the agent's certificate",
            ));
        }
        if !self.config.server_is_trusted {
            return Err(Objection::Certificate(
                "the agent does not trust the server's certificate",
            ));
        }
        let arrival = Arrival::new(NAME, self.remote_addr, self.identity.clone(), claim.clone());
        let admitted = admission.admit(&arrival).await.map_err(Objection::Claim)?;
        self.wire.usable().await;
        claim.credential = None;
        Ok((admitted, claim))
    }

    /// Makes the two ends of an admitted connection.
    fn connect(&self, admitted: Admitted, claim: Claim) -> (MemoryConnection, MemoryConnection) {
        let config = &self.config;
        let places = [admitted.welcome.limits.max_streams, config.max_streams];
        let keepalive = config.keepalive.min(admitted.welcome.keepalive);
        let link = Link::new(config.window, config.bandwidth, places, keepalive);
        self.wire.attach(&link);
        let agent = Peer {
            carrier: NAME,
            identity: admitted.identity,
            role: PeerRole::Agent(Box::new(claim)),
            remote_addr: self.remote_addr,
        };
        let server = Peer {
            carrier: NAME,
            identity: config.server.clone(),
            role: PeerRole::Server(Box::new(admitted.welcome)),
            remote_addr: SERVER,
        };
        (
            MemoryConnection::new(link.clone(), Side::Agent, server),
            MemoryConnection::new(link, Side::Server, agent),
        )
    }
}

fn lost() -> HandshakeError {
    let gone = io::Error::new(io::ErrorKind::ConnectionReset, "the agent went away");
    HandshakeError::Lost(ConnectionError::transport(gone))
}
