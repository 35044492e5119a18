//! Bytes that can be told from others: a pattern, and a checksum.

use super::CHUNK;

/// An endless sequence of bytes that does not repeat in lengths a bug would shift it by.
#[derive(Clone, Debug, Default)]
pub struct Pattern(u64);

impl Pattern {
    /// Fills `buf`, whose length is a multiple of eight, with the next bytes.
    pub fn fill(&mut self, buf: &mut [u8]) {
        for word in buf.chunks_exact_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            word.copy_from_slice(&(self.0 ^ (self.0 >> 29)).to_le_bytes());
        }
    }
}

/// A checksum that depends on the place of every byte and can be fed in pieces of any length.
#[derive(Clone, Debug, Default)]
pub struct Checksum {
    sum: u64,
    weighted: u64,
    word: u64,
    filled: u32,
}

impl Checksum {
    /// Adds bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while self.filled != 0 && !bytes.is_empty() {
            self.push(bytes[0]);
            bytes = &bytes[1..];
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        rest.iter().for_each(|byte| self.push(*byte));
    }

    /// The sum of everything so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        let mut last = self.clone();
        last.add(last.word | u64::from(last.filled) << 60);
        last.weighted.rotate_left(17) ^ last.sum
    }

    fn push(&mut self, byte: u8) {
        self.word |= u64::from(byte) << (8 * self.filled);
        self.filled += 1;
        if self.filled == 8 {
            self.add(self.word);
            (self.word, self.filled) = (0, 0);
        }
    }

    fn add(&mut self, word: u64) {
        self.sum = self.sum.wrapping_add(word);
        self.weighted = self.weighted.wrapping_add(self.sum);
    }
}

/// The checksum of `len` bytes of the pattern.
#[must_use]
pub fn pattern_checksum(len: u64) -> u64 {
    let mut pattern = Pattern::default();
    let mut sum = Checksum::default();
    let mut chunk = vec![0; CHUNK];
    let mut left = len;
    while left > 0 {
        pattern.fill(&mut chunk);
        let part = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        sum.update(&chunk[..part]);
        left -= part as u64;
    }
    sum.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_does_not_depend_on_the_pieces() {
        let mut bytes = vec![0; 4096];
        Pattern::default().fill(&mut bytes);
        let mut whole = Checksum::default();
        whole.update(&bytes[..4001]);
        let mut pieces = Checksum::default();
        for piece in bytes[..4001].chunks(13) {
            pieces.update(piece);
        }
        assert_eq!(whole.value(), pieces.value());
    }

    #[test]
    fn the_checksum_notices_loss_and_exchange() {
        let sum = |bytes: &[u8]| {
            let mut sum = Checksum::default();
            sum.update(bytes);
            sum.value()
        };
        let mut bytes = vec![0; 256];
        Pattern::default().fill(&mut bytes);
        let right = sum(&bytes);
        assert_ne!(right, sum(&bytes[..255]));
        bytes.swap(0, 200);
        assert_ne!(right, sum(&bytes));
        bytes.swap(0, 200);
        bytes.rotate_left(8);
        assert_ne!(right, sum(&bytes));
    }
}
