//! Points in time.

use std::time::Duration;

use tokio::time::Instant;

/// Longer waits are cut to this: the sum of a longer one and a point in time may not exist.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// When a wait that begins at `start` is over.
pub(crate) fn after(start: Instant, wait: Duration) -> Instant {
    start + wait.min(LONGEST)
}
