//! What waits for the wire.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tungstenite::protocol::{
    Role,
    frame::{
        FrameHeader,
        coding::{Data, OpCode},
    },
};
use tunnel_core::proto::mux::Message;
use tunnel_tcp::BoxIo;

use super::{
    MAX_HEADER,
    mask::{Keys, Masking},
};

/// From this many bytes on, no further message is taken. What has been taken can no longer be overtaken.
pub(crate) const ENOUGH: usize = 16 * 1024;
/// How many bytes of control frames may wait. While more would, only the latest ping is remembered (RFC 6455 §5.5.3).
const ENOUGH_CONTROL: usize = 1024;
/// Up to this many bytes a chunk is copied beside its neighbours rather than given to the system as a piece.
const SMALL: usize = 1024;
/// How many pieces one call to the system takes.
const PIECES: usize = 32;

/// The frames that wait for the wire.
///
/// A server's payload is not copied: it is given to the system where it lies, if the pipe takes several pieces at
/// once. An agent's has to be masked, and is copied once while it is.
pub(crate) struct Outbox {
    pieces: VecDeque<Bytes>,
    /// What comes behind `pieces`: headers, small messages, masked payload.
    tail: BytesMut,
    len: usize,
    /// Bytes of control frames taken since the outbox was last empty.
    control: usize,
    /// An agent's keys.
    keys: Option<Keys>,
    vectored: bool,
}

impl Outbox {
    pub(crate) fn new(role: Role, vectored: bool) -> Self {
        Self {
            pieces: VecDeque::new(),
            tail: BytesMut::new(),
            len: 0,
            control: 0,
            keys: (role == Role::Client).then(Keys::new),
            vectored,
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.len < ENOUGH
    }

    /// How many bytes wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes a message as one binary frame.
    pub(crate) fn push(&mut self, message: Message) -> io::Result<()> {
        let payload = message.len();
        let key = self.keys.as_mut().map(Keys::next).transpose()?;
        let before = self.tail.len();
        if key.is_some() || !self.vectored {
            self.tail.reserve(MAX_HEADER + payload);
        }
        self.push_header(payload, key)?;
        self.len += self.tail.len() - before + payload;
        let mut masking = key.map(Masking::new);
        for chunk in message.into_chunks() {
            match &mut masking {
                Some(masking) => masking.append(&mut self.tail, &chunk),
                None if self.vectored && chunk.len() > SMALL => {
                    self.close_tail();
                    self.pieces.push_back(chunk);
                }
                None => self.tail.extend_from_slice(&chunk),
            }
        }
        Ok(())
    }

    fn push_header(&mut self, payload: usize, key: Option<[u8; 4]>) -> io::Result<()> {
        let header = FrameHeader {
            opcode: OpCode::Data(Data::Binary),
            mask: key,
            ..FrameHeader::default()
        };
        let mut bytes = io::Cursor::new([0; MAX_HEADER]);
        header.format(payload as u64, &mut bytes).map_err(io::Error::other)?;
        let len = usize::try_from(bytes.position()).unwrap_or(MAX_HEADER);
        self.tail.extend_from_slice(&bytes.get_ref()[..len]);
        Ok(())
    }

    /// Takes control frames that are encoded already, or refuses them while too many wait.
    pub(crate) fn push_control(&mut self, frames: &[u8]) -> bool {
        let fits = self.control + frames.len() <= ENOUGH_CONTROL;
        if fits {
            self.control += frames.len();
            self.len += frames.len();
            self.tail.extend_from_slice(frames);
        }
        fits
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    /// Writes as much as `io` takes; ready when nothing waits any more.
    pub(crate) fn poll_write(&mut self, io: &mut BoxIo, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.len > 0 {
            self.close_tail();
            let mut slices = [IoSlice::new(&[]); PIECES];
            let filled = slices.iter_mut().zip(&self.pieces);
            let count = filled.map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
            let written = match &slices[..count] {
                [only] => ready!(Pin::new(&mut *io).poll_write(cx, only)),
                several => ready!(Pin::new(&mut *io).poll_write_vectored(cx, several)),
            }?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        // What is idle holds no memory.
        self.tail = BytesMut::new();
        self.control = 0;
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut count: usize) {
        self.len = self.len.saturating_sub(count);
        while let Some(piece) = self.pieces.front_mut() {
            if count < piece.len() {
                piece.advance(count);
                return;
            }
            count -= piece.len();
            self.pieces.pop_front();
        }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("len", &self.len).finish_non_exhaustive()
    }
}
