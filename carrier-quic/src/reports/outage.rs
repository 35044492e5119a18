//! Whether this system can send to an address at all.

use std::{io, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

/// How long every packet must have failed before it is believed that there is no way. quinn sends the first packets of a
/// connection again after a second, so a route that is back by then has done no harm.
const CERTAIN: Duration = Duration::from_millis(500);

/// What this system says of the packets to one address.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// When the first of those that failed was to be sent, if none has been sent since.
    since: Option<Instant>,
    /// The last error, each time it is certain that there is no way.
    certain: watch::Sender<Option<Arc<io::Error>>>,
}

impl Outage {
    pub(super) fn sent(&mut self) {
        self.since = None;
    }

    pub(super) fn failed(&mut self, error: io::Error) {
        if self.since.get_or_insert_with(Instant::now).elapsed() >= CERTAIN {
            self.certain.send_replace(Some(Arc::new(error)));
        }
    }

    pub(super) fn watch(&self) -> OutageWatch {
        OutageWatch(self.certain.subscribe())
    }
}

/// Watches for an outage.
#[derive(Debug)]
pub(super) struct OutageWatch(watch::Receiver<Option<Arc<io::Error>>>);

impl OutageWatch {
    /// Waits until a packet has failed and it is certain that there is no way.
    pub(super) async fn certain(&mut self) -> Arc<io::Error> {
        loop {
            // The sender stays as long as the watch.
            let _ = self.0.changed().await;
            if let Some(error) = &*self.0.borrow_and_update() {
                return Arc::clone(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn unreachable() -> io::Error {
        io::ErrorKind::NetworkUnreachable.into()
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_certain_when_every_packet_has_failed_for_a_while() {
        let mut outage = Outage::default();
        let mut watch = outage.watch();
        // However many at once, and whatever failed before one was sent.
        for _ in 0..10 {
            outage.failed(unreachable());
            advance(CERTAIN / 20).await;
        }
        outage.sent();
        advance(CERTAIN * 2).await;
        outage.failed(unreachable());
        assert!(!watch.0.has_changed().unwrap());

        advance(CERTAIN).await;
        let mut late = outage.watch();
        outage.failed(unreachable());
        assert_eq!(watch.certain().await.kind(), io::ErrorKind::NetworkUnreachable);
        assert_eq!(late.certain().await.kind(), io::ErrorKind::NetworkUnreachable);
        assert!(
            !outage.watch().0.has_changed().unwrap(),
            "what failed before does not count"
        );
    }
}
