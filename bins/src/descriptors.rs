//! File descriptors: every file, every socket and every thread takes some, and the system grants a process only so many.
//!
//! Who asks whether the process lives must be answered also when clients and targets have taken all of them. So a few are
//! kept back, by a soft limit below what is granted: nobody can take those but [`with_reserve`].

use std::sync::{Mutex, OnceLock, PoisonError};

use rlimit::Resource;
use tracing::info;

/// How many are kept back at most: enough for probes and scrapers that come at once and keep their connections.
const RESERVE: u64 = 16;

/// Of few, one in so many is kept back.
const SHARE: u64 = 8;

/// The limits are those of the process, and so is this.
static LIMITS: OnceLock<Limits> = OnceLock::new();

struct Limits {
    /// For everything.
    common: u64,
    /// With the reserve.
    all: u64,
    /// What the system grants, which stays as it is.
    hard: u64,
    /// One after the other, or the first to finish would take the reserve from under the next.
    turn: Mutex<()>,
}

/// Takes as many as the system grants, because the soft limit is 1,024 on many, and keeps some of them back. What it does not
/// grant is a limit like any other.
pub(crate) fn take() {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let Ok((all, hard)) = Resource::NOFILE.get() else {
        return;
    };
    let common = all - RESERVE.min(all / SHARE);
    if Resource::NOFILE.set(common, hard).is_ok() {
        let turn = Mutex::default();
        // The first call counts; there is no other.
        let _ = LIMITS.set(Limits {
            common,
            all,
            hard,
            turn,
        });
    }
}

/// Tells how many there are.
pub(crate) fn tell() {
    if let Some(Limits { common, all, .. }) = LIMITS.get() {
        let kept = all - common;
        info!("{common} files and sockets may be open at once, and {kept} more for the admin address");
    }
}

/// Runs what needs a descriptor, and may have one of the reserve. It must not take long: meanwhile others may, too.
pub(crate) fn with_reserve<T>(operation: impl FnOnce() -> T) -> T {
    let Some(limits) = LIMITS.get() else {
        return operation();
    };
    let _turn = limits.turn.lock().unwrap_or_else(PoisonError::into_inner);
    // If it cannot be had, the operation says what is wrong.
    let _ = Resource::NOFILE.set(limits.all, limits.hard);
    let done = operation();
    let _ = Resource::NOFILE.set(limits.common, limits.hard);
    done
}
