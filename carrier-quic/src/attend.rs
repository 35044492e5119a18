//! What a connection does about a peer that may be gone: see `reports`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

use crate::{
    reports::{PortReports, canonical},
    shared::Shared,
};

/// How long a peer that is reported to be gone may take to prove the contrary, at least; on long paths, three round
/// trips. It is also the time between two probes for the sake of reports.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the peer may be silent while streams wait for its answer before it is probed.
const AWAITED_SILENCE: Duration = Duration::from_millis(500);

/// Nobody has the peer's port any more.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("nobody listens at {0} any more: its system reports the port as unreachable")]
pub(crate) struct Gone(pub(crate) SocketAddr);

/// How many streams wait for the peer's answer.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    count: AtomicUsize,
    first: Notify,
}

impl Awaited {
    /// Counts a stream, until the ticket is dropped.
    pub(crate) fn enter(&self) -> AwaitedTicket<'_> {
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first.notify_one();
        }
        AwaitedTicket(self)
    }

    fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }
}

/// A stream that waits for its answer.
#[derive(Debug)]
pub(crate) struct AwaitedTicket<'a>(&'a Awaited);

impl Drop for AwaitedTicket<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Follows up reports about the peer, and probes a silent one for whose answer somebody waits, until the connection
/// ends.
pub(crate) async fn attend(shared: Arc<Shared>, reports: PortReports) {
    let _registered = reports.register(&shared);
    let attending = async {
        loop {
            tokio::select! {
                biased;
                () = shared.reported.notified() => {
                    if let Some(gone) = examine(&shared, &reports).await {
                        return shared.give_up(gone);
                    }
                }
                () = silence(&shared) => shared.probe(),
            }
        }
    };
    tokio::select! {
        _ = shared.quic.closed() => {}
        () = attending => {}
    }
    shared.room.close();
}

/// Finds out whether a peer is gone of which that is reported.
async fn examine(shared: &Shared, reports: &PortReports) -> Option<Gone> {
    let peer = shared.quic.remote_address();
    let watch = reports.watch(peer);
    let before = shared.datagrams_received();
    shared.probe();
    sleep(PATIENCE.max(shared.quic.rtt() * 3)).await;
    let silent = shared.datagrams_received() == before;
    let moved = shared.quic.remote_address() != peer;
    (silent && !moved && watch.is_confirmed()).then(|| Gone(canonical(peer)))
}

/// Waits until streams wait for their answer and the peer has said nothing for a while.
///
/// When all that was sent has been acknowledged, nothing more is sent before the next keepalive, and so nothing would
/// be reported.
async fn silence(shared: &Shared) {
    loop {
        while !shared.awaited.any() {
            shared.awaited.first.notified().await;
        }
        let before = shared.datagrams_received();
        sleep(AWAITED_SILENCE).await;
        if shared.awaited.any() && shared.datagrams_received() == before {
            return;
        }
    }
}
