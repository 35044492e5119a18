//! How much one direction may do before the others have their turn.

/// Bytes after which a direction pauses: one large buffer's worth.
const BYTES: usize = 128 * 1024;
/// Chunks after which a direction pauses, for streams of many small ones.
const STEPS: usize = 32;

/// One direction's share of a poll.
#[derive(Debug)]
pub(super) struct Turn {
    bytes: usize,
    steps: usize,
    paused: bool,
}

impl Turn {
    pub(super) fn new() -> Self {
        Self {
            bytes: 0,
            steps: 0,
            paused: false,
        }
    }

    /// Counts bytes that went on.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.steps += 1;
    }

    /// Whether the share is used up; if so, the direction goes on at the next poll, which the relay asks for.
    pub(super) fn is_over(&mut self) -> bool {
        self.paused = self.bytes >= BYTES || self.steps >= STEPS;
        self.paused
    }

    /// The bytes that went on in this turn.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the direction stopped for no other reason than that its share was used up.
    pub(super) fn paused(&self) -> bool {
        self.paused
    }
}
