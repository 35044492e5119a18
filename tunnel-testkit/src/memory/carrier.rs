//! The agent's side.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use async_trait::async_trait;
use tokio::{
    select,
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};
use tunnel_core::{Carrier, Claim, Connection, ConnectionError, DialError, Identity};

use super::{
    Config, NAME,
    attempt::{Attempt, MemoryIncoming, Outcome},
    wire::{Wire, WireState},
};

/// Where every agent claims to be, with a port for each dial: an address of the block for documentation (RFC 5737 §3).
const AGENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// What is dialled.
const REMOTE: &str = "memory://192.0.2.1:8091";

/// Dials the [`MemoryListener`](super::MemoryListener) that was made with it. Clones share its wire.
#[derive(Clone, Debug)]
pub struct MemoryCarrier {
    config: Arc<Config>,
    attempts: mpsc::Sender<MemoryIncoming>,
    next_port: Arc<AtomicU16>,
    wire: Wire,
    identity: Identity,
    is_trusted: bool,
}

impl MemoryCarrier {
    pub(super) fn new(config: Config, attempts: mpsc::Sender<MemoryIncoming>) -> Self {
        Self {
            identity: config.agent.clone(),
            config: Arc::new(config),
            attempts,
            next_port: Arc::new(AtomicU16::new(1024)),
            wire: Wire::new(),
            is_trusted: true,
        }
    }

    /// A carrier for another agent: to the same listener, with a certificate and a wire of its own.
    #[must_use]
    pub fn another(&self, identity: Identity) -> Self {
        Self {
            identity,
            wire: Wire::new(),
            ..self.clone()
        }
    }

    /// A carrier whose certificate the server does not trust, on a wire of its own.
    #[must_use]
    pub fn untrusted(&self) -> Self {
        Self {
            is_trusted: false,
            ..self.another(self.identity.clone())
        }
    }

    /// What its connections run over.
    #[must_use]
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Connects and then says nothing for as long as the value lives: a peer stuck in its handshake.
    pub async fn knock(&self) -> Result<Knock, DialError> {
        self.attempt(None).await.map(Knock)
    }

    /// Brings an attempt to the listener.
    async fn attempt(&self, claim: Option<&Claim>) -> Result<oneshot::Receiver<Outcome>, DialError> {
        if self.wire.usable().await == WireState::Cut {
            return Err(unreachable(io::ErrorKind::NetworkUnreachable));
        }
        let port = self.next_port.fetch_add(1, Ordering::Relaxed);
        let (incoming, outcome) = MemoryIncoming::new(Attempt {
            claim: claim.cloned(),
            identity: self.identity.clone(),
            is_trusted: self.is_trusted,
            remote_addr: SocketAddr::new(AGENT, port),
            config: self.config.clone(),
            wire: self.wire.clone(),
        });
        match self.attempts.send(incoming).await {
            Ok(()) => Ok(outcome),
            Err(_closed) => Err(unreachable(io::ErrorKind::ConnectionRefused)),
        }
    }

    async fn connect(&self, claim: &Claim) -> Result<Arc<dyn Connection>, DialError> {
        let outcome = self.attempt(Some(claim)).await?;
        let remote = REMOTE.to_owned();
        let outcome = select! {
            biased;
            () = self.wire.is_cut() => {
                let source = ConnectionError::transport(io::Error::from(io::ErrorKind::ConnectionReset));
                return Err(DialError::Lost { remote, source });
            }
            outcome = outcome => outcome,
        };
        self.wire.usable().await;
        match outcome {
            Ok(Outcome::Connected(connection)) => Ok(connection),
            Ok(Outcome::Rejected(rejection)) => Err(DialError::Rejected { remote, rejection }),
            Ok(Outcome::Untrusted(explanation)) => Err(DialError::Tls {
                remote,
                explanation: explanation.to_owned(),
                source: Arc::new(io::Error::from(io::ErrorKind::PermissionDenied)),
            }),
            Err(_refused) => Err(unreachable(io::ErrorKind::ConnectionRefused)),
        }
    }
}

#[async_trait]
impl Carrier for MemoryCarrier {
    fn name(&self) -> &'static str {
        NAME
    }

    fn remote(&self) -> String {
        REMOTE.to_owned()
    }

    async fn dial(&self, claim: &Claim, deadline: Instant) -> Result<Arc<dyn Connection>, DialError> {
        match timeout_at(deadline, self.connect(claim)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(DialError::TimedOut {
                remote: REMOTE.to_owned(),
            }),
        }
    }
}

/// A peer stuck in its handshake; dropping it ends the attempt.
#[derive(Debug)]
pub struct Knock(#[expect(dead_code, reason = "held for its drop")] oneshot::Receiver<Outcome>);

fn unreachable(kind: io::ErrorKind) -> DialError {
    DialError::Unreachable {
        remote: REMOTE.to_owned(),
        source: Arc::new(io::Error::from(kind)),
    }
}
