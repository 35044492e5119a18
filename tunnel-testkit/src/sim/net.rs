//! Where pipes come from.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tunnel_core::{AcceptError, DialError, HostPort};
use tunnel_tcp::{Accept, Accepted, Dial, Dialled};

use super::{
    link::PipeLink,
    pipe::{Pipe, index},
    profile::Profile,
};
use crate::Side;

/// Where every listener is: an address of a block for documentation (RFC 5737 §3), whatever name is dialled.
pub const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Where [`Net`] itself dials from.
pub const AGENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

/// The port of the first listener.
const FIRST_PORT: u16 = 8091;
/// How many connections wait to be accepted; more of them wait to be made.
const BACKLOG: usize = 64;

/// A network of byte pipes in tokio's time, which tests pause. Clones are the same one.
///
/// It dials from [`AGENT`]; [`host`](Self::host) dials from elsewhere.
#[derive(Clone, Debug)]
pub struct Net {
    shared: Arc<Mutex<State>>,
    from: IpAddr,
}

#[derive(Debug)]
struct State {
    /// From the agent, from the server.
    profiles: [Profile; 2],
    listeners: BTreeMap<u16, mpsc::Sender<Accepted>>,
    pipes: Vec<Weak<Pipe>>,
    made: u64,
    is_stalled: [bool; 2],
}

impl Net {
    /// A network whose connections are alike in both directions.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self::asymmetric(profile.clone(), profile)
    }

    /// A network with one profile from those who dial and another from those who listen.
    #[must_use]
    pub fn asymmetric(from_agent: Profile, from_server: Profile) -> Self {
        Self {
            shared: Arc::new(Mutex::new(State {
                profiles: [from_agent, from_server],
                listeners: BTreeMap::new(),
                pipes: Vec::new(),
                made: 0,
                is_stalled: [false; 2],
            })),
            from: AGENT,
        }
    }

    /// The same network, dialled from this address.
    #[must_use]
    pub fn host(&self, from: IpAddr) -> Self {
        Self { from, ..self.clone() }
    }

    /// A listener on a port of its own, which is closed when it is dropped.
    #[must_use]
    pub fn listen(&self) -> SimAcceptor {
        let mut state = self.lock();
        let port = state.listeners.keys().next_back().map_or(FIRST_PORT, |last| last + 1);
        let (sender, waiting) = mpsc::channel(BACKLOG);
        state.listeners.insert(port, sender);
        SimAcceptor {
            waiting,
            local_addr: SocketAddr::new(SERVER, port),
        }
    }

    /// The two ends of a new connection as links, the agent's first: what is left when dialling is of no interest.
    #[must_use]
    pub fn link_pair(&self) -> (PipeLink, PipeLink) {
        let (pipe, _) = self.pipe();
        let link = |side| PipeLink::new(Box::new(pipe.end(side)));
        (link(Side::Agent), link(Side::Server))
    }

    /// Changes how the connections travel that are made from now on.
    pub fn set_profile(&self, profile: Profile) {
        self.lock().profiles = [profile.clone(), profile];
    }

    /// Ends every connection that there is: both ends see a reset, behind what has arrived. New ones can be made.
    pub fn cut(&self) {
        self.pipes().iter().for_each(|pipe| pipe.cut());
    }

    /// Delivers nothing more, in either direction, and tells nobody, as when a route is lost. It concerns new
    /// connections, too: they are not made until [`resume`](Self::resume).
    pub fn silence(&self) {
        Side::BOTH.into_iter().for_each(|side| self.stall(side));
    }

    /// Holds back what `from` sends, on every connection and every new one. Nothing is lost.
    pub fn stall(&self, from: Side) {
        self.lock().is_stalled[index(from)] = true;
        self.pipes().iter().for_each(|pipe| pipe.freeze(from));
    }

    /// Ends every stall and silence. What was held back travels on from where it was.
    pub fn resume(&self) {
        self.lock().is_stalled = [false; 2];
        for pipe in self.pipes() {
            Side::BOTH.into_iter().for_each(|side| pipe.thaw(side));
        }
    }

    /// The connections that there are, oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<SimConnection> {
        self.pipes().into_iter().map(SimConnection).collect()
    }

    /// Where the first of the listeners is.
    pub(super) fn first_listener(&self) -> Option<SocketAddr> {
        let port = *self.lock().listeners.keys().next()?;
        Some(SocketAddr::new(SERVER, port))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pipes(&self) -> Vec<Arc<Pipe>> {
        self.lock().pipes.iter().filter_map(Weak::upgrade).collect()
    }

    /// A pipe that nobody has the ends of.
    fn pipe(&self) -> (Arc<Pipe>, u64) {
        let mut state = self.lock();
        let number = state.made;
        state.made += 1;
        let pipe = Pipe::new(&state.profiles, number);
        for side in Side::BOTH {
            if state.is_stalled[index(side)] {
                pipe.freeze(side);
            }
        }
        state.pipes.retain(|pipe| pipe.strong_count() > 0);
        state.pipes.push(Arc::downgrade(&pipe));
        (pipe, number)
    }

    /// Makes a connection as TCP does: the listener has it after half a round trip, the one who dials after a whole.
    async fn connect(&self, server: &HostPort) -> io::Result<Dialled> {
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        let (pipe, number) = self.pipe();
        let near = pipe.end(Side::Agent);
        if !pipe.travel(Side::Agent).await {
            return Err(reset());
        }
        let listener = self.lock().listeners.get(&server.port()).cloned();
        let port = 1024 + u16::try_from(number % 60_000).unwrap_or_default();
        let accepted = Accepted::new(Box::new(pipe.end(Side::Server)), SocketAddr::new(self.from, port));
        let is_taken = match listener {
            Some(listener) => listener.send(accepted).await.is_ok(),
            None => false,
        };
        match (pipe.travel(Side::Server).await, is_taken) {
            (true, true) => Ok(Dialled {
                io: Box::new(near),
                remote_addr: SocketAddr::new(SERVER, server.port()),
                via: None,
            }),
            (true, false) => Err(io::ErrorKind::ConnectionRefused.into()),
            (false, _) => Err(reset()),
        }
    }
}

#[async_trait]
impl Dial for Net {
    async fn dial(&self, server: &HostPort) -> Result<Dialled, DialError> {
        self.connect(server).await.map_err(|source| DialError::Unreachable {
            remote: server.to_string(),
            source: Arc::new(source),
        })
    }
}

/// A listener of a [`Net`].
#[derive(Debug)]
pub struct SimAcceptor {
    waiting: mpsc::Receiver<Accepted>,
    local_addr: SocketAddr,
}

impl SimAcceptor {
    /// What to dial.
    #[must_use]
    #[expect(clippy::expect_used, reason = "ports are counted from one on")]
    pub fn address(&self) -> HostPort {
        HostPort::new(self.local_addr.ip().into(), self.local_addr.port()).expect("a port")
    }
}

#[async_trait]
impl Accept for SimAcceptor {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local_addr)
    }

    async fn accept(&mut self) -> Result<Accepted, AcceptError> {
        self.waiting.recv().await.ok_or(AcceptError::Closed)
    }
}

/// A connection of a [`Net`], to break it alone. Holding this does not keep it open.
#[derive(Clone, Debug)]
pub struct SimConnection(Arc<Pipe>);

impl SimConnection {
    /// Ends it: both ends see a reset, behind what has arrived.
    pub fn cut(&self) {
        self.0.cut();
    }

    /// Delivers nothing more and tells nobody.
    pub fn silence(&self) {
        Side::BOTH.into_iter().for_each(|side| self.stall(side));
    }

    /// Holds back what `from` sends. Nothing is lost.
    pub fn stall(&self, from: Side) {
        self.0.freeze(from);
    }

    /// Ends a stall or silence.
    pub fn resume(&self) {
        Side::BOTH.into_iter().for_each(|side| self.0.thaw(side));
    }

    /// How many bytes `from` has put on the wire.
    #[must_use]
    pub fn sent(&self, from: Side) -> u64 {
        self.0.sent(from)
    }
}
