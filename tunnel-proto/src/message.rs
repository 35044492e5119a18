//! Messages: what the frames of this version hold.

use bytes::Bytes;

use crate::{
    Answer, Claim, Drain, FrameError, FrameKind, MalformedFrame, Rejection, StreamHead, Welcome,
    field::{FieldError, FieldWriter, Fields, required},
};

/// The versions of the protocol that this crate speaks, best first (`docs/wire.md` §8.1).
pub const PROTOCOL_VERSIONS: &[u64] = &[1];

/// The fields of one kind of message.
pub(crate) trait Body: Sized {
    const KIND: FrameKind;
    /// The identifiers of the fields and their names in `docs/wire.md`.
    const FIELDS: &'static [(u64, &'static str)];

    fn write(&self, out: &mut FieldWriter);
    fn read(fields: Fields<'_>) -> Result<Self, BodyError>;
}

/// Why a body could not be read.
#[derive(Debug)]
pub(crate) enum BodyError {
    Field(FieldError),
    Version(Vec<u64>),
}

impl From<FieldError> for BodyError {
    fn from(error: FieldError) -> Self {
        Self::Field(error)
    }
}

/// Takes the list of versions out of a claim or a welcome, before anything else is interpreted: the rest may
/// be of a version that this end does not know.
pub(crate) fn offered_versions(fields: Fields<'_>, id: u64) -> Result<(), BodyError> {
    let value = required(id, fields.find(id)?)?;
    let offered = value
        .integers(MAX_VERSIONS)
        .map_err(|problem| FieldError::new(id, problem))?;
    if offered.iter().any(|version| PROTOCOL_VERSIONS.contains(version)) {
        Ok(())
    } else {
        Err(BodyError::Version(offered))
    }
}

/// The longest list of versions.
const MAX_VERSIONS: usize = 16;

/// Makes [`Message`] of a table: kind and type.
macro_rules! messages {
    ($( $kind:ident $type:ident; )*) => {
        /// Anything that one end of a tunnel says to the other in a frame.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Message {
            $( #[doc = concat!("See [`", stringify!($type), "`].")] $kind($type), )*
        }

        impl Message {
            /// The kinds of the frames that hold a message; the others belong to a link (`docs/wire.md` §9.4).
            pub const KINDS: &'static [FrameKind] = &[$(FrameKind::$kind),*];

            /// The kind of the frame that the message travels in.
            #[must_use]
            pub const fn kind(&self) -> FrameKind {
                match self { $( Self::$kind(_) => FrameKind::$kind, )* }
            }

            /// The whole frame. It always fits [`FrameKind::max_body`].
            #[must_use]
            pub fn encode(&self) -> Bytes {
                match self { $( Self::$kind(message) => message.encode(), )* }
            }
        }

        $(
            impl $type {
                /// The whole frame. It always fits [`FrameKind::max_body`].
                #[must_use]
                pub fn encode(&self) -> Bytes {
                    let mut out = FieldWriter::new();
                    self.write(&mut out);
                    out.finish(Self::KIND.value())
                }
            }

            impl From<$type> for Message {
                fn from(message: $type) -> Self {
                    Self::$kind(message)
                }
            }
        )*

        pub(crate) fn decode(kind: FrameKind, body: &[u8]) -> Result<Option<Message>, FrameError> {
            match kind {
                $( FrameKind::$kind => read::<$type>(kind, body).map(|message| Some(message.into())), )*
                FrameKind::Unknown(_) => Ok(None),
                _ => Err(FrameError::Unexpected { kind, expected: Message::KINDS }),
            }
        }
    };
}

messages! {
    Claim Claim;
    Welcome Welcome;
    Rejection Rejection;
    Head StreamHead;
    Answer Answer;
    Drain Drain;
}

/// Reads the fields of a `T` out of a frame of this kind.
pub(crate) fn read<T: Body>(kind: FrameKind, fields: &[u8]) -> Result<T, FrameError> {
    T::read(Fields::new(fields)).map_err(|error| match error {
        BodyError::Field(error) => MalformedFrame::new(kind, error, T::FIELDS).into(),
        BodyError::Version(offered) => FrameError::Version { offered },
    })
}
