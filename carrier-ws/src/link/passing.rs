//! Where frames begin and end in what is read.

use std::io::Cursor;

use tungstenite::protocol::frame::{FrameHeader, coding::OpCode};

use super::MAX_HEADER;

/// Follows the frames of a WebSocket as they pass, by their headers.
///
/// It is how the link knows that tungstenite, when it asks for more, keeps nothing of what it was given.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    /// The header under way, and how much of it has passed.
    header: [u8; MAX_HEADER],
    known: usize,
    /// How much of the frame's payload has not passed yet.
    payload: u64,
    is_amid_fragments: bool,
    longest: u64,
    /// There was a frame of a kind that does not exist. tungstenite refuses it, too.
    is_lost: bool,
}

impl Passing {
    /// Notes bytes that were read.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((next, rest)) = bytes.split_first()
            && !self.is_lost
        {
            if self.payload > 0 {
                let payload = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= payload as u64;
                bytes = &bytes[payload..];
                continue;
            }
            self.header[self.known] = *next;
            self.known += 1;
            bytes = rest;
            match FrameHeader::parse(&mut Cursor::new(&self.header[..self.known])) {
                Ok(Some((header, payload))) => self.begin(&header, payload),
                Ok(None) => {}
                Err(_) => self.is_lost = true,
            }
        }
    }

    fn begin(&mut self, header: &FrameHeader, payload: u64) {
        self.known = 0;
        self.payload = payload;
        self.longest = self.longest.max(payload);
        // Control frames may come between fragments (RFC 6455 §5.4).
        if matches!(header.opcode, OpCode::Data(_)) {
            self.is_amid_fragments = !header.is_final;
        }
    }

    /// Whether everything that has passed was whole messages and control frames.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.known == 0 && self.payload == 0 && !self.is_amid_fragments
    }

    /// The longest payload of a frame that has begun.
    pub(crate) fn longest(&self) -> u64 {
        self.longest
    }
}
