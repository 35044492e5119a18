//! Frames one after the other, where nothing else says where they end.

use bytes::{Buf, BytesMut};

use super::{Frame, Frames};
use crate::{FrameError, FrameKind, VarInt};

/// Takes frames off a stream of bytes, however it is cut, such as a control stream (`docs/wire.md` §12.5). Frames of unknown
/// kinds are skipped.
///
/// It holds less than a frame and what was pushed last. A frame that is too long is refused before it has come.
#[derive(Debug, Default)]
pub struct FrameStream {
    input: BytesMut,
}

impl FrameStream {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next frame, once it is whole. Nothing comes after an error that means anything.
    pub fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            let mut front = &self.input[..];
            let kind = VarInt::decode(&mut front).map(FrameKind::from_value);
            let Some((kind, len)) = kind.zip(VarInt::decode(&mut front)) else {
                return Ok(None);
            };
            let len = kind.check_len(len)?;
            if front.remaining() < len {
                return Ok(None);
            }
            let header = self.input.len() - front.remaining();
            let frame = self.input.split_to(header + len).freeze();
            // It is one frame, so there is none if it was skipped.
            if let Some(frame) = Frames::new(frame).next().transpose()? {
                return Ok(Some(frame));
            }
        }
    }
}
