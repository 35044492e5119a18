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
//! to survive; they are not listened to. What this system itself says when it takes no packet is no forgery: a connection
//! survives that, too, but a dial ends with it when its packets have failed for a while (`outage`).

mod outage;
mod suspects;
mod watched;

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use quinn::AsyncUdpSocket;
use tokio::{sync::mpsc, time::Instant};

use self::{suspects::Suspects, watched::Watched};
use crate::shared::Shared;

pub(crate) use self::suspects::{QUOTE, Watch};

/// How many reports wait to be passed on; what is beyond is lost, and keepalive will do.
const QUEUE: usize = 1024;
/// The time between two looks for the connections that reports are about, as each look costs something for each
/// connection of the endpoint.
const PAUSE: Duration = Duration::from_millis(100);
/// The time between two lines in the log about packets that cannot be sent.
const REMIND_AFTER: Duration = Duration::from_secs(60);

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
    /// When the log was last told of a packet that could not be sent.
    told: Mutex<Option<Instant>>,
}

impl PortReports {
    /// It must be called inside a tokio runtime.
    pub(crate) fn new() -> Self {
        let (reported, reports) = mpsc::channel(QUEUE);
        let inner = Arc::new(Inner {
            suspects: Suspects::default(),
            reported,
            connections: Mutex::default(),
            told: Mutex::default(),
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

    /// A packet could not be sent to `addr`.
    fn not_sent(&self, addr: SocketAddr, error: io::Error) {
        let addr = canonical(addr);
        if let Some(error) = self.to_be_logged(addr, error) {
            tracing::warn!(%addr, %error, "cannot send to a peer at the moment");
        }
    }

    /// What the log is to be told of it, if anything.
    fn to_be_logged(&self, addr: SocketAddr, error: io::Error) -> Option<io::Error> {
        // Linux says so of the packet before, and a report has come about that one.
        if error.kind() == io::ErrorKind::ConnectionRefused {
            return None;
        }
        let error = self.suspects().failed(addr, error);
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        // Who watches tells of it, and what a dial says at its end to a peer that it did not reach needs no line either.
        if error.is_none() || told.is_none_or(|told| told.elapsed() >= REMIND_AFTER) {
            *told = Some(Instant::now());
            return error;
        }
        None
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_log_is_told_once_a_minute_of_what_nobody_else_tells() {
        let reports = PortReports::new();
        let (watched, other) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:1".parse().unwrap());
        let is_logged = |addr, kind: io::ErrorKind| reports.to_be_logged(addr, kind.into()).is_some();
        let (refused, no_way) = (io::ErrorKind::ConnectionRefused, io::ErrorKind::NetworkUnreachable);

        assert!(!is_logged(other, refused));
        assert!(is_logged(other, no_way));
        tokio::time::advance(REMIND_AFTER - PAUSE).await;
        assert!(!is_logged(other, no_way));
        tokio::time::advance(PAUSE).await;
        assert!(is_logged(other, no_way));

        tokio::time::advance(REMIND_AFTER).await;
        let watch = reports.watch(watched);
        assert!(!is_logged(watched, no_way));
        drop(watch);
        assert!(!is_logged(watched, no_way), "the last words of a dial");
        tokio::time::advance(REMIND_AFTER).await;
        assert!(is_logged(watched, no_way));
    }
}
