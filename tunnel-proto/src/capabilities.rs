//! The names of optional abilities.

use std::collections::BTreeSet;

use crate::field::Problem;

/// Names of optional abilities that one end announces to the other, sorted. A name that the other end does not
/// know means nothing to it.
///
/// At most [`CapabilityNames::MAX_ENTRIES`] names of 1 to [`CapabilityNames::MAX_NAME`] bytes of visible ASCII.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilityNames(BTreeSet<String>);

impl CapabilityNames {
    /// The largest number of names.
    pub const MAX_ENTRIES: usize = 32;
    /// The longest name, in bytes.
    pub const MAX_NAME: usize = 64;

    /// Adds a name; gives `false` and leaves the names as they are when it is there already, a limit would be
    /// passed or a character is not allowed.
    pub fn insert(&mut self, name: &str) -> bool {
        self.add(name).is_ok()
    }

    pub(crate) fn add(&mut self, name: &str) -> Result<(), Problem> {
        let valid = (1..=Self::MAX_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
        if !valid {
            return Err(Problem::NotA("the name of a capability"));
        }
        if self.contains(name) {
            return Err(Problem::Twice);
        }
        if self.0.len() == Self::MAX_ENTRIES {
            return Err(Problem::TooMany);
        }
        self.0.insert(name.to_owned());
        Ok(())
    }

    /// Whether the name is among them.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// The names, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}
