//! What is told of a remote in the log.

use std::{
    error::Error,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::bundle::Count;

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

/// Connections that are lost for the same cause within this time are one event. Those of a dead path are noticed at
/// different times, within the bound of keepalive.
const ONE_EVENT: Duration = Duration::from_secs(30);

/// Connections that are lost within this time are one event whatever the causes are: the end of a process shows in more
/// than one way.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Tells of a remote in the log: once, however many connections are kept with it. What is no news is for debugging.
#[derive(Debug, Default)]
pub(super) struct Report(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    loss: Novelty,
    /// When a loss was told last.
    loss_told: Option<Instant>,
    failure: Novelty,
    /// Why the remote takes no more connections than it has, and whether one of them is extra.
    surplus: Option<(String, bool)>,
    unneeded: Novelty,
    /// How many connections are up as it was told last, unless a loss was told since.
    up: Option<usize>,
}

/// Writes a line at this level if it is news.
macro_rules! tell {
    ($is_news:expr, $level:ident, $($line:tt)+) => {
        if $is_news { $level!($($line)+) } else { debug!($($line)+) }
    };
}

impl Report {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection has come up. Whose it is, is told by its owner; this tells how many there are, once no other is
    /// about to come.
    pub(super) fn connected(&self, name: &str, url: &str, count: Count) {
        let mut told = self.told();
        told.failure.clear();
        if count.up == count.all {
            told.surplus = None;
        }
        if count.all > 1 {
            let is_news = count.coming == 0 && told.up.is_none_or(|up| up < count.up);
            tell!(is_news, info, "{name}{count} are up, the latest with {url}");
            if is_news {
                told.up = Some(count.up);
            }
        }
    }

    /// A connection drains, or was lost for this cause, and is to be replaced after a wait.
    pub(super) fn lost(&self, name: &str, url: &str, cause: Option<&str>, count: Count, wait: Duration) {
        let (mut told, now) = (self.told(), Instant::now());
        let is_new_cause = told.loss.is_news(cause.unwrap_or_default(), now, ONE_EVENT);
        let is_told = told
            .loss_told
            .is_some_and(|at| now.saturating_duration_since(at) < AT_ONCE);
        let is_news = count.up == 0 || is_new_cause && !is_told;
        if is_news {
            told.loss_told = Some(now);
            told.up = None;
        }
        let Some(cause) = cause else {
            tell!(
                is_news,
                info,
                "{name}{url} is draining; connecting anew in {wait:.0?}, open streams go on"
            );
            return;
        };
        if count.up == 0 {
            warn!("{name}connection with {url} lost: {cause}; connecting again in {wait:.0?}");
        } else {
            let news = format_args!("a connection with {url} lost: {cause}; {count} are left");
            tell!(is_news, warn, "{name}{news}, connecting again in {wait:.0?}");
        }
    }

    /// An extra connection drains, because the streams that are open no longer call for it.
    pub(super) fn unneeded(&self, url: &str, up: usize) {
        let mut told = self.told();
        let is_news = told.unneeded.is_news("", Instant::now(), REMIND_AFTER);
        tell!(
            is_news,
            info,
            "fewer streams are open: a connection with {url} drains, connections that stay: {up}"
        );
        if is_news {
            told.up = Some(up);
        }
    }

    /// An attempt has failed for this cause. Without an extra connection nothing is amiss.
    pub(super) fn failed(&self, name: &str, cause: &str, count: Count, wait: Duration, is_extra: bool) {
        let is_news = self.told().failure.is_news(cause, Instant::now(), REMIND_AFTER);
        if count.up == 0 {
            tell!(
                is_news,
                warn,
                "{name}not connected: {cause}; trying again in {wait:.0?}"
            );
            return;
        }
        let news = format_args!("{name}only {count} are up: {cause}; trying again in {wait:.0?}");
        if is_extra {
            tell!(is_news, info, "{news}");
        } else {
            tell!(is_news, warn, "{news}");
        }
    }

    /// The remote takes no more connections than are up, for this cause. Without an extra one nothing is amiss.
    pub(super) fn surplus(&self, name: &str, cause: &str, count: Count, wait: Duration, is_extra: bool) {
        let mut told = self.told();
        let surplus = Some((cause.to_owned(), is_extra));
        let is_news = told.surplus != surplus;
        let news = format_args!("{count} are up and no more are taken: {cause}; the next try is in {wait:.0?}");
        if is_extra {
            tell!(is_news, info, "{name}{news}");
        } else {
            tell!(is_news, warn, "{name}{news}");
        }
        told.surplus = surplus;
    }
}

/// Decides which events are worth a line in the log: the first of each cause, and now and then one that lasts.
#[derive(Debug, Default)]
struct Novelty {
    last: Option<(String, Instant)>,
}

impl Novelty {
    /// Whether to log this event, which counts as known for as long.
    fn is_news(&mut self, cause: &str, now: Instant, known_for: Duration) -> bool {
        let known = self
            .last
            .as_ref()
            .is_some_and(|(last, at)| last == cause && now.saturating_duration_since(*at) < known_for);
        if !known {
            self.last = Some((cause.to_owned(), now));
        }
        !known
    }

    /// There was a success: the next failure is news, whatever its cause.
    fn clear(&mut self) {
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
            if novelty.is_news(cause, start + Duration::from_secs(secs), REMIND_AFTER) {
                told.push(secs);
            }
        }
        assert_eq!(told, [0, 2, 4, 304]);
        novelty.clear();
        assert!(novelty.is_news("refused", start + Duration::from_secs(306), REMIND_AFTER));
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
