//! The names of agents and servers.

use std::{fmt, str::FromStr};

/// The text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to 253 letters, digits, '-', '_', '.' or ':'")]
pub struct InvalidId;

macro_rules! id {
    ($(#[$outer:meta])* $name:ident) => {
        $(#[$outer])*
        ///
        /// It has 1 to 253 bytes, which is enough for a Kubernetes node name, of letters, digits, `-`, `_`, `.` and
        /// `:`, so that it fits into headers, metrics and logs as it stands.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The longest id, in bytes.
            pub const MAX: usize = 253;

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let valid = (1..=Self::MAX).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
                if valid { Ok(Self(text.to_owned())) } else { Err(InvalidId) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// The name of an agent, unique among the agents of a server.
    AgentId
}

id! {
    /// The name of a server.
    ServerId
}
