//! How long a caller is ready to wait for the end of its call (gRPC over HTTP/2, "Timeout").

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;
use tonic::Status;

const TIMEOUT: &str = "grpc-timeout";
/// The longest value, in digits.
const DIGITS: usize = 8;

/// A timeout that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("grpc-timeout is not a number of at most {DIGITS} digits and one of the units H, M, S, m, u and n")]
pub(crate) struct BadTimeout;

/// When the caller gives up a call that has come `now`, if it has said so.
pub(crate) fn of(headers: &HeaderMap, now: Instant) -> Result<Option<Instant>, BadTimeout> {
    let mut values = headers.get_all(TIMEOUT).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match (parse(value.as_bytes()), values.next()) {
        // One that no clock reaches is none.
        (Some(timeout), None) => Ok(now.checked_add(timeout)),
        _ => Err(BadTimeout),
    }
}

fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(3600 * number)),
        b'M' => Some(Duration::from_secs(60 * number)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// What ends a call whose deadline has passed.
pub(crate) fn exceeded() -> Status {
    Status::deadline_exceeded("the deadline that the call came with has passed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_specification_has_them() {
        for (value, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("0n", Some(Duration::ZERO)),
            ("00000001S", Some(Duration::from_secs(1))),
            ("99999999H", Some(Duration::from_secs(3600 * 99_999_999))),
            ("100000000n", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("+1S", None),
            ("-1S", None),
            ("1.5S", None),
            ("1 S", None),
            (" 1S", None),
            ("", None),
        ] {
            assert_eq!(parse(value.as_bytes()), expected, "{value:?}");
        }
    }

    #[test]
    fn there_is_one_or_none() {
        let now = Instant::now();
        let mut headers = HeaderMap::new();
        assert_eq!(of(&headers, now), Ok(None));
        headers.insert(TIMEOUT, http::HeaderValue::from_static("1S"));
        assert_eq!(of(&headers, now), Ok(Some(now + Duration::from_secs(1))));
        headers.append(TIMEOUT, http::HeaderValue::from_static("1S"));
        assert_eq!(of(&headers, now), Err(BadTimeout));
    }
}
