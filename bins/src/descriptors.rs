//! File descriptors: every file, every socket and every thread takes some, and the system grants a process only so many.
//!
//! Who asks whether the process lives must be answered also when clients and targets have taken all of them. So a few are
//! kept back, by a soft limit below what is granted: nobody can take those but while [`with_reserve`] runs.

use std::sync::{Mutex, OnceLock, PoisonError};
#[cfg(feature = "connect")]
use std::{fs::File, os::fd::AsRawFd as _};

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

/// How many clients a frontend may have that is to have as many as this: at most three quarters of what is free when the
/// program has started, so that agents find room when clients take all they can. More are told that there is no room, where
/// they would wait for an answer otherwise.
#[cfg(feature = "connect")]
pub(crate) fn for_clients(wanted: usize) -> usize {
    let Some(limits) = LIMITS.get() else {
        return wanted;
    };
    // A new one gets the lowest number that is free.
    let taken = File::open("/dev/null").map_or(0, |file| file.as_raw_fd());
    let free = limits.common.saturating_sub(taken.unsigned_abs().into());
    let most = usize::try_from(free / 4 * 3).unwrap_or(usize::MAX).max(1);
    if wanted > most {
        info!(
            "a frontend takes {most} clients instead of --max-clients {wanted}, because no more open files are granted \
             (ulimit -Hn, LimitNOFILE of systemd)"
        );
    }
    wanted.min(most)
}

/// How many connections the admin address may have, so that what is kept back is enough for them and for another one,
/// which comes before one of them is closed in its favour.
pub(crate) fn for_admin() -> usize {
    let kept = LIMITS.get().map_or(RESERVE, |limits| limits.all - limits.common);
    usize::try_from(kept).unwrap_or(usize::MAX).saturating_sub(1).max(1)
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
