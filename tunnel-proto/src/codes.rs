//! The codes with which streams and connections end: one table each (`docs/wire.md` §6).

use std::fmt;

use crate::VarInt;

/// Makes a code type of a table: number, constant, name on metrics and logs, meaning.
macro_rules! codes {
    (
        $(#[$outer:meta])* $name:ident {
            $( $value:literal $constant:ident $label:literal $meaning:literal; )*
        }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(VarInt);

        impl $name {
            $(
                #[doc = concat!($meaning, ". (", stringify!($value), ", `", $label, "`)")]
                pub const $constant: Self = Self(VarInt::from_u32($value));
            )*

            /// Every code that has a name, in the order of its number.
            pub const NAMED: &'static [Self] = &[$(Self::$constant),*];

            /// The code with this number; numbers without a name are kept as they are.
            #[must_use]
            pub const fn new(value: VarInt) -> Self {
                Self(value)
            }

            /// The number on the wire.
            #[must_use]
            pub const fn value(self) -> VarInt {
                self.0
            }

            /// A short name for metrics and logs, or `unknown`.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self.0.into_inner() {
                    $( $value => $label, )*
                    _ => "unknown",
                }
            }

            /// What the code means, as a clause that fits into a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self.0.into_inner() {
                    $( $value => $meaning, )*
                    _ => "a code this version does not know",
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} ({:#x})", self.label(), self.0.into_inner())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({} {:#x})"), self.label(), self.0.into_inner())
            }
        }
    };
}

codes! {
    /// Why one half of a stream ended before its clean end: sent with a reset or a stop.
    StreamCode {
        0x00 CANCELLED "cancelled" "the user of the stream gave it up";
        0x01 TARGET_RESET "target_reset" "the socket behind the stream was reset";
        0x02 TARGET_ERROR "target_error" "the socket behind the stream failed";
        0x03 IDLE "idle" "no byte moved within the idle limit";
        0x04 MEMORY "memory" "the process ran short of memory and this stream had stalled longest";
        0x05 REFUSED "refused" "the stream was refused or never answered";
        0x06 PROTOCOL "protocol" "the peer broke the stream protocol";
        0x07 POLICY "policy" "a change of policy no longer allows the stream";
        0x08 SHUTDOWN "shutdown" "the process is shutting down";
        0x09 INTERNAL "internal" "an internal error, which is a bug";
    }
}

codes! {
    /// Why a connection was closed.
    CloseCode {
        0x00 DONE "done" "the connection is no longer needed";
        0x01 SHUTDOWN "shutdown" "the process is shutting down";
        0x02 DRAINED "drained" "the connection was drained and its last stream has ended";
        0x03 REPLACED "replaced" "a newer generation of the same agent took over";
        0x04 PROTOCOL "protocol" "the peer broke the protocol";
        0x05 VERSION "version" "the two ends have no protocol version in common";
        0x06 UNAUTHORIZED "unauthorized" "the credential or the certificate was not accepted";
        0x07 FORBIDDEN "forbidden" "the identity may not claim this agent id";
        0x08 CONFLICT "conflict" "another identity holds this agent id";
        0x09 OVERLOADED "overloaded" "the server takes no more connections at the moment";
        0x0a TIMEOUT "timeout" "the peer did not act in time";
        0x0b FLOOD "flood" "the peer exceeded a limit that only abuse reaches";
        0x0c INTERNAL "internal" "an internal error, which is a bug";
    }
}

impl CloseCode {
    /// Whether dialling again can succeed without somebody changing a configuration first.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        !matches!(
            self,
            Self::VERSION | Self::UNAUTHORIZED | Self::FORBIDDEN | Self::CONFLICT
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_and_labels_are_unique() {
        let unique = |labels: Vec<&str>| labels.iter().collect::<HashSet<_>>().len() == labels.len();
        assert!(unique(StreamCode::NAMED.iter().map(|code| code.label()).collect()));
        assert!(unique(CloseCode::NAMED.iter().map(|code| code.label()).collect()));
        assert!(StreamCode::NAMED.is_sorted_by(|a, b| a < b));
        assert!(CloseCode::NAMED.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn an_unknown_number_is_kept() {
        let code = StreamCode::new(VarInt::from_u32(0x4242));
        assert_eq!(code.value().into_inner(), 0x4242);
        assert_eq!(code.to_string(), "unknown (0x4242)");
    }
}
