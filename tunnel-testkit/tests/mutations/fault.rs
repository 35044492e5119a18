//! A carrier with a fault: the memory carrier behind wrappers, of which a mutation replaces one.

use std::{fmt::Debug, io, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use tunnel_core::{
    AcceptError, Admission, Capabilities, Carrier, Claim, CloseCode, Connection, ConnectionError, ConnectionStats,
    DialError, Duplex, HandshakeError, Identity, Inbound, Incoming, Listener, OpenError, Peer, Refusal, StreamHead,
};
use tunnel_testkit::{
    Side,
    conformance::{Harness, Setup, SetupError, Stage},
    memory::MemoryHarness,
};

/// What goes wrong. Every method does what is right unless it is replaced.
#[async_trait]
pub(crate) trait Fault: Debug + Send + Sync + 'static {
    /// Changes what the carrier is asked for.
    fn setup(&self, setup: Setup) -> Setup {
        setup
    }

    async fn dial(
        &self,
        carrier: &Arc<dyn Carrier>,
        claim: &Claim,
        deadline: Instant,
    ) -> Result<Arc<dyn Connection>, DialError> {
        carrier.dial(claim, deadline).await
    }

    async fn accept_attempt(&self, listener: &mut dyn Listener) -> Result<Box<dyn Incoming>, AcceptError> {
        listener.accept().await
    }

    async fn handshake(
        &self,
        incoming: Box<dyn Incoming>,
        admission: &dyn Admission,
    ) -> Result<Arc<dyn Connection>, HandshakeError> {
        incoming.handshake(admission).await
    }

    fn refuse_attempt(&self, incoming: Box<dyn Incoming>) {
        incoming.refuse();
    }

    /// Sees a new connection.
    fn connected(&self, _connection: &Arc<dyn Connection>) {}

    fn peer(&self, peer: &Peer) -> Peer {
        peer.clone()
    }

    async fn open(
        &self,
        connection: &Arc<dyn Connection>,
        head: StreamHead,
        early: &mut Bytes,
    ) -> Result<Duplex, OpenError> {
        connection.open_with(head, early).await
    }

    async fn accept(&self, connection: &dyn Connection) -> Result<Box<dyn Inbound>, ConnectionError> {
        connection.accept().await
    }

    async fn closed(&self, connection: &dyn Connection) -> ConnectionError {
        connection.closed().await
    }

    fn drain(&self, connection: &dyn Connection) {
        connection.drain();
    }

    fn stats(&self, connection: &dyn Connection) -> ConnectionStats {
        connection.stats()
    }

    fn refuse(&self, inbound: Box<dyn Inbound>, refusal: Refusal) {
        inbound.refuse(refusal);
    }

    fn drop_unanswered(&self, inbound: Box<dyn Inbound>) {
        drop(inbound);
    }

    async fn cancelled(&self, inbound: &mut dyn Inbound) {
        inbound.cancelled().await;
    }

    async fn answer(&self, inbound: Box<dyn Inbound>) -> Result<Duplex, OpenError> {
        inbound.accept().await
    }

    /// Sees a new stream of either end.
    fn stream(&self, stream: Duplex) -> Duplex {
        stream
    }
}

/// The memory carrier with a fault.
pub(crate) struct Faulty {
    harness: MemoryHarness,
    make: fn() -> Arc<dyn Fault>,
}

impl Faulty {
    pub(crate) fn new(harness: MemoryHarness, make: fn() -> Arc<dyn Fault>) -> Self {
        Self { harness, make }
    }
}

impl Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (self.make)().fmt(f)
    }
}

#[async_trait]
impl Harness for Faulty {
    async fn stage(&self, setup: &Setup) -> Result<Stage, SetupError> {
        let fault = (self.make)();
        let Stage {
            carrier,
            listener,
            network,
        } = self.harness.stage(&fault.setup(setup.clone())).await?;
        Ok(Stage {
            carrier: Box::new(FaultyCarrier {
                inner: Arc::from(carrier),
                fault: Arc::clone(&fault),
            }),
            listener: Box::new(FaultyListener { inner: listener, fault }),
            network,
        })
    }

    fn identity(&self, side: Side) -> Identity {
        self.harness.identity(side)
    }

    fn window(&self) -> usize {
        self.harness.window()
    }

    fn bound(&self) -> usize {
        self.harness.bound()
    }

    /// Shorter, because some faults use it up.
    fn patience(&self) -> Duration {
        Duration::from_secs(120)
    }
}

#[derive(Debug)]
struct FaultyCarrier {
    inner: Arc<dyn Carrier>,
    fault: Arc<dyn Fault>,
}

#[async_trait]
impl Carrier for FaultyCarrier {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn remote(&self) -> String {
        self.inner.remote()
    }

    async fn dial(&self, claim: &Claim, deadline: Instant) -> Result<Arc<dyn Connection>, DialError> {
        let connection = self.fault.dial(&self.inner, claim, deadline).await?;
        Ok(FaultyConnection::wrap(connection, &self.fault))
    }
}

#[derive(Debug)]
struct FaultyListener {
    inner: Box<dyn Listener>,
    fault: Arc<dyn Fault>,
}

#[async_trait]
impl Listener for FaultyListener {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError> {
        let inner = self.fault.accept_attempt(&mut *self.inner).await?;
        let fault = Arc::clone(&self.fault);
        Ok(Box::new(FaultyIncoming { inner, fault }))
    }
}

#[derive(Debug)]
struct FaultyIncoming {
    inner: Box<dyn Incoming>,
    fault: Arc<dyn Fault>,
}

#[async_trait]
impl Incoming for FaultyIncoming {
    fn remote_addr(&self) -> SocketAddr {
        self.inner.remote_addr()
    }

    async fn handshake(self: Box<Self>, admission: &dyn Admission) -> Result<Arc<dyn Connection>, HandshakeError> {
        let connection = self.fault.handshake(self.inner, admission).await?;
        Ok(FaultyConnection::wrap(connection, &self.fault))
    }

    fn refuse(self: Box<Self>) {
        self.fault.refuse_attempt(self.inner);
    }
}

#[derive(Debug)]
struct FaultyConnection {
    inner: Arc<dyn Connection>,
    fault: Arc<dyn Fault>,
    peer: Peer,
}

impl FaultyConnection {
    fn wrap(inner: Arc<dyn Connection>, fault: &Arc<dyn Fault>) -> Arc<dyn Connection> {
        fault.connected(&inner);
        let peer = fault.peer(inner.peer());
        let fault = Arc::clone(fault);
        Arc::new(Self { inner, fault, peer })
    }
}

#[async_trait]
impl Connection for FaultyConnection {
    async fn open_with(&self, head: StreamHead, early: &mut Bytes) -> Result<Duplex, OpenError> {
        let stream = self.fault.open(&self.inner, head, early).await?;
        Ok(self.fault.stream(stream))
    }

    async fn accept(&self) -> Result<Box<dyn Inbound>, ConnectionError> {
        let inner = self.fault.accept(&*self.inner).await?;
        let head = inner.head().clone();
        let fault = Arc::clone(&self.fault);
        let inner = Some(inner);
        Ok(Box::new(FaultyInbound { inner, head, fault }))
    }

    async fn draining(&self) {
        self.inner.draining().await;
    }

    async fn closed(&self) -> ConnectionError {
        self.fault.closed(&*self.inner).await
    }

    fn close(&self, code: CloseCode, reason: &str) {
        self.inner.close(code, reason);
    }

    fn drain(&self) {
        self.fault.drain(&*self.inner);
    }

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn stats(&self) -> ConnectionStats {
        self.fault.stats(&*self.inner)
    }
}

#[derive(Debug)]
struct FaultyInbound {
    /// Until it is answered.
    inner: Option<Box<dyn Inbound>>,
    head: StreamHead,
    fault: Arc<dyn Fault>,
}

#[async_trait]
impl Inbound for FaultyInbound {
    fn head(&self) -> &StreamHead {
        &self.head
    }

    async fn cancelled(&mut self) {
        self.fault.cancelled(&mut **self.inner.as_mut().unwrap()).await;
    }

    async fn accept(mut self: Box<Self>) -> Result<Duplex, OpenError> {
        let stream = self.fault.answer(self.inner.take().unwrap()).await?;
        Ok(self.fault.stream(stream))
    }

    fn refuse(mut self: Box<Self>, refusal: Refusal) {
        self.fault.refuse(self.inner.take().unwrap(), refusal);
    }
}

impl Drop for FaultyInbound {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            self.fault.drop_unanswered(inner);
        }
    }
}
