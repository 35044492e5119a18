//! How a law says what it saw.

use std::{error::Error, fmt, fmt::Write as _, future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// What a law saw that it forbids.
#[derive(Debug)]
pub(super) struct Seen(pub(super) String);

/// What a law comes to.
pub(super) type Verdict<T = ()> = Result<T, Seen>;

/// Fails with what was seen unless a condition holds.
macro_rules! ensure {
    ($holds:expr, $($seen:tt)+) => {
        if !$holds {
            return Err($crate::conformance::seen::Seen(format!($($seen)+)));
        }
    };
}
pub(super) use ensure;

/// Turns an error into what was seen.
pub(super) trait OrSeen<T> {
    /// The value, or what was being done and the error with its causes.
    fn or_seen(self, doing: impl fmt::Display) -> Verdict<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> OrSeen<T> for Result<T, E> {
    fn or_seen(self, doing: impl fmt::Display) -> Verdict<T> {
        self.map_err(|error| {
            let error = error.into();
            let mut seen = format!("{doing} failed");
            let mut cause: Option<&dyn Error> = Some(&*error);
            while let Some(error) = cause {
                // Writing to a string does not fail.
                let _ = write!(seen, ": {error}");
                cause = error.source();
            }
            Seen(seen)
        })
    }
}

/// What the future gives, if it does within `limit`.
pub(super) async fn within<T>(limit: Duration, what: impl fmt::Display, future: impl Future<Output = T>) -> Verdict<T> {
    match timeout(limit, future).await {
        Ok(value) => Ok(value),
        Err(_elapsed) => Err(Seen(format!("{what}: nothing within {limit:?}"))),
    }
}

/// Waits until `holds` gives nothing to complain about, for at most `limit`.
pub(super) async fn eventually(limit: Duration, mut complaint: impl FnMut() -> Option<String>) -> Verdict {
    let deadline = Instant::now() + limit;
    while let Some(seen) = complaint() {
        if Instant::now() >= deadline {
            return Err(Seen(format!("{seen}, for {limit:?}")));
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
