//! Points in time, as people read them.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// Seconds since 1970 that print as `2026-11-21 10:03:21 UTC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(i64);

impl Date {
    /// A date from seconds since 1970 (negative before it).
    #[must_use]
    pub const fn from_unix(seconds: i64) -> Self {
        Self(seconds)
    }

    /// The present.
    #[must_use]
    pub fn now() -> Self {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        Self(i64::try_from(seconds).unwrap_or(i64::MAX))
    }

    /// Seconds since 1970.
    #[must_use]
    pub const fn as_unix(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match OffsetDateTime::from_unix_timestamp(self.0) {
            Ok(t) => write!(
                f,
                "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
                t.year(),
                u8::from(t.month()),
                t.day(),
                t.hour(),
                t.minute(),
                t.second()
            ),
            // Only dates outside the years -9999 to 9999 end here.
            Err(_) => write!(f, "{} seconds after 1970", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_prints_as_people_read_it() {
        assert_eq!(Date::from_unix(1_795_255_401).to_string(), "2026-11-21 10:03:21 UTC");
        assert_eq!(Date::from_unix(-1).to_string(), "1969-12-31 23:59:59 UTC");
        assert_eq!(
            Date::from_unix(i64::MAX).to_string(),
            "9223372036854775807 seconds after 1970"
        );
    }
}
