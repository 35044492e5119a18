//! How many streams move bulk at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::buffer::{LARGE, MEDIUM};

/// What the reads of all bulk transfers of the process may hold together, if that is [`MEDIUM`] or more for each. Where
/// the carrier does not say when there is room, what is read waits for its turn to be sent: more than the processors'
/// caches keep is slower to send than small reads are to make.
const BULK_BYTES: usize = 16 * 1024 * 1024;

/// Everybody who moves bulk in this process.
pub(super) static EVERYBODY: Crowd = Crowd::new();

/// Bulk transfers that share [`BULK_BYTES`].
#[derive(Debug)]
pub(super) struct Crowd(AtomicUsize);

impl Crowd {
    pub(super) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Counts a transfer until what is given is dropped.
    pub(super) fn join(&'static self) -> Member {
        self.0.fetch_add(1, Ordering::Relaxed);
        Member(self)
    }
}

/// A transfer that is counted.
#[derive(Debug)]
pub(super) struct Member(&'static Crowd);

impl Member {
    /// The most that it may read at once.
    pub(super) fn share(&self) -> usize {
        let members = self.0.0.load(Ordering::Relaxed).max(1);
        (BULK_BYTES / members).clamp(MEDIUM, LARGE)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
