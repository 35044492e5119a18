//! A carrier that does what a test says.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tunnel_core::{
    Capabilities, Carrier, Claim, CloseCode, Connection, ConnectionError, ConnectionStats, DialError, Duplex, Identity,
    Inbound, OpenError, Peer, PeerRole, Rejection, StreamHead, Welcome,
};

/// What a dial comes to.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Connected,
    Refused,
    Hangs,
    /// Connects after a while.
    Slow(Duration),
    Rejected(CloseCode, Option<Duration>),
}

/// Plays a script, one outcome for each dial; after its end it connects.
#[derive(Debug)]
pub(crate) struct Scripted {
    name: &'static str,
    script: Mutex<VecDeque<Outcome>>,
    dials: Mutex<Vec<(Instant, Claim)>>,
    under_way: AtomicUsize,
    /// The largest number of dials that were under way at once.
    most_at_once: AtomicUsize,
    connections: watch::Sender<Vec<Arc<Fake>>>,
}

impl Scripted {
    pub(crate) fn new(name: &'static str, script: impl IntoIterator<Item = Outcome>) -> Arc<Self> {
        Arc::new(Self {
            name,
            script: Mutex::new(script.into_iter().collect()),
            dials: Mutex::default(),
            under_way: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            connections: watch::Sender::default(),
        })
    }

    /// When it was dialled, from `start`.
    pub(crate) fn dialled(&self, start: Instant) -> Vec<Duration> {
        self.dials.lock().unwrap().iter().map(|(at, _)| *at - start).collect()
    }

    /// The largest number of dials that were under way at once.
    pub(crate) fn most_at_once(&self) -> usize {
        self.most_at_once.load(Ordering::SeqCst)
    }

    /// The claims that it was dialled with.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        self.dials
            .lock()
            .unwrap()
            .iter()
            .map(|(_, claim)| claim.clone())
            .collect()
    }

    /// Waits for the connection with this number.
    pub(crate) async fn connection(&self, number: usize) -> Arc<Fake> {
        let mut connections = self.connections.subscribe();
        let connections = connections.wait_for(|connections| connections.len() > number).await;
        Arc::clone(&connections.unwrap()[number])
    }

    fn connect(&self) -> Arc<Fake> {
        let fake = Arc::new(Fake::new(self.name));
        self.connections
            .send_modify(|connections| connections.push(Arc::clone(&fake)));
        fake
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.borrow().len()
    }
}

#[async_trait]
impl Carrier for Scripted {
    fn name(&self) -> &'static str {
        self.name
    }

    fn remote(&self) -> String {
        format!("{}://gw.example", self.name)
    }

    async fn dial(&self, claim: &Claim, _: Instant) -> Result<Arc<dyn Connection>, DialError> {
        self.dials.lock().unwrap().push((Instant::now(), claim.clone()));
        let outcome = self.script.lock().unwrap().pop_front().unwrap_or(Outcome::Connected);
        let remote = self.remote();
        let _under_way = UnderWay::new(self);
        match outcome {
            Outcome::Connected => Ok(self.connect()),
            Outcome::Slow(time) => {
                sleep(time).await;
                Ok(self.connect())
            }
            Outcome::Refused => Err(DialError::Unreachable {
                remote,
                source: Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused)),
            }),
            // Beyond every deadline, which it does not keep.
            Outcome::Hangs => {
                sleep(Duration::from_secs(3600)).await;
                Err(DialError::TimedOut { remote })
            }
            Outcome::Rejected(code, not_before) => {
                let mut rejection = Rejection::new(code, "no");
                rejection.not_before = not_before;
                Err(DialError::Rejected { remote, rejection })
            }
        }
    }
}

/// Counts a dial as under way until it is dropped.
struct UnderWay<'a>(&'a Scripted);

impl<'a> UnderWay<'a> {
    fn new(carrier: &'a Scripted) -> Self {
        let now = carrier.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        carrier.most_at_once.fetch_max(now, Ordering::SeqCst);
        Self(carrier)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A connection without streams.
#[derive(Debug)]
pub(crate) struct Fake {
    peer: Peer,
    ended: watch::Sender<Option<ConnectionError>>,
    draining: watch::Sender<bool>,
    drained_by_agent: AtomicBool,
}

impl Fake {
    fn new(carrier: &'static str) -> Self {
        Self {
            peer: Peer {
                carrier,
                identity: Identity::anonymous(),
                role: PeerRole::Server(Box::new(Welcome::new("gw".parse().unwrap()))),
                remote_addr: SocketAddr::from(([192, 0, 2, 1], 8091)),
            },
            ended: watch::Sender::default(),
            draining: watch::Sender::default(),
            drained_by_agent: AtomicBool::new(false),
        }
    }

    /// The transport fails.
    pub(crate) fn lose(&self) {
        self.lose_by(io::ErrorKind::ConnectionReset);
    }

    /// The transport fails in this way.
    pub(crate) fn lose_by(&self, kind: io::ErrorKind) {
        let error = io::Error::from(kind);
        self.ended.send_replace(Some(ConnectionError::transport(error)));
    }

    /// The server closes it.
    pub(crate) fn close_by_server(&self, code: CloseCode) {
        self.ended.send_replace(Some(ConnectionError::remote(code, "")));
    }

    /// The server drains.
    pub(crate) fn drain_by_server(&self) {
        self.draining.send_replace(true);
    }

    /// Something on the way says that it will end it.
    pub(crate) fn announce_its_end(&self) {
        self.draining.send_replace(true);
    }

    pub(crate) fn end(&self) -> Option<ConnectionError> {
        self.ended.borrow().clone()
    }

    pub(crate) fn is_drained_by_agent(&self) -> bool {
        self.drained_by_agent.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Connection for Fake {
    async fn open_with(&self, _: StreamHead, _: &mut Bytes) -> Result<Duplex, OpenError> {
        Err(OpenError::Draining)
    }

    async fn accept(&self) -> Result<Box<dyn Inbound>, ConnectionError> {
        Err(self.closed().await)
    }

    async fn draining(&self) {
        let mut draining = self.draining.subscribe();
        tokio::select! {
            _ = draining.wait_for(|&draining| draining) => {}
            _ = self.closed() => {}
        }
    }

    async fn closed(&self) -> ConnectionError {
        let mut ended = self.ended.subscribe();
        let ended = ended.wait_for(Option::is_some).await.unwrap();
        ended.clone().unwrap()
    }

    fn close(&self, code: CloseCode, reason: &str) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert_with(|| ConnectionError::local(code, reason));
            first
        });
    }

    fn drain(&self) {
        self.drained_by_agent.store(true, Ordering::SeqCst);
        self.draining.send_replace(true);
    }

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::NATIVE
    }

    fn stats(&self) -> ConnectionStats {
        ConnectionStats::default()
    }
}
