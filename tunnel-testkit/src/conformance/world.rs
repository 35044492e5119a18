//! Ends that have met.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{time::Instant, try_join};
use tunnel_core::{
    Admission, Admitted, Arrival, Carrier, Connection, Duplex, Listener, Messages, Openers, PeerRole, Rejection,
    Secret, Welcome,
};

use super::{
    fixtures::{CREDENTIAL, claim, head, server_id},
    harness::{Harness, Network, Setup},
    seen::{OrSeen, Verdict, eventually, within},
    traffic::expect_all,
};
use crate::Side;

/// How long a dial may take.
pub(super) const DIAL: Duration = Duration::from_secs(10);

/// Two ends and the connection between them.
#[derive(Debug)]
pub(super) struct World {
    pub(super) carrier: Box<dyn Carrier>,
    pub(super) listener: Box<dyn Listener>,
    pub(super) network: Box<dyn Network>,
    pub(super) doorman: Arc<Doorman>,
    /// The end that acts first.
    pub(super) near: Arc<dyn Connection>,
    /// The other one.
    pub(super) far: Arc<dyn Connection>,
    pub(super) prompt: Duration,
    pub(super) setup: Setup,
}

impl World {
    /// Makes a connection with the default setup.
    pub(super) async fn new(harness: &dyn Harness, first: Side) -> Verdict<Self> {
        Self::with(harness, first, Setup::default()).await
    }

    pub(super) async fn with(harness: &dyn Harness, first: Side, setup: Setup) -> Verdict<Self> {
        let stage = harness.stage(&setup).await.or_seen("setting the stage")?;
        let doorman = Arc::new(Doorman::new(&setup));
        let (carrier, mut listener, network) = (stage.carrier, stage.listener, stage.network);
        let (agent, server) = meet(&*carrier, &mut *listener, &doorman).await?;
        let (near, far) = match first {
            Side::Agent => (agent, server),
            Side::Server => (server, agent),
        };
        Ok(Self {
            carrier,
            listener,
            network,
            doorman,
            near,
            far,
            prompt: harness.prompt(),
            setup,
        })
    }

    /// Whether the end that acts first may open streams at all.
    pub(super) fn can_open(&self) -> bool {
        can_open(&*self.near)
    }

    /// Whether the tunnel's own messages are on the wire.
    pub(super) fn is_own(&self) -> bool {
        self.near.capabilities().messages == Messages::Own
    }

    /// The two ends, the one first that opens streams: the near one if it can.
    pub(super) fn opener_first(&self) -> (&Arc<dyn Connection>, &Arc<dyn Connection>) {
        if self.can_open() {
            (&self.near, &self.far)
        } else {
            (&self.far, &self.near)
        }
    }

    /// A stream, as the near end and the far one see it.
    pub(super) async fn stream(&self) -> Verdict<(Duplex, Duplex)> {
        let (opener, acceptor) = self.opener_first();
        let (opened, accepted) = stream(opener, acceptor).await?;
        Ok(if self.can_open() {
            (opened, accepted)
        } else {
            (accepted, opened)
        })
    }

    /// Waits until neither end has a stream.
    pub(super) async fn no_streams(&self) -> Verdict {
        for (name, end) in [("the near end", &self.near), ("the far end", &self.far)] {
            eventually(self.prompt, || match end.stats().streams_open {
                0 => None,
                open => Some(format!("{name} still has {open} streams")),
            })
            .await?;
        }
        Ok(())
    }

    /// Shows that streams work, in both directions.
    pub(super) async fn works(&self) -> Verdict {
        let exchange = async {
            let (mut near, mut far) = self.stream().await?;
            near.tx.send_all("ping".into()).await.or_seen("sending")?;
            near.tx.finish().await.or_seen("finishing")?;
            expect_all(&mut far, b"ping").await?;
            far.tx.send_all("pong".into()).await.or_seen("answering")?;
            far.tx.finish().await.or_seen("finishing the answer")?;
            expect_all(&mut near, b"pong").await
        };
        within(self.prompt, "an exchange on a new stream", exchange).await?
    }
}

/// Whether an end may open streams at all. It is the server's if its peer is an agent.
pub(super) fn can_open(end: &dyn Connection) -> bool {
    end.capabilities().openers == Openers::Both || matches!(end.peer().role, PeerRole::Agent(_))
}

/// Opens a stream from one end and accepts it at the other.
pub(super) async fn stream(opener: &Arc<dyn Connection>, acceptor: &Arc<dyn Connection>) -> Verdict<(Duplex, Duplex)> {
    let open = async { opener.open(head("stream")).await.or_seen("opening a stream") };
    let accept = async {
        let inbound = acceptor.accept().await.or_seen("accepting a stream")?;
        inbound.accept().await.or_seen("answering a stream")
    };
    try_join!(open, accept)
}

/// Has the two ends make a connection: the agent's handle and the server's.
pub(super) async fn meet(
    carrier: &dyn Carrier,
    listener: &mut dyn Listener,
    doorman: &Doorman,
) -> Verdict<(Arc<dyn Connection>, Arc<dyn Connection>)> {
    let claim = claim();
    let dial = async { carrier.dial(&claim, Instant::now() + DIAL).await.or_seen("dialling") };
    let serve = async {
        let incoming = listener.accept().await.or_seen("accepting a connection")?;
        incoming.handshake(doorman).await.or_seen("the server's handshake")
    };
    try_join!(dial, serve)
}

/// Judges claims: the credential has to be the right one, and proves the subject.
#[derive(Debug)]
pub(super) struct Doorman {
    welcome: Welcome,
    rejection: Option<Rejection>,
    arrivals: Mutex<Vec<Arrival>>,
}

impl Doorman {
    /// Whom the credential was issued to.
    pub(super) const SUBJECT: &str = "ali";

    pub(super) fn new(setup: &Setup) -> Self {
        let mut welcome = Welcome::new(server_id());
        welcome.limits.max_streams = setup.max_streams;
        welcome.keepalive = setup.keepalive;
        welcome.server_count = 3;
        Self {
            welcome,
            rejection: None,
            arrivals: Mutex::default(),
        }
    }

    /// One that turns everybody away.
    pub(super) fn strict(setup: &Setup, rejection: Rejection) -> Self {
        Self {
            rejection: Some(rejection),
            ..Self::new(setup)
        }
    }

    /// Who has come so far.
    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it answers those whom it accepts.
    pub(super) fn welcome(&self) -> &Welcome {
        &self.welcome
    }
}

#[async_trait]
impl Admission for Doorman {
    async fn admit(&self, arrival: &Arrival) -> Result<Admitted, Rejection> {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.push(arrival.clone());
        if let Some(rejection) = &self.rejection {
            return Err(rejection.clone());
        }
        let claim = arrival.claim.as_ref();
        let credential = claim.and_then(|claim| claim.credential.as_ref()).map(Secret::expose);
        let mut identity = arrival.identity.clone();
        identity.subject = credential
            .filter(|credential| *credential == CREDENTIAL.as_bytes())
            .map(|_| Self::SUBJECT.to_owned());
        Ok(Admitted {
            identity,
            welcome: self.welcome.clone(),
        })
    }
}
