//! Bytes that prove something.

use std::{fmt, hint::black_box};

/// Bytes that must not reach a log, such as a bearer token: `Debug` hides them, and comparing two of the same
/// length takes the same time wherever they differ.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

/// The bytes cannot be a secret: there are none, or too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret has 1 to {max} bytes, not {0}", max = Secret::MAX)]
pub struct InvalidSecret(pub usize);

impl Secret {
    /// The longest secret, in bytes.
    pub const MAX: usize = 16 * 1024;

    /// Wraps 1 to [`Secret::MAX`] bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, InvalidSecret> {
        let bytes = bytes.into();
        if !(1..=Self::MAX).contains(&bytes.len()) {
            return Err(InvalidSecret(bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// The bytes themselves.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        let difference = pairs.fold(0, |difference, (a, b)| black_box(difference | (a ^ b)));
        self.0.len() == other.0.len() && difference == 0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_show_in_debug_output() {
        let secret = Secret::new("hunter2").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn it_equals_itself_alone() {
        let secret = |text: &str| Secret::new(text).unwrap();
        assert_eq!(secret("hunter2"), secret("hunter2"));
        for other in ["hunter3", "Hunter2", "hunter", "hunter22"] {
            assert_ne!(secret("hunter2"), secret(other));
        }
    }

    #[test]
    fn it_is_neither_empty_nor_huge() {
        assert_eq!(Secret::new(""), Err(InvalidSecret(0)));
        assert!(Secret::new(vec![0; Secret::MAX]).is_ok());
        assert_eq!(
            Secret::new(vec![0; Secret::MAX + 1]),
            Err(InvalidSecret(Secret::MAX + 1))
        );
    }
}
