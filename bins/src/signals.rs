//! What the operating system asks of the process.

use anyhow::Context as _;
use tokio::signal::unix::{self, SignalKind};

use crate::reload::Reloads;

/// A request of the operating system or its operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: drain and end; the second time, end at once.
    Stop,
    /// SIGHUP: read certificates, tokens and policy again.
    Reload,
}

/// Why streams are cut: the drain has its deadline.
pub(crate) const LATE: &str = "the drain timeout is over";

/// Why streams are cut: the second signal to stop.
pub(crate) const TOLD_TWICE: &str = "told twice to stop";

/// The stream of signals, from the moment of its making.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// Takes the signals over from their default actions.
    pub fn new() -> anyhow::Result<Self> {
        let listen = |kind| unix::signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one. Cancel safe.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

/// Waits for a signal to stop, and reloads meanwhile when told to.
pub async fn wait_for_stop(signals: &mut Signals, reloads: &Reloads) {
    while signals.next().await == Signal::Reload {
        reloads.all();
    }
}
