//! Errors as people read them.

use std::{error::Error, fmt, time::Duration};

use tokio::time::Instant;

/// An error with its causes, in one line.
pub(super) struct Chain<'a>(pub(super) &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// How often a failure that lasts is worth a line in the log.
const REMIND_AFTER: Duration = Duration::from_secs(300);

/// Decides which failures are worth a line in the log: the first of each cause, and now and then one that lasts.
#[derive(Debug, Default)]
pub(super) struct Novelty {
    last: Option<(String, Instant)>,
}

impl Novelty {
    /// Whether to log this failure.
    pub(super) fn is_news(&mut self, cause: &str, now: Instant) -> bool {
        let known = self
            .last
            .as_ref()
            .is_some_and(|(last, at)| last == cause && now.saturating_duration_since(*at) < REMIND_AFTER);
        if !known {
            self.last = Some((cause.to_owned(), now));
        }
        !known
    }

    /// There was a success: the next failure is news, whatever its cause.
    pub(super) fn clear(&mut self) {
        self.last = None;
    }
}
