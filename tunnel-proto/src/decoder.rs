//! From the bytes of a stream to messages (`docs/wire.md` §2.1).

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use crate::{FrameError, FrameKind, Message, VarInt, message};

/// Takes the bytes of a stream as they come and gives the messages in them.
///
/// Push a chunk, then call [`FrameDecoder::next`] until it gives `None`, then push the next chunk. Between the two
/// the decoder holds at most one incomplete frame: [`FrameDecoder::MAX_HELD`] bytes, and less for a kind with a
/// smaller [`FrameKind::max_body`]. Frames of kinds that it does not know are skipped as their bytes come.
///
/// What follows the last message may be something else than frames: [`FrameDecoder::into_rest`] gives it back as
/// the part of the pushed chunk that it is, without a copy.
///
/// ```
/// use bytes::Bytes;
/// use tunnel_proto::{Answer, FrameDecoder, FrameKind, Message};
///
/// let mut decoder = FrameDecoder::expecting(&[FrameKind::Answer]);
/// decoder.push(Bytes::from_static(b"\x05\x03\x01\x01"));
/// assert_eq!(decoder.next()?, None);
/// decoder.push(Bytes::from_static(b"\x00hello"));
/// assert_eq!(decoder.next()?, Some(Message::Answer(Answer::Accepted)));
/// assert_eq!(decoder.into_rest(), "hello");
/// # Ok::<(), tunnel_proto::FrameError>(())
/// ```
pub struct FrameDecoder {
    /// What was pushed and not yet looked at.
    input: Bytes,
    /// The beginning of a frame whose end has not come: its header, or its body without the header.
    partial: BytesMut,
    state: State,
    expected: &'static [FrameKind],
}

#[derive(Debug)]
enum State {
    Header,
    Body { kind: FrameKind, len: usize },
    Skip { kind: FrameKind, left: usize },
    Failed(FrameError),
}

impl FrameDecoder {
    /// The most bytes held after [`FrameDecoder::next`] gave `None`: the longest body that is kept.
    pub const MAX_HELD: usize = FrameKind::Claim.max_body();

    /// A decoder that takes messages of every kind.
    #[must_use]
    pub fn new() -> Self {
        Self::expecting(Message::KINDS)
    }

    /// A decoder that takes messages of these kinds, which are among [`Message::KINDS`]; another kind that is known
    /// is [`FrameError::Unexpected`], which those of a link always are.
    #[must_use]
    pub fn expecting(kinds: &'static [FrameKind]) -> Self {
        Self {
            input: Bytes::new(),
            partial: BytesMut::new(),
            state: State::Header,
            expected: kinds,
        }
    }

    /// Changes the kinds that are taken from the next frame on, for example after the first message. A frame
    /// whose header has come counts as the current one.
    pub fn expect(&mut self, kinds: &'static [FrameKind]) {
        self.expected = kinds;
    }

    /// Gives the decoder the next bytes. Bytes from an earlier push that are still unread make this copy both; after
    /// an error the bytes are dropped.
    pub fn push(&mut self, chunk: Bytes) {
        if matches!(self.state, State::Failed(_)) {
            return;
        }
        if self.input.is_empty() {
            self.input = chunk;
        } else {
            let mut joined = BytesMut::with_capacity(self.input.len() + chunk.len());
            joined.extend_from_slice(&self.input);
            joined.extend_from_slice(&chunk);
            self.input = joined.freeze();
        }
    }

    /// The next message, or `None` if more bytes are needed. An error is final: it is given again by every
    /// later call.
    #[allow(clippy::should_implement_trait)] // `None` is not the end, and a caller must see each error
    pub fn next(&mut self) -> Result<Option<Message>, FrameError> {
        match self.advance() {
            Ok(None) => {
                // All of it was read; an empty slice would still keep the chunk's memory.
                self.input = Bytes::new();
                Ok(None)
            }
            Err(error) if !matches!(self.state, State::Failed(_)) => {
                self.input = Bytes::new();
                self.partial = BytesMut::new();
                self.state = State::Failed(error.clone());
                Err(error)
            }
            result => result,
        }
    }

    fn advance(&mut self) -> Result<Option<Message>, FrameError> {
        loop {
            match &mut self.state {
                State::Header => match self.header()? {
                    Some(state) => self.state = state,
                    None => return Ok(None),
                },
                State::Body { kind, len } => {
                    let (kind, len) = (*kind, *len);
                    let Some(body) = self.body(len) else {
                        return Ok(None);
                    };
                    self.state = State::Header;
                    return message::decode(kind, &body);
                }
                State::Skip { left, .. } => {
                    let skipped = self.input.len().min(*left);
                    self.input.advance(skipped);
                    *left -= skipped;
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.state = State::Header;
                }
                State::Failed(error) => return Err(error.clone()),
            }
        }
    }

    /// Takes a frame's header, once it is complete, and says what follows.
    fn header(&mut self) -> Result<Option<State>, FrameError> {
        let mut bytes = [0; 2 * VarInt::MAX_LEN];
        let held = self.partial.len();
        let end = (held + self.input.len()).min(bytes.len());
        bytes[..held].copy_from_slice(&self.partial);
        bytes[held..end].copy_from_slice(&self.input[..end - held]);

        let mut unread = &bytes[..end];
        let Some((kind, len)) = VarInt::decode(&mut unread).zip(VarInt::decode(&mut unread)) else {
            self.partial.extend_from_slice(&self.input);
            return Ok(None);
        };
        self.input.advance(end - unread.len() - held);
        self.partial.clear();

        let kind = FrameKind::from_value(kind);
        let unknown = matches!(kind, FrameKind::Unknown(_));
        if !unknown && !self.expected.contains(&kind) {
            return Err(FrameError::Unexpected {
                kind,
                expected: self.expected,
            });
        }
        let len = kind.check_len(len)?;
        Ok(Some(if unknown {
            State::Skip { kind, left: len }
        } else {
            State::Body { kind, len }
        }))
    }

    /// Takes a body of `len` bytes, once it is complete.
    fn body(&mut self, len: usize) -> Option<Bytes> {
        if self.partial.is_empty() && self.input.len() >= len {
            return Some(self.input.split_to(len));
        }
        let missing = len - self.partial.len();
        let taken = self.input.split_to(self.input.len().min(missing));
        self.partial.extend_from_slice(&taken);
        (taken.len() == missing).then(|| std::mem::take(&mut self.partial).freeze())
    }

    /// Whether the decoder stands between two frames and has read everything that was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held() == 0 && matches!(self.state, State::Header)
    }

    /// How many of the pushed bytes are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.input.len() + self.partial.len()
    }

    /// Tells whether the bytes may end here: not inside a frame. Call it after [`FrameDecoder::next`] gave `None`.
    pub fn finish(&self) -> Result<(), FrameError> {
        let kind = match &self.state {
            State::Header if self.partial.is_empty() => return Ok(()),
            State::Header => VarInt::decode(&mut &self.partial[..]).map(FrameKind::from_value),
            State::Body { kind, .. } | State::Skip { kind, .. } => Some(*kind),
            State::Failed(error) => return Err(error.clone()),
        };
        Err(FrameError::Incomplete { kind })
    }

    /// The bytes that were pushed behind the last message. Call it when [`FrameDecoder::next`] has given the
    /// message that the frames end with, and not once more after it: that would read them as a frame.
    #[must_use]
    pub fn into_rest(self) -> Bytes {
        self.input
    }
}

/// Without the bytes, which may hold a credential.
impl fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameDecoder")
            .field("state", &self.state)
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new()
    }
}
