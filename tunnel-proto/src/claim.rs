//! What an agent says of itself when it connects.

use std::{collections::BTreeMap, fmt};

use crate::AgentId;

/// What an agent says of itself when it connects (`docs/wire.md` §3.1). Nothing in it is true until the server
/// has checked it against the verified identity.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// The agent's name, unique among the agents of one identity domain.
    pub agent: AgentId,
    /// Which life of the agent this is; a higher one of the same identity takes over from a lower one.
    pub generation: Generation,
    /// Names and values that routing may select by.
    pub labels: Labels,
    /// The version of the agent's software, for people.
    pub software: String,
    /// Optional abilities of the agent, by name; an unknown name is ignored.
    pub capabilities: Vec<String>,
    /// What proves the claim when no certificate does, for example a bearer token.
    pub credential: Option<Secret>,
}

impl Claim {
    /// The longest software version, in bytes.
    pub const MAX_SOFTWARE: usize = 128;
    /// The largest number of capabilities.
    pub const MAX_CAPABILITIES: usize = 32;
    /// The longest name of a capability, in bytes.
    pub const MAX_CAPABILITY: usize = 64;
    /// The longest credential, in bytes.
    pub const MAX_CREDENTIAL: usize = 16 * 1024;

    /// A claim without labels, capabilities or credential.
    #[must_use]
    pub fn new(agent: AgentId, generation: Generation) -> Self {
        Self {
            agent,
            generation,
            labels: Labels::default(),
            software: String::new(),
            capabilities: Vec::new(),
            credential: None,
        }
    }
}

/// Which life of an agent a connection belongs to. Higher is newer; a process takes the time of its start in
/// milliseconds since the Unix epoch unless it knows better. It must fit a variable-length integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An agent's labels, sorted by name.
///
/// At most [`Labels::MAX_ENTRIES`], with names of 1 to [`Labels::MAX_NAME`] and values of at most
/// [`Labels::MAX_VALUE`] bytes of visible ASCII other than `,` and `=`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// The largest number of labels.
    pub const MAX_ENTRIES: usize = 64;
    /// The longest name, in bytes.
    pub const MAX_NAME: usize = 317;
    /// The longest value, in bytes.
    pub const MAX_VALUE: usize = 253;

    /// Adds a label or changes its value; gives `false` and leaves the labels as they are when a limit would be
    /// passed or a character is not allowed.
    #[must_use]
    pub fn insert(&mut self, name: &str, value: &str) -> bool {
        let allowed = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b',' && byte != b'=')
        };
        let fits = (self.0.len() < Self::MAX_ENTRIES || self.0.contains_key(name))
            && (1..=Self::MAX_NAME).contains(&name.len())
            && value.len() <= Self::MAX_VALUE
            && allowed(name)
            && allowed(value);
        if fits {
            self.0.insert(name.to_owned(), value.to_owned());
        }
        fits
    }

    /// The value of a label.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The labels, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether every label of `wanted` is here with the same value.
    #[must_use]
    pub fn contains_all(&self, wanted: &Self) -> bool {
        wanted.iter().all(|(name, value)| self.get(name) == Some(value))
    }

    /// The number of labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Bytes that must not reach a log: `Debug` hides them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps the bytes of a credential.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes themselves; compare them in constant time.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_does_not_show_in_debug_output() {
        let mut claim = Claim::new("node-7".parse().unwrap(), Generation(1));
        claim.credential = Some(Secret::new("hunter2"));
        assert!(!format!("{claim:?}").contains("hunter2"));
        assert!(!format!("{claim:?}").contains(&format!("{:?}", b"hunter2")));
    }
}
