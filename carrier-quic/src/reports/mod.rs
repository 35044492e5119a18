//! Reports that nobody has a peer's port any more (ICMP "port unreachable"; RFC 1122 §3.2.2.1, RFC 4443 §3.1).
//!
//! A process that is killed says nothing. But its system answers the next packet to its port with a report, which is
//! seconds before keepalive would notice. Anybody can forge one who guesses addresses and ports, so a report proves
//! nothing by itself (RFC 8085 §5.2, RFC 9000 §14.2.1):
//!
//! * it makes the connection send something that a living peer acknowledges, at most once a second;
//! * from then on the beginnings of what is sent to the peer are remembered. Only a report that quotes one of them
//!   counts: they hold a random connection id and encrypted bytes, which nobody knows who does not see the packets;
//! * the connection is given up if such a report has come and nothing at all from the peer (`attend`).
//!
//! Reports that a host or a network is unreachable mean that there is no way at the moment, which a connection is meant
//! to survive; they are not listened to.

mod suspects;
mod watched;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use quinn::AsyncUdpSocket;
use tokio::sync::mpsc;

use self::{suspects::Suspects, watched::Watched};
use crate::shared::Shared;

pub(crate) use self::suspects::{QUOTE, Watch};

/// How many reports wait to be passed on; what is beyond is lost, and keepalive will do.
const QUEUE: usize = 1024;
/// The time between two looks for the connections that reports are about, as each look costs something for each
/// connection of the endpoint.
const PAUSE: Duration = Duration::from_millis(100);

/// Reports that nobody has a peer's port any more, for all connections of one endpoint.
///
/// Sockets that this crate binds make them by themselves on Linux. For others, such as simulated ones, whoever made the
/// socket does. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct PortReports(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    suspects: Suspects,
    reported: mpsc::Sender<SocketAddr>,
    connections: Mutex<HashMap<usize, Weak<Shared>>>,
}

impl PortReports {
    /// It must be called inside a tokio runtime.
    pub(crate) fn new() -> Self {
        let (reported, reports) = mpsc::channel(QUEUE);
        let inner = Arc::new(Inner {
            suspects: Suspects::default(),
            reported,
            connections: Mutex::default(),
        });
        tokio::spawn(pass_on(reports, Arc::downgrade(&inner)));
        Self(inner)
    }

    /// Reports that a packet to `addr`, which began with the bytes `quoted`, was answered with "port unreachable".
    ///
    /// It may be a lie: nothing happens to a connection whose peer still answers, or of which `quoted` was not sent. At
    /// least 16 bytes have to be quoted.
    pub fn unreachable(&self, addr: SocketAddr, quoted: &[u8]) {
        let addr = canonical(addr);
        self.0.suspects.reported(addr, quoted);
        // Lost when there are too many.
        let _ = self.0.reported.try_send(addr);
    }

    /// Watches for reports about what is sent to this address from now on.
    pub(crate) fn watch(&self, addr: SocketAddr) -> Watch {
        Suspects::watch(self, canonical(addr))
    }

    /// Lets the connection know of reports about its peer, until the ticket is dropped.
    pub(crate) fn register(&self, shared: &Arc<Shared>) -> Registered {
        let id = shared.quic.stable_id();
        self.0.connections().insert(id, Arc::downgrade(shared));
        Registered {
            reports: self.clone(),
            id,
        }
    }

    /// A socket that remembers what is sent to addresses that are watched.
    pub(crate) fn wrap(&self, socket: Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> {
        Arc::new(Watched::new(socket, self.clone()))
    }

    fn suspects(&self) -> &Suspects {
        &self.0.suspects
    }
}

impl Inner {
    /// Wakes the connections whose peer has one of the addresses at the moment.
    fn tell(&self, addrs: &HashSet<SocketAddr>) {
        // Collected, so that none ends while the lock is held.
        let connections: Vec<_> = self.connections().values().filter_map(Weak::upgrade).collect();
        for shared in connections {
            if addrs.contains(&canonical(shared.quic.remote_address())) {
                shared.reported.notify_one();
            }
        }
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<usize, Weak<Shared>>> {
        // Nothing panics while it is held.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes reports on to the connections until the endpoint and its connections are gone.
async fn pass_on(mut reports: mpsc::Receiver<SocketAddr>, inner: Weak<Inner>) {
    let mut addrs = Vec::new();
    while reports.recv_many(&mut addrs, QUEUE).await > 0 {
        let Some(inner) = inner.upgrade() else { return };
        inner.tell(&addrs.drain(..).collect());
        drop(inner);
        tokio::time::sleep(PAUSE).await;
    }
}

/// A connection that hears of reports.
#[derive(Debug)]
pub(crate) struct Registered {
    reports: PortReports,
    id: usize,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.reports.0.connections().remove(&self.id);
    }
}

/// One form for an address, whichever family the socket that it came from has.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
