//! Names with `*` in them.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de::Error as _};

/// A name in which `*` stands for any run of characters, dots and slashes among them, or for none.
///
/// Nothing else is special: `?`, `[` and `\` are themselves. Matching takes time linear in the text and the pattern.
///
/// ```
/// use tunnel_core::policy::Pattern;
///
/// let agents: Pattern = "node-*".parse()?;
/// assert!(agents.matches("node-7") && !agents.matches("Node-7"));
///
/// let hosts = Pattern::host("*.svc.cluster.local")?;
/// assert!(hosts.matches("DNS.kube-system.svc.cluster.local."));
/// # Ok::<(), tunnel_core::policy::InvalidPattern>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// As it was written, or in the normal form of host names.
    text: String,
    is_host: bool,
}

/// The text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPattern {
    /// Nothing would match it.
    #[error("a pattern cannot be empty; `*` matches everything")]
    Empty,
    /// It is longer than [`Pattern::MAX`].
    #[error("a pattern has at most {} bytes, this one has {len}", Pattern::MAX, len = .0)]
    TooLong(usize),
}

impl Pattern {
    /// The longest pattern, in bytes: twice the longest name that it can be asked about.
    pub const MAX: usize = 512;

    /// A pattern for host names: case does not matter, nor does the dot that may end a fully qualified name (RFC 1034
    /// §3.1). Otherwise a rule about a name could be evaded by another spelling of the same name.
    pub fn host(text: &str) -> Result<Self, InvalidPattern> {
        let Self { text, .. } = host_form(text).parse()?;
        Ok(Self { text, is_host: true })
    }

    /// Whether the pattern stands for the whole of `text`.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let text = if self.is_host {
            host_form(text)
        } else {
            Cow::Borrowed(text)
        };
        let Some((head, rest)) = self.text.split_once('*') else {
            return self.text == text;
        };
        let Some(mut left) = text.strip_prefix(head) else {
            return false;
        };
        // The leftmost place of each inner part leaves the most for those behind it, so nothing is ever tried twice.
        let mut parts = rest.split('*');
        let tail = parts.next_back().unwrap_or_default();
        for part in parts {
            match left.find(part) {
                Some(at) => left = &left[at + part.len()..],
                None => return false,
            }
        }
        left.ends_with(tail)
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The spelling in which host names are compared: lower case and without the final dot.
fn host_form(name: &str) -> Cow<'_, str> {
    let name = match name.strip_suffix('.') {
        Some(bare) if !bare.is_empty() => bare,
        _ => name,
    };
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    /// A pattern that is compared byte for byte.
    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        match text.len() {
            0 => Err(InvalidPattern::Empty),
            1..=Self::MAX => Ok(Self {
                text: text.to_owned(),
                is_host: false,
            }),
            len => Err(InvalidPattern::TooLong(len)),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    /// As [`FromStr`]; host patterns are made by whoever knows that they are.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_star_stands_for_any_run() {
        for (text, matching, other) in [
            ("*", &["", "x", "a.b/c"][..], &[][..]),
            ("node-*", &["node-", "node-7"], &["node", "xnode-7", "Node-7"]),
            (
                "*.example",
                &["a.example", "a.b.example", ".example"],
                &["example", "a.example.org"],
            ),
            ("a*b*c", &["abc", "axxbyyc", "abbcc", "abcbc"], &["ab", "acb", "abcd"]),
            ("a**b", &["ab", "axb"], &["a", "b"]),
            ("aba*aba", &["abaaba", "aba.aba"], &["aba", "ababa"]),
            ("a?c", &["a?c"], &["abc"]),
        ] {
            let glob = pattern(text);
            for text in matching {
                assert!(glob.matches(text), "{glob} should match {text:?}");
            }
            for text in other {
                assert!(!glob.matches(text), "{glob} should not match {text:?}");
            }
        }
    }

    #[test]
    fn host_names_are_compared_without_case_and_final_dot() {
        let hosts = Pattern::host("*.Internal.").unwrap();
        for name in ["a.internal", "A.INTERNAL", "a.internal."] {
            assert!(hosts.matches(name), "{name}");
        }
        assert!(!hosts.matches("a.internal.example"));
        assert_eq!(hosts.to_string(), "*.internal");
    }

    #[test]
    fn empty_and_overlong_patterns_are_refused() {
        assert_eq!("".parse::<Pattern>(), Err(InvalidPattern::Empty));
        assert_eq!("x".repeat(513).parse::<Pattern>(), Err(InvalidPattern::TooLong(513)));
        assert_eq!(Pattern::host(""), Err(InvalidPattern::Empty));
    }

    /// The definition, by trying everything.
    fn matches_by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skip| matches_by_definition(rest, &text[skip..])),
            Some((first, rest)) => text.first() == Some(first) && matches_by_definition(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(glob in "[ab*]{1,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(pattern(&glob).matches(&text), matches_by_definition(glob.as_bytes(), text.as_bytes()));
        }
    }
}
