//! QUIC variable-length integers (RFC 9000 §16).

use std::time::Duration;

use bytes::{Buf, BufMut};

/// An integer below 2^62, as QUIC encodes it: one, two, four or eight bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VarInt(u64);

/// The value does not fit a [`VarInt`]: it is 2^62 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} does not fit a variable-length integer, which ends at 2^62 - 1")]
pub struct VarIntOutOfRange(pub u64);

impl VarInt {
    /// The largest value, 2^62 − 1.
    pub const MAX: Self = Self((1 << 62) - 1);
    /// The longest encoding, in bytes.
    pub const MAX_LEN: usize = 8;

    /// Makes one of a value that always fits.
    #[must_use]
    pub const fn from_u32(value: u32) -> Self {
        Self(value as u64)
    }

    /// The largest `VarInt` that is not above `value`.
    #[must_use]
    pub const fn saturating_from_u64(value: u64) -> Self {
        if value > Self::MAX.0 { Self::MAX } else { Self(value) }
    }

    /// The value.
    #[must_use]
    pub const fn into_inner(self) -> u64 {
        self.0
    }

    /// A duration in whole milliseconds; one of more than a hundred million years becomes [`VarInt::MAX`].
    pub(crate) fn from_millis(duration: Duration) -> Self {
        Self::saturating_from_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    /// The duration of so many milliseconds.
    pub(crate) const fn into_millis(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// How many bytes the shortest encoding takes.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(self) -> usize {
        match self.0 {
            0..=0x3f => 1,
            0x40..=0x3fff => 2,
            0x4000..=0x3fff_ffff => 4,
            _ => 8,
        }
    }

    /// Appends the shortest encoding.
    #[allow(clippy::cast_possible_truncation)] // each arm's range fits its width
    pub fn encode(self, out: &mut impl BufMut) {
        match self.len() {
            1 => out.put_u8(self.0 as u8),
            2 => out.put_u16(0b01 << 14 | self.0 as u16),
            4 => out.put_u32(0b10 << 30 | self.0 as u32),
            _ => out.put_u64(0b11 << 62 | self.0),
        }
    }

    /// Takes one integer off the front, or leaves `input` as it is and returns `None` when it is incomplete.
    ///
    /// Longer encodings than necessary are accepted, as RFC 9000 §16 allows.
    pub fn decode(input: &mut impl Buf) -> Option<Self> {
        let first = *input.chunk().first()?;
        let len = 1usize << (first >> 6);
        if input.remaining() < len {
            return None;
        }
        let value = input.get_uint(len);
        Some(Self(value & (u64::MAX >> (64 - 8 * len + 2))))
    }
}

impl From<u32> for VarInt {
    fn from(value: u32) -> Self {
        Self::from_u32(value)
    }
}

impl TryFrom<u64> for VarInt {
    type Error = VarIntOutOfRange;

    fn try_from(value: u64) -> Result<Self, VarIntOutOfRange> {
        if value > Self::MAX.0 {
            return Err(VarIntOutOfRange(value));
        }
        Ok(Self(value))
    }
}

impl From<VarInt> for u64 {
    fn from(value: VarInt) -> Self {
        value.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        VarInt::try_from(value).unwrap().encode(&mut out);
        out
    }

    #[test]
    fn the_examples_of_rfc_9000_appendix_a_1() {
        let cases: [(u64, &[u8]); 4] = [
            (
                151_288_809_941_952_652,
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c],
            ),
            (494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]),
            (15_293, &[0x7b, 0xbd]),
            (37, &[0x25]),
        ];
        for (value, bytes) in cases {
            assert_eq!(encoded(value), bytes);
            assert_eq!(VarInt::decode(&mut &bytes[..]), Some(VarInt(value)));
        }
        assert_eq!(VarInt::decode(&mut &[0x40, 0x25][..]), Some(VarInt(37)));
    }

    #[test]
    fn values_from_2_to_the_62_are_refused() {
        assert_eq!(VarInt::try_from(1u64 << 62), Err(VarIntOutOfRange(1 << 62)));
        assert_eq!(VarInt::saturating_from_u64(u64::MAX), VarInt::MAX);
    }

    proptest! {
        #[test]
        fn encoding_round_trips_and_is_the_shortest(value in 0u64..1 << 62) {
            let bytes = encoded(value);
            let varint = VarInt(value);
            prop_assert_eq!(bytes.len(), varint.len());
            prop_assert_eq!(VarInt::decode(&mut &bytes[..]), Some(varint));
            for cut in 0..bytes.len() {
                let mut partial = &bytes[..cut];
                prop_assert_eq!(VarInt::decode(&mut partial), None);
                prop_assert_eq!(partial.len(), cut);
            }
        }
    }
}
