//! Frames: how a message travels (`docs/wire.md` §2.1).

use std::fmt;

use bytes::Bytes;

use crate::{
    CloseCode, Message, VarInt,
    field::{FieldError, FieldWriter, Problem},
    message, mux,
};

/// One frame, its body not yet interpreted.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: FrameKind,
    /// The fields.
    pub body: Bytes,
}

impl Frame {
    /// The frame's bytes, whatever its body holds.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = FieldWriter::new();
        out.raw(&self.body);
        out.finish(self.kind.value())
    }

    /// The message that the body holds, or `None` if the kind is not known and the frame is to be skipped. A frame
    /// that is not in [`Message::KINDS`] because it belongs to a link is [`FrameError::Unexpected`].
    pub fn message(&self) -> Result<Option<Message>, FrameError> {
        self.kind
            .check_len(VarInt::saturating_from_u64(self.body.len() as u64))?;
        message::decode(self.kind, &self.body)
    }
}

/// Without the body, which may hold a credential.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({}, {} bytes)", self.kind, self.body.len())
    }
}

/// Makes the kinds of a table: number, variant, name in messages, longest body, meaning.
macro_rules! frame_kinds {
    ($( $value:literal $variant:ident $name:literal $limit:expr, $meaning:literal; )*) => {
        /// What a frame's body is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum FrameKind {
            $( #[doc = $meaning] $variant, )*
            /// A kind that this version does not know; its frames are skipped.
            Unknown(VarInt),
        }

        impl FrameKind {
            /// Every kind that this version knows, in the order of its number.
            pub const KNOWN: &'static [Self] = &[$(Self::$variant),*];

            /// The number on the wire.
            #[must_use]
            pub const fn value(self) -> VarInt {
                match self {
                    $( Self::$variant => VarInt::from_u32($value), )*
                    Self::Unknown(value) => value,
                }
            }

            /// The kind with this number.
            #[must_use]
            pub const fn from_value(value: VarInt) -> Self {
                match value.into_inner() {
                    $( $value => Self::$variant, )*
                    _ => Self::Unknown(value),
                }
            }

            /// The longest body of this kind that is accepted, in bytes. Every message that can be made fits, with
            /// room for fields of later versions.
            #[must_use]
            pub const fn max_body(self) -> usize {
                match self {
                    $( Self::$variant => $limit, )*
                    Self::Unknown(_) => 64 * 1024,
                }
            }
        }

        impl fmt::Display for FrameKind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $( Self::$variant => f.write_str($name), )*
                    Self::Unknown(value) => write!(f, "{:#x}", value.into_inner()),
                }
            }
        }
    };
}

frame_kinds! {
    0x01 Claim "CLAIM" 64 * 1024, "A [`Claim`](crate::Claim).";
    0x02 Welcome "WELCOME" 16 * 1024, "A [`Welcome`](crate::Welcome).";
    0x03 Rejection "REJECTION" 4 * 1024, "A [`Rejection`](crate::Rejection).";
    0x04 Head "HEAD" 16 * 1024, "A [`StreamHead`](crate::StreamHead).";
    0x05 Answer "ANSWER" 4 * 1024, "An [`Answer`](crate::Answer).";
    0x06 Drain "DRAIN" 4 * 1024, "A [`Drain`](crate::Drain).";
    0x10 Hello "HELLO" 4 * 1024, "A [`Hello`](crate::mux::Hello), first on a link.";
    0x11 Open "OPEN" VarInt::MAX_LEN + Self::Head.max_body(), "Opens a stream of a link.";
    0x12 OpenAnswer "OPEN_ANSWER" VarInt::MAX_LEN + Self::Answer.max_body(), "Confirms or refuses a stream of a link.";
    0x13 Data "DATA" VarInt::MAX_LEN + mux::MAX_PAYLOAD, "Payload of a stream of a link.";
    0x14 DataFin "DATA_FIN" VarInt::MAX_LEN + mux::MAX_PAYLOAD, "The last payload of a half of a stream.";
    0x15 Reset "RESET" 2 * VarInt::MAX_LEN, "The sender gives up its half of a stream.";
    0x16 Stop "STOP" 2 * VarInt::MAX_LEN, "The receiver wants no more of a stream.";
    0x17 MaxStreamData "MAX_STREAM_DATA" 2 * VarInt::MAX_LEN, "Credit for a half of a stream.";
    0x18 MaxData "MAX_DATA" VarInt::MAX_LEN, "Credit for a direction of a link.";
    0x19 MaxStreams "MAX_STREAMS" VarInt::MAX_LEN, "How many streams may be opened.";
    0x1a Ping "PING" 8, "Asks for a PONG.";
    0x1b Pong "PONG" 8, "Answers a PING.";
    0x1c Close "CLOSE" 4 * 1024, "Ends a link.";
}

impl FrameKind {
    /// The announced length of a body, if a body of this kind may have it.
    pub fn check_len(self, len: VarInt) -> Result<usize, FrameError> {
        let limit = self.max_body();
        match usize::try_from(len.into_inner()) {
            Ok(len) if len <= limit => Ok(len),
            _ => Err(FrameError::TooLong {
                kind: self,
                len: len.into_inner(),
                limit,
            }),
        }
    }
}

/// The peer broke the frame protocol. It cannot be repaired: nothing is known about the bytes that follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame announces a body that is longer than its kind allows.
    #[error("the {kind} frame announces {len} bytes; at most {limit} are allowed")]
    TooLong {
        /// The kind of the frame.
        kind: FrameKind,
        /// The announced length.
        len: u64,
        /// [`FrameKind::max_body`].
        limit: usize,
    },
    /// A frame of a kind that has no place here.
    #[error("a {kind} frame came where {} was expected", list(expected))]
    Unexpected {
        /// The kind of the frame.
        kind: FrameKind,
        /// The kinds that may come here.
        expected: &'static [FrameKind],
    },
    /// A message of a link is longer than [`mux::MAX_MESSAGE`].
    #[error("a message of {len} bytes; at most {} are allowed", mux::MAX_MESSAGE)]
    MessageTooLong {
        /// How long it is, in bytes.
        len: usize,
    },
    /// The bytes ended inside a frame.
    #[error("the bytes ended inside {}", incomplete(*.kind))]
    Incomplete {
        /// The kind of the frame, if that much had come.
        kind: Option<FrameKind>,
    },
    /// A frame's body could not be read.
    #[error(transparent)]
    Malformed(#[from] MalformedFrame),
    /// The peer speaks no version of the protocol that this end speaks.
    #[error(
        "the peer offers protocol versions {offered:?}; this end speaks {:?}",
        crate::PROTOCOL_VERSIONS
    )]
    Version {
        /// The versions in its claim or welcome.
        offered: Vec<u64>,
    },
}

impl FrameError {
    /// The code with which the connection should close.
    #[must_use]
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::Version { .. } => CloseCode::VERSION,
            _ => CloseCode::PROTOCOL,
        }
    }
}

/// A frame whose body could not be read: which frame, which field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MalformedFrame {
    /// The kind of the frame.
    pub kind: FrameKind,
    /// The field's name in `docs/wire.md`; none if the body ends before it says which field follows.
    pub field: Option<&'static str>,
    /// What is wrong.
    pub problem: Problem,
}

impl MalformedFrame {
    pub(crate) fn new(kind: FrameKind, error: FieldError, names: &[(u64, &'static str)]) -> Self {
        let name = |id| match names.iter().find(|(known, _)| *known == id) {
            Some((_, name)) => name,
            None => "unknown",
        };
        Self {
            kind,
            field: error.id.map(name),
            problem: error.problem,
        }
    }
}

impl fmt::Display for MalformedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field {
            Some(field) => write!(f, "{} frame, field {field}: {}", self.kind, self.problem),
            None => write!(f, "{} frame: {}", self.kind, self.problem),
        }
    }
}

impl std::error::Error for MalformedFrame {
    /// What is below the problem, which the message already tells.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.problem)
    }
}

fn list(kinds: &[FrameKind]) -> String {
    let names: Vec<_> = kinds.iter().map(ToString::to_string).collect();
    names.join(" or ")
}

fn incomplete(kind: Option<FrameKind>) -> String {
    kind.map_or_else(
        || "the header of a frame".to_owned(),
        |kind| format!("the {kind} frame"),
    )
}
