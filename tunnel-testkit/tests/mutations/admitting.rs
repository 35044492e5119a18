//! Faults in who gets in, and how.

use std::{
    mem::forget,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::oneshot, task::yield_now, time::Instant};
use tunnel_core::{
    AcceptError, Admission, Admitted, Arrival, Carrier, Claim, Connection, DialError, HandshakeError, Identity,
    Incoming, Listener, Peer, PeerRole, Rejection, Welcome,
};
use tunnel_testkit::conformance::Setup;

use crate::{fault::Fault, opening::Forgotten};

/// Dials in a task that nobody ends.
#[derive(Debug)]
pub(crate) struct DialLeaksConnection;

#[async_trait]
impl Fault for DialLeaksConnection {
    async fn dial(
        &self,
        carrier: &Arc<dyn Carrier>,
        claim: &Claim,
        deadline: Instant,
    ) -> Result<Arc<dyn Connection>, DialError> {
        let (carrier, claim) = (Arc::clone(carrier), claim.clone());
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            if let Err(unwanted) = sender.send(carrier.dial(&claim, deadline).await) {
                forget(unwanted);
            }
        });
        receiver.await.unwrap()
    }
}

/// Keeps the connection when the future of its handshake is dropped.
#[derive(Debug)]
pub(crate) struct HandshakeLeaksConnection;

#[async_trait]
impl Fault for HandshakeLeaksConnection {
    async fn handshake(
        &self,
        incoming: Box<dyn Incoming>,
        admission: &dyn Admission,
    ) -> Result<Arc<dyn Connection>, HandshakeError> {
        let mut connection = Forgotten(Some(incoming.handshake(admission).await?));
        yield_now().await;
        Ok(connection.0.take().unwrap())
    }
}

/// Looks once more before it gives the attempt away, and loses it if the caller has left.
#[derive(Debug)]
pub(crate) struct AcceptLosesAttempt;

#[async_trait]
impl Fault for AcceptLosesAttempt {
    async fn accept_attempt(&self, listener: &mut dyn Listener) -> Result<Box<dyn Incoming>, AcceptError> {
        let incoming = listener.accept().await?;
        yield_now().await;
        Ok(incoming)
    }
}

/// Accepts everybody.
#[derive(Debug)]
struct Anybody;

#[async_trait]
impl Admission for Anybody {
    async fn admit(&self, arrival: &Arrival) -> Result<Admitted, Rejection> {
        Ok(Admitted {
            identity: arrival.identity.clone(),
            welcome: Welcome::new("server".parse().unwrap()),
        })
    }
}

#[derive(Debug)]
pub(crate) struct HandshakeInAccept;

#[async_trait]
impl Fault for HandshakeInAccept {
    async fn accept_attempt(&self, listener: &mut dyn Listener) -> Result<Box<dyn Incoming>, AcceptError> {
        let incoming = listener.accept().await?;
        let remote_addr = incoming.remote_addr();
        let connection = incoming.handshake(&Anybody).await;
        Ok(Box::new(Done {
            remote_addr,
            connection,
        }))
    }
}

#[derive(Debug)]
struct Done {
    remote_addr: SocketAddr,
    connection: Result<Arc<dyn Connection>, HandshakeError>,
}

#[async_trait]
impl Incoming for Done {
    fn remote_addr(&self) -> SocketAddr {
        self.remote_addr
    }

    async fn handshake(self: Box<Self>, _admission: &dyn Admission) -> Result<Arc<dyn Connection>, HandshakeError> {
        self.connection
    }

    fn refuse(self: Box<Self>) {}
}

#[derive(Debug)]
pub(crate) struct RefusedNotTold;

impl Fault for RefusedNotTold {
    fn refuse_attempt(&self, incoming: Box<dyn Incoming>) {
        forget(incoming);
    }
}

#[derive(Debug)]
pub(crate) struct DialIgnoresDeadline;

#[async_trait]
impl Fault for DialIgnoresDeadline {
    async fn dial(
        &self,
        carrier: &Arc<dyn Carrier>,
        claim: &Claim,
        deadline: Instant,
    ) -> Result<Arc<dyn Connection>, DialError> {
        carrier.dial(claim, deadline + Duration::from_secs(3600)).await
    }
}

/// Takes the peer's word for who it is.
#[derive(Debug)]
pub(crate) struct ClaimedIdentity;

impl Fault for ClaimedIdentity {
    fn peer(&self, peer: &Peer) -> Peer {
        let name = match &peer.role {
            PeerRole::Agent(claim) => claim.agent.to_string(),
            PeerRole::Server(welcome) => welcome.server.to_string(),
            PeerRole::Foreign => "anybody".to_owned(),
        };
        Peer {
            identity: Identity::from_subject(name),
            ..peer.clone()
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct KeepsCredential(Mutex<Option<Claim>>);

#[async_trait]
impl Fault for KeepsCredential {
    async fn dial(
        &self,
        carrier: &Arc<dyn Carrier>,
        claim: &Claim,
        deadline: Instant,
    ) -> Result<Arc<dyn Connection>, DialError> {
        *self.0.lock().unwrap() = Some(claim.clone());
        carrier.dial(claim, deadline).await
    }

    fn peer(&self, peer: &Peer) -> Peer {
        let mut peer = peer.clone();
        if let (PeerRole::Agent(claim), Some(whole)) = (&mut peer.role, &*self.0.lock().unwrap()) {
            **claim = whole.clone();
        }
        peer
    }
}

#[derive(Debug)]
pub(crate) struct RejectedGetsIn;

#[async_trait]
impl Fault for RejectedGetsIn {
    async fn handshake(
        &self,
        incoming: Box<dyn Incoming>,
        admission: &dyn Admission,
    ) -> Result<Arc<dyn Connection>, HandshakeError> {
        incoming.handshake(&Lenient(admission)).await
    }
}

/// Asks, and does not mind the answer.
#[derive(Debug)]
struct Lenient<'a>(&'a dyn Admission);

#[async_trait]
impl Admission for Lenient<'_> {
    async fn admit(&self, arrival: &Arrival) -> Result<Admitted, Rejection> {
        match self.0.admit(arrival).await {
            Ok(admitted) => Ok(admitted),
            Err(_) => Anybody.admit(arrival).await,
        }
    }
}

#[derive(Debug)]
pub(crate) struct RejectionWithoutWords;

#[async_trait]
impl Fault for RejectionWithoutWords {
    async fn dial(
        &self,
        carrier: &Arc<dyn Carrier>,
        claim: &Claim,
        deadline: Instant,
    ) -> Result<Arc<dyn Connection>, DialError> {
        match carrier.dial(claim, deadline).await {
            Err(DialError::Rejected { remote, rejection }) => {
                let rejection = Rejection::new(rejection.code, "");
                Err(DialError::Rejected { remote, rejection })
            }
            other => other,
        }
    }
}

#[derive(Debug)]
pub(crate) struct TrustsEverybody;

impl Fault for TrustsEverybody {
    fn setup(&self, mut setup: Setup) -> Setup {
        setup.untrusted = None;
        setup
    }
}
