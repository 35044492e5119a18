//! From a message of a link to its frames.

use bytes::{Buf, Bytes};

use super::{
    super::StreamId,
    Frame, Hello, MAX_MESSAGE, MAX_PAYLOAD,
    body::{Close, stream_count},
};
use crate::{FrameError, FrameKind, MalformedFrame, Problem, StreamCode, VarInt, message::read};

/// The kinds that have a place on a link.
const KINDS: &[FrameKind] = &[
    FrameKind::Drain,
    FrameKind::Hello,
    FrameKind::Open,
    FrameKind::OpenAnswer,
    FrameKind::Data,
    FrameKind::DataFin,
    FrameKind::Reset,
    FrameKind::Stop,
    FrameKind::MaxStreamData,
    FrameKind::MaxData,
    FrameKind::MaxStreams,
    FrameKind::Ping,
    FrameKind::Pong,
    FrameKind::Close,
];

/// The frames of one message of a link, one after the other (`docs/wire.md` §9.1).
///
/// Frames of kinds that are not known are skipped and counted. An error is the last thing that it gives: nothing is
/// known about the bytes that follow. Payload is a slice of the message, without a copy, and keeps its memory.
#[derive(Debug)]
pub struct Frames {
    rest: Bytes,
    refused: Option<FrameError>,
    skipped: u32,
}

impl Frames {
    /// Takes a message. One that is empty or longer than [`MAX_MESSAGE`] gives an error and no frame.
    #[must_use]
    pub fn new(message: Bytes) -> Self {
        let refused = match message.len() {
            0 => Some(FrameError::Incomplete { kind: None }),
            1..=MAX_MESSAGE => None,
            len => Some(FrameError::MessageTooLong { len }),
        };
        Self {
            rest: if refused.is_none() { message } else { Bytes::new() },
            refused,
            skipped: 0,
        }
    }

    /// How many frames were skipped up to the one that was given last.
    #[must_use]
    pub fn skipped(&self) -> u32 {
        self.skipped
    }

    /// The next frame that is not to be skipped, unless there is none.
    fn advance(&mut self) -> Result<Option<Frame>, FrameError> {
        while !self.rest.is_empty() {
            let kind = VarInt::decode(&mut self.rest).map(FrameKind::from_value);
            let len = VarInt::decode(&mut self.rest);
            let Some((kind, len)) = kind.zip(len) else {
                return Err(FrameError::Incomplete { kind });
            };
            let unknown = matches!(kind, FrameKind::Unknown(_));
            if !unknown && !KINDS.contains(&kind) {
                return Err(FrameError::Unexpected { kind, expected: KINDS });
            }
            let len = kind.check_len(len)?;
            if self.rest.len() < len {
                return Err(FrameError::Incomplete { kind: Some(kind) });
            }
            let body = self.rest.split_to(len);
            if !unknown {
                return Reader { kind, body }.frame().map(Some);
            }
            self.skipped += 1;
        }
        Ok(None)
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.refused.take() {
            return Some(Err(error));
        }
        let frame = self.advance();
        if frame.is_err() {
            self.rest = Bytes::new();
        }
        frame.transpose()
    }
}

impl std::iter::FusedIterator for Frames {}

/// A body, of which the front has been read.
struct Reader {
    kind: FrameKind,
    body: Bytes,
}

impl Reader {
    fn frame(mut self) -> Result<Frame, FrameError> {
        Ok(match self.kind {
            FrameKind::Hello => Frame::Hello(read::<Hello>(self.kind, &self.body)?),
            FrameKind::Open => Frame::Open {
                id: self.stream()?,
                head: read(self.kind, &self.body)?,
            },
            FrameKind::OpenAnswer => Frame::Answer {
                id: self.stream()?,
                answer: read(self.kind, &self.body)?,
            },
            FrameKind::Data | FrameKind::DataFin => Frame::Data {
                id: self.stream()?,
                fin: self.kind == FrameKind::DataFin,
                payload: self.payload()?,
            },
            FrameKind::Reset => Frame::Reset {
                id: self.stream()?,
                code: StreamCode::new(self.last("code")?),
            },
            FrameKind::Stop => Frame::Stop {
                id: self.stream()?,
                code: StreamCode::new(self.last("code")?),
            },
            FrameKind::MaxStreamData => Frame::MaxStreamData {
                id: self.stream()?,
                offset: self.last("offset")?,
            },
            FrameKind::MaxData => Frame::MaxData {
                offset: self.last("offset")?,
            },
            FrameKind::MaxStreams => {
                let count = self.last("count")?;
                Frame::MaxStreams {
                    count: stream_count(count).map_err(|problem| self.malformed("count", problem))?,
                }
            }
            FrameKind::Ping => Frame::Ping(self.token()?),
            FrameKind::Pong => Frame::Pong(self.token()?),
            FrameKind::Drain => Frame::Drain(read(self.kind, &self.body)?),
            FrameKind::Close => {
                let Close { code, text } = read(self.kind, &self.body)?;
                Frame::Close { code, text }
            }
            kind => return Err(FrameError::Unexpected { kind, expected: KINDS }),
        })
    }

    fn malformed(&self, field: &'static str, problem: Problem) -> FrameError {
        let field = Some(field);
        let kind = self.kind;
        MalformedFrame { kind, field, problem }.into()
    }

    fn integer(&mut self, name: &'static str) -> Result<VarInt, FrameError> {
        VarInt::decode(&mut self.body).ok_or_else(|| self.malformed(name, Problem::Truncated))
    }

    /// An integer that ends the body.
    fn last(&mut self, name: &'static str) -> Result<VarInt, FrameError> {
        let value = self.integer(name)?;
        if self.body.has_remaining() {
            return Err(self.malformed(name, Problem::Trailing));
        }
        Ok(value)
    }

    fn stream(&mut self) -> Result<StreamId, FrameError> {
        let value = self.integer("stream")?;
        let id = StreamId::from_value(value);
        if id.index() < StreamId::MAX_COUNT {
            Ok(id)
        } else {
            Err(self.malformed("stream", Problem::OutOfRange(value.into_inner())))
        }
    }

    fn payload(&mut self) -> Result<Bytes, FrameError> {
        let (len, limit) = (self.body.len(), MAX_PAYLOAD);
        if len > limit {
            return Err(self.malformed("payload", Problem::TooLong { len, limit }));
        }
        Ok(std::mem::take(&mut self.body))
    }

    fn token(&self) -> Result<[u8; 8], FrameError> {
        let token = self.body[..].try_into();
        token.map_err(|_| self.malformed("token", Problem::NotA("eight bytes")))
    }
}
