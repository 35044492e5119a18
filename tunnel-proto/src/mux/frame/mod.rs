//! The frames of a link, as values and as bytes (`docs/wire.md` §9.4).

mod body;
mod frames;
mod stream;

use bytes::{BufMut, Bytes, BytesMut};

use self::body::Close;
pub use self::{body::Hello, frames::Frames, stream::FrameStream};
use super::StreamId;
use crate::{
    Answer, CloseCode, Drain, FrameKind, StreamCode, StreamHead, Text, VarInt, field::FieldWriter, message::Body,
};

/// The longest message of a link, in bytes.
pub const MAX_MESSAGE: usize = 128 * 1024;

/// The longest payload of one DATA or DATA_FIN frame, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// One frame of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// What the sender grants from the start; its first frame.
    Hello(Hello),
    /// The sender opens a stream.
    Open {
        /// The stream: the next one of the sender.
        id: StreamId,
        /// Where it should go.
        head: StreamHead,
    },
    /// The acceptor of a stream confirms or refuses it.
    Answer {
        /// The stream.
        id: StreamId,
        /// What came of it.
        answer: Answer,
    },
    /// Payload.
    Data {
        /// The stream.
        id: StreamId,
        /// The bytes, at most [`MAX_PAYLOAD`]: a longer one is written and refused by the peer.
        payload: Bytes,
        /// Whether the clean end of the sender's half is behind them.
        fin: bool,
    },
    /// The sender gives up its half of a stream.
    Reset {
        /// The stream.
        id: StreamId,
        /// Why.
        code: StreamCode,
    },
    /// The receiver wants no more of the peer's half of a stream.
    Stop {
        /// The stream.
        id: StreamId,
        /// Why.
        code: StreamCode,
    },
    /// How many bytes of payload the receiver of this frame may send on a stream.
    MaxStreamData {
        /// The stream.
        id: StreamId,
        /// The count from the first byte of the half.
        offset: VarInt,
    },
    /// How many bytes of payload the receiver of this frame may send on all streams together.
    MaxData {
        /// The count from the first byte of the link.
        offset: VarInt,
    },
    /// How many streams the receiver of this frame may open.
    MaxStreams {
        /// The count from its first stream, at most [`StreamId::MAX_COUNT`].
        count: VarInt,
    },
    /// Asks for a [`Frame::Pong`] with the same bytes.
    Ping([u8; 8]),
    /// Answers a [`Frame::Ping`].
    Pong([u8; 8]),
    /// The sender wants no more streams.
    Drain(Drain),
    /// The sender's last frame.
    Close {
        /// Why the link ends.
        code: CloseCode,
        /// The same, for people.
        text: Text,
    },
}

impl Frame {
    /// Appends the whole frame. The frames without fields take no other memory than that of `out`; payload is copied,
    /// so a mux sends it behind a header of its own instead.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Hello(hello) => fields(FrameKind::Hello, None, hello, out),
            Self::Open { id, head } => fields(FrameKind::Open, Some(*id), head, out),
            Self::Answer { id, answer } => fields(FrameKind::OpenAnswer, Some(*id), answer, out),
            Self::Data { id, payload, fin } => {
                data_header(*id, payload.len(), *fin, out);
                out.put_slice(payload);
            }
            Self::Reset { id, code } => integers(FrameKind::Reset, [id.value(), code.value()], out),
            Self::Stop { id, code } => integers(FrameKind::Stop, [id.value(), code.value()], out),
            Self::MaxStreamData { id, offset } => integers(FrameKind::MaxStreamData, [id.value(), *offset], out),
            Self::MaxData { offset } => integers(FrameKind::MaxData, [*offset], out),
            Self::MaxStreams { count } => integers(FrameKind::MaxStreams, [*count], out),
            Self::Ping(token) => opaque(FrameKind::Ping, token, out),
            Self::Pong(token) => opaque(FrameKind::Pong, token, out),
            Self::Drain(drain) => fields(FrameKind::Drain, None, drain, out),
            Self::Close { code, text } => {
                let (code, text) = (*code, text.clone());
                fields(FrameKind::Close, None, &Close { code, text }, out);
            }
        }
    }
}

/// Appends what stands before `len` bytes of payload: the header of their DATA or DATA_FIN frame, and the stream.
pub(crate) fn data_header(id: StreamId, len: usize, fin: bool, out: &mut BytesMut) {
    let kind = if fin { FrameKind::DataFin } else { FrameKind::Data };
    header(kind, id.value().len() + len, out);
    id.value().encode(out);
}

fn header(kind: FrameKind, len: usize, out: &mut BytesMut) {
    kind.value().encode(out);
    VarInt::saturating_from_u64(len as u64).encode(out);
}

fn integers<const N: usize>(kind: FrameKind, values: [VarInt; N], out: &mut BytesMut) {
    header(kind, values.iter().map(|value| value.len()).sum(), out);
    values.iter().for_each(|value| value.encode(out));
}

fn opaque(kind: FrameKind, bytes: &[u8], out: &mut BytesMut) {
    header(kind, bytes.len(), out);
    out.put_slice(bytes);
}

fn fields(kind: FrameKind, id: Option<StreamId>, body: &impl Body, out: &mut BytesMut) {
    let mut writer = FieldWriter::new();
    if let Some(id) = id {
        writer.prefix(id.value());
    }
    body.write(&mut writer);
    out.put_slice(&writer.finish(kind.value()));
}
