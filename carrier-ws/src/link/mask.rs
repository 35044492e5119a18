//! Masking what an agent sends (RFC 6455 §5.3).
//!
//! Every frame of an agent has a key of its own, which whoever chose the payload must not be able to predict: else it
//! could make the bytes on the wire look like a request to a proxy on the way (§10.3).

use std::io;

use aws_lc_rs::rand;
use bytes::BytesMut;

/// How many bytes are copied before they are masked, so that the second look finds them in the first-level cache. Not
/// more: from 2 KiB on glibc copies with one instruction of the processor, which on some virtual machines runs at a tenth
/// of the speed.
const BLOCK: usize = 1024;

/// Keys from the cryptographic generator, drawn many at a time: a draw costs as much as masking some kilobytes.
pub(crate) struct Keys {
    drawn: [u8; 256],
    used: usize,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let drawn = [0; 256];
        let used = drawn.len();
        Self { drawn, used }
    }

    /// The next key. It fails only if the generator does, which aborts TLS as well.
    pub(crate) fn next(&mut self) -> io::Result<[u8; 4]> {
        if self.used == self.drawn.len() {
            rand::fill(&mut self.drawn).map_err(|_| io::Error::other("the random generator failed"))?;
            self.used = 0;
        }
        let mut key = [0; 4];
        key.copy_from_slice(&self.drawn[self.used..self.used + 4]);
        self.used += 4;
        Ok(key)
    }
}

/// A frame's payload while it is being masked.
pub(crate) struct Masking {
    /// The key, turned so that it begins with the byte for the next one of the payload.
    key: [u8; 4],
}

impl Masking {
    pub(crate) fn new(key: [u8; 4]) -> Self {
        Self { key }
    }

    /// Appends the next part of the payload to `out`.
    pub(crate) fn append(&mut self, out: &mut BytesMut, part: &[u8]) {
        for block in part.chunks(BLOCK) {
            let start = out.len();
            out.extend_from_slice(block);
            mask(&mut out[start..], self.key);
            self.key.rotate_left(block.len() % 4);
        }
    }
}

fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let word = u32::from_ne_bytes(key);
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for bytes in words {
        *bytes = (u32::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_are_masked_as_the_whole(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3 * BLOCK), 0..5),
            key: [u8; 4],
        ) {
            let whole: Vec<u8> = parts.concat().iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
            let mut out = BytesMut::new();
            let mut masking = Masking::new(key);
            parts.iter().for_each(|part| masking.append(&mut out, part));
            prop_assert_eq!(out, whole);
        }
    }

    #[test]
    fn no_key_comes_twice_in_a_row() {
        let mut keys = Keys::new();
        let drawn: Vec<_> = (0..200).map(|_| keys.next().unwrap()).collect();
        let distinct: std::collections::BTreeSet<_> = drawn.iter().collect();
        assert!(distinct.len() > 190, "{} of 200 keys are distinct", distinct.len());
    }
}
