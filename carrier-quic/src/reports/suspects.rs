//! What is remembered of packets to addresses that are watched.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

use super::{
    PortReports,
    outage::{Outage, OutageWatch},
};

/// How many bytes of the beginning of a packet are remembered.
pub(crate) const QUOTE: usize = 24;
/// How many of them a report has to quote. That is flags and a connection id of eight bytes with encrypted ones behind
/// it, or all of the connection id that a client begins with (RFC 9000 §17.2).
const MIN_QUOTE: usize = 16;
/// How many packets are remembered for each address. A peer that does not answer is sent no more than a few, but what
/// was under way already is not distinguished.
const REMEMBERED: usize = 32;

/// The addresses that are watched.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// How many there are, so that sending costs nothing more while there are none.
    count: AtomicUsize,
    by_addr: Mutex<HashMap<SocketAddr, Suspect>>,
}

#[derive(Debug, Default)]
struct Suspect {
    watches: usize,
    sent: VecDeque<[u8; QUOTE]>,
    /// Counts the reports that quote what was sent.
    confirmed: watch::Sender<u64>,
    outage: Outage,
}

impl Suspects {
    pub(super) fn watch(reports: &PortReports, addr: SocketAddr) -> Watch {
        let suspects = reports.suspects();
        let mut by_addr = suspects.lock();
        let suspect = by_addr.entry(addr).or_default();
        suspect.watches += 1;
        let confirmed = suspect.confirmed.subscribe();
        let outage = suspect.outage.watch();
        suspects.count.store(by_addr.len(), Ordering::Relaxed);
        drop(by_addr);
        Watch {
            reports: reports.clone(),
            addr,
            confirmed,
            outage,
        }
    }

    /// Whether it makes sense to call what is below.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Remembers the packets, which are about to be sent.
    pub(super) fn remember<'a>(&self, addr: SocketAddr, packets: impl Iterator<Item = &'a [u8]>) {
        if let Some(suspect) = self.lock().get_mut(&addr) {
            for beginning in packets.filter_map(|packet| packet.first_chunk()) {
                suspect.sent.truncate(REMEMBERED - 1);
                suspect.sent.push_front(*beginning);
            }
        }
    }

    /// The system has taken a packet.
    pub(super) fn sent(&self, addr: SocketAddr) {
        if let Some(suspect) = self.lock().get_mut(&addr) {
            suspect.outage.sent();
        }
    }

    /// The system has not taken a packet. Gives the error back if the address is not watched.
    pub(super) fn failed(&self, addr: SocketAddr, error: io::Error) -> Option<io::Error> {
        match self.lock().get_mut(&addr) {
            Some(suspect) => {
                suspect.outage.failed(error);
                None
            }
            None => Some(error),
        }
    }

    /// Confirms the suspicion if the report quotes what was sent.
    pub(super) fn reported(&self, addr: SocketAddr, quoted: &[u8]) {
        if quoted.len() < MIN_QUOTE || !self.any() {
            return;
        }
        let quoted = &quoted[..quoted.len().min(QUOTE)];
        if let Some(suspect) = self.lock().get(&addr)
            && suspect.sent.iter().any(|sent| sent.starts_with(quoted))
        {
            suspect.confirmed.send_modify(|count| *count += 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Suspect>> {
        // Nothing panics while it is held.
        self.by_addr.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why nothing that is sent to an address arrives.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeadEnd {
    /// The peer's system says that no process has the port.
    #[error("nobody listens on that UDP port")]
    Port,
    /// This system says that there is no way.
    #[error(transparent)]
    Way(Arc<io::Error>),
}

/// Watches for reports about an address, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    reports: PortReports,
    addr: SocketAddr,
    confirmed: watch::Receiver<u64>,
    outage: OutageWatch,
}

impl Watch {
    pub(crate) fn reports(&self) -> &PortReports {
        &self.reports
    }

    /// Whether a report has come that quotes what was sent since the watch began.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed.has_changed().unwrap_or(false)
    }

    /// Waits for that, or until this system has taken no packet to the address for a while.
    pub(crate) async fn dead_end(&mut self) -> DeadEnd {
        tokio::select! {
            biased;
            // The sender stays as long as the watch.
            _ = self.confirmed.changed() => DeadEnd::Port,
            error = self.outage.certain() => DeadEnd::Way(error),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let suspects = self.reports.suspects();
        let mut by_addr = suspects.lock();
        if let Some(suspect) = by_addr.get_mut(&self.addr) {
            suspect.watches -= 1;
            if suspect.watches == 0 {
                by_addr.remove(&self.addr);
            }
        }
        suspects.count.store(by_addr.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "192.0.2.1:4433";

    /// Whether this report is believed of a peer that was sent `packets` under watch.
    fn believed(packets: &[Vec<u8>], from: &str, quoted: &[u8]) -> bool {
        let reports = PortReports::new();
        let watch = reports.watch(PEER.parse().unwrap());
        let packets = packets.iter().map(Vec::as_slice);
        reports.suspects().remember(PEER.parse().unwrap(), packets);
        reports.unreachable(from.parse().unwrap(), quoted);
        watch.is_confirmed()
    }

    #[tokio::test]
    async fn only_a_report_that_quotes_what_was_sent_there_is_believed() {
        let sent: Vec<u8> = (0..40).collect();
        let other: Vec<u8> = (0..40).rev().collect();
        let packets = [other.clone(), sent.clone()];
        assert!(believed(&packets, PEER, &sent));
        assert!(believed(&packets, PEER, &other));
        assert!(believed(&packets, PEER, &sent[..16]));
        assert!(believed(&packets, "[::ffff:192.0.2.1]:4433", &sent), "the same address");
        assert!(!believed(&packets, PEER, &sent[..15]), "too short");
        assert!(!believed(&packets, PEER, &[]));
        assert!(!believed(&packets, PEER, &sent[1..]));
        assert!(!believed(&packets, "192.0.2.1:4434", &sent));
        assert!(!believed(&[], PEER, &sent));
        assert!(
            !believed(&[vec![0; 10]], PEER, &[0; 16]),
            "a packet too short to be told from others"
        );
    }

    #[tokio::test]
    async fn what_was_sent_before_the_watch_is_no_proof() {
        let reports = PortReports::new();
        let (addr, packet) = (PEER.parse().unwrap(), [7; 40]);
        reports.suspects().remember(addr, [packet.as_slice()].into_iter());
        let watch = reports.watch(addr);
        reports.unreachable(addr, &packet);
        assert!(!watch.is_confirmed());

        // Nor what was quoted before a second one.
        reports.suspects().remember(addr, [packet.as_slice()].into_iter());
        reports.unreachable(addr, &packet);
        assert!(watch.is_confirmed());
        assert!(!reports.watch(addr).is_confirmed());
        assert!(watch.is_confirmed(), "the end of one watch is not that of another");
    }

    #[tokio::test]
    async fn memory_is_bounded_and_given_back() {
        let reports = PortReports::new();
        let addr = PEER.parse().unwrap();
        let watch = reports.watch(addr);
        let packet = [7; QUOTE];
        reports
            .suspects()
            .remember(addr, std::iter::repeat_n(packet.as_slice(), 1000));
        assert_eq!(reports.suspects().lock()[&addr].sent.len(), REMEMBERED);
        drop(watch);
        assert!(!reports.suspects().any());
        assert!(reports.suspects().lock().is_empty());
    }
}
