//! The bodies with fields that only a link has.

use super::super::StreamId;
use crate::{
    CloseCode, FrameKind, Text, VarInt,
    field::{FieldWriter, Fields, Problem, once, required},
    message::{Body, BodyError},
};

/// What an end grants its peer from the start (`docs/wire.md` §9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hello {
    /// How many streams the receiver of this may open, until a MAX_STREAMS raises it. At most
    /// [`StreamId::MAX_COUNT`]; more is sent as that.
    pub max_streams: u64,
    /// How many bytes the receiver of this may send on each stream, until a MAX_STREAM_DATA raises it. At most
    /// [`VarInt::MAX`]; more is sent as that.
    pub stream_window: u64,
    /// How many bytes the receiver of this may send on all streams together, until a MAX_DATA raises it. At most
    /// [`VarInt::MAX`]; more is sent as that.
    pub connection_window: u64,
}

impl Hello {
    /// Makes one; values above their limits are cut to them.
    #[must_use]
    pub fn new(max_streams: u64, stream_window: u64, connection_window: u64) -> Self {
        let offset = |value| VarInt::saturating_from_u64(value).into_inner();
        Self {
            max_streams: max_streams.min(StreamId::MAX_COUNT),
            stream_window: offset(stream_window),
            connection_window: offset(connection_window),
        }
    }
}

const MAX_STREAMS: u64 = 1;
const STREAM_WINDOW: u64 = 2;
const CONNECTION_WINDOW: u64 = 3;

impl Body for Hello {
    const KIND: FrameKind = FrameKind::Hello;
    const FIELDS: &'static [(u64, &'static str)] = &[
        (MAX_STREAMS, "max_streams"),
        (STREAM_WINDOW, "stream_window"),
        (CONNECTION_WINDOW, "connection_window"),
    ];

    fn write(&self, out: &mut FieldWriter) {
        let max_streams = self.max_streams.min(StreamId::MAX_COUNT);
        out.integer(MAX_STREAMS, VarInt::saturating_from_u64(max_streams));
        out.integer(STREAM_WINDOW, VarInt::saturating_from_u64(self.stream_window));
        out.integer(CONNECTION_WINDOW, VarInt::saturating_from_u64(self.connection_window));
    }

    fn read(fields: Fields<'_>) -> Result<Self, BodyError> {
        let (mut max_streams, mut stream_window, mut connection_window) = (None, None, None);
        fields.each(|id, value| match id {
            MAX_STREAMS => once(&mut max_streams, stream_count(value.integer()?)?.into_inner()),
            STREAM_WINDOW => once(&mut stream_window, value.integer()?.into_inner()),
            CONNECTION_WINDOW => once(&mut connection_window, value.integer()?.into_inner()),
            _ => Ok(()),
        })?;
        Ok(Self {
            max_streams: required(MAX_STREAMS, max_streams)?,
            stream_window: required(STREAM_WINDOW, stream_window)?,
            connection_window: required(CONNECTION_WINDOW, connection_window)?,
        })
    }
}

/// A number of streams that one end can open.
pub(super) fn stream_count(value: VarInt) -> Result<VarInt, Problem> {
    match value.into_inner() {
        0..=StreamId::MAX_COUNT => Ok(value),
        more => Err(Problem::OutOfRange(more)),
    }
}

/// Why a link ends (`docs/wire.md` §9.8).
pub(super) struct Close {
    pub(super) code: CloseCode,
    pub(super) text: Text,
}

const CODE: u64 = 1;
const TEXT: u64 = 2;

impl Body for Close {
    const KIND: FrameKind = FrameKind::Close;
    const FIELDS: &'static [(u64, &'static str)] = &[(CODE, "code"), (TEXT, "text")];

    fn write(&self, out: &mut FieldWriter) {
        out.integer(CODE, self.code.value());
        out.text_if_any(TEXT, self.text.as_str());
    }

    fn read(fields: Fields<'_>) -> Result<Self, BodyError> {
        let (mut code, mut text) = (None, None);
        fields.each(|id, value| match id {
            CODE => once(&mut code, CloseCode::new(value.integer()?)),
            TEXT => once(&mut text, Text::new(value.text(Text::MAX)?)),
            _ => Ok(()),
        })?;
        Ok(Self {
            code: required(CODE, code)?,
            text: text.unwrap_or_default(),
        })
    }
}
