//! Values as people write them on a command line.

use std::{convert::Infallible, fmt, num::NonZeroUsize, str::FromStr, time::Duration};

/// A duration such as `10s`, `500ms` or `1m 30s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 500ms, 10s or 5m"))
}

/// A duration, or `off` for none.
pub fn optional_duration(text: &str) -> Result<OptionalDuration, String> {
    match text {
        "off" => Ok(OptionalDuration(None)),
        text => duration(text).map(|duration| OptionalDuration(Some(duration))),
    }
}

/// A limit in time that can be switched off. (A type of its own, because clap reads `Option` as "may be absent".)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionalDuration(pub Option<Duration>);

/// A text that may hold a secret, and so does not show in `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl FromStr for Hidden {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(..)")
    }
}

/// A number of threads.
pub fn threads(text: &str) -> Result<NonZeroUsize, String> {
    const MOST: usize = 1024;
    let number = text.parse().ok().filter(|number: &NonZeroUsize| number.get() <= MOST);
    number.ok_or_else(|| format!("write a number from 1 to {MOST}"))
}

/// A number of bytes such as `65536`, `256KiB`, `2MiB` or `1GiB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("write bytes as 65536, 256KiB, 2MiB or 1GiB".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "write bytes as 65536, 256KiB, 2MiB or 1GiB".to_owned())?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "so many bytes do not exist".to_owned())
}

/// What is wrong with a TOML text, and where, in one line.
pub(crate) fn toml_error(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', ", ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_binary_units() {
        assert_eq!(bytes("65536"), Ok(65536));
        assert_eq!(bytes("2MiB"), Ok(2 << 20));
        for wrong in ["", "MiB", "2MB", "-1", "1.5GiB", "99999999999GiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_program_has_a_thread_and_not_too_many() {
        assert_eq!(threads("4").map(NonZeroUsize::get), Ok(4));
        for wrong in ["0", "1025", "-1", "1.5", "x", ""] {
            assert_eq!(threads(wrong).unwrap_err(), "write a number from 1 to 1024", "{wrong}");
        }
    }

    #[test]
    fn a_mistake_in_toml_is_one_line_with_its_place() {
        let text = "[a]\nb = \n";
        let error = text.parse::<toml::Table>().unwrap_err();
        let said = toml_error(text, &error);
        assert!(said.starts_with("line 2: ") && !said.contains('\n'), "{said}");
    }

    #[test]
    fn a_limit_in_time_can_be_off() {
        assert_eq!(optional_duration("off"), Ok(OptionalDuration(None)));
        assert_eq!(
            optional_duration("5m"),
            Ok(OptionalDuration(Some(Duration::from_secs(300))))
        );
        assert!(optional_duration("5").unwrap_err().contains("10s"));
    }
}
