//! Errors as people read them.

use std::{error::Error, fmt, time::Duration};

use tokio::time::Instant;

/// An error with its causes, in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn Error);

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
pub(crate) struct Novelty {
    last: Option<(String, Instant)>,
}

impl Novelty {
    /// Whether to log this failure.
    pub(crate) fn is_news(&mut self, cause: &str, now: Instant) -> bool {
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
    pub(crate) fn clear(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_news_once_for_each_cause_and_now_and_then() {
        let start = Instant::now();
        let mut novelty = Novelty::default();
        let mut told = Vec::new();
        for (secs, cause) in [
            (0, "refused"),
            (1, "refused"),
            (2, "unauthorized"),
            (3, "unauthorized"),
            (4, "refused"),
            (200, "refused"),
            (304, "refused"),
            (305, "refused"),
        ] {
            if novelty.is_news(cause, start + Duration::from_secs(secs)) {
                told.push(secs);
            }
        }
        assert_eq!(told, [0, 2, 4, 304]);
        novelty.clear();
        assert!(novelty.is_news("refused", start + Duration::from_secs(306)));
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let error = crate::error::DialError::Unreachable {
            remote: "quic://gw.example:8091".to_owned(),
            source: std::sync::Arc::new(std::io::Error::other("no route")),
        };
        assert_eq!(
            Chain(&error).to_string(),
            "cannot reach quic://gw.example:8091: no route"
        );
    }
}
