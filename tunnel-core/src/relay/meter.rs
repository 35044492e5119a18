//! Counting bytes as they pass.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

/// Is told of bytes as they pass, so that long streams show on metrics while they live. It is called for every chunk:
/// it must not block.
pub trait Meter: fmt::Debug + Send + Sync {
    /// A stream took bytes from a socket.
    fn sent(&self, bytes: u64);

    /// A socket took bytes from a stream.
    fn received(&self, bytes: u64);
}

/// Two counters, shared by any number of relays.
#[derive(Debug, Default)]
pub struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Counters {
    /// Bytes that streams have taken from sockets.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that sockets have taken from streams.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Meter for Counters {
    fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }
}
