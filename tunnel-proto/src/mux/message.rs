//! What goes out over a link in one piece.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes, BytesMut};

/// One message of a link: whole frames, in the chunks in which they were made. Payload is where the application put
/// it; nothing has been copied.
#[derive(Clone, Debug, Default)]
pub struct Message {
    chunks: VecDeque<Bytes>,
    len: usize,
}

impl Message {
    /// Makes one of chunks.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing; a mux makes none such.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The chunks.
    pub fn into_chunks(self) -> impl Iterator<Item = Bytes> {
        self.chunks.into_iter()
    }

    /// The message in one piece; copies it unless it is one already.
    #[must_use]
    pub fn into_bytes(mut self) -> Bytes {
        if self.chunks.len() == 1
            && let Some(only) = self.chunks.pop_front()
        {
            return only;
        }
        let mut whole = BytesMut::with_capacity(self.len);
        self.chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
        whole.freeze()
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        let mut message = Self::default();
        message.push(bytes);
        message
    }
}

impl Buf for Message {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.chunks);
        filled.map(|(slice, chunk)| *slice = IoSlice::new(chunk)).count()
    }

    /// # Panics
    ///
    /// If `count` is more than what remains, as [`Buf`] requires.
    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "advanced by {count} of {} bytes", self.len);
        self.len -= count;
        while let Some(chunk) = self.chunks.front_mut() {
            if count < chunk.len() {
                chunk.advance(count);
                return;
            }
            count -= chunk.len();
            self.chunks.pop_front();
        }
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        match self.chunks.front_mut() {
            Some(chunk) if len < chunk.len() => {
                self.len -= len;
                chunk.split_to(len)
            }
            Some(chunk) if len == chunk.len() => {
                self.len -= len;
                self.chunks.pop_front().unwrap_or_default()
            }
            _ => {
                let mut out = BytesMut::with_capacity(len);
                bytes::BufMut::put(&mut out, self.take(len));
                out.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(chunks: &[Vec<u8>]) -> Message {
        let mut message = Message::default();
        chunks
            .iter()
            .for_each(|chunk| message.push(Bytes::copy_from_slice(chunk)));
        message
    }

    proptest! {
        #[test]
        fn it_reads_as_its_chunks_joined(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 0..6),
            takes in prop::collection::vec((any::<bool>(), 0usize..9), 0..12),
        ) {
            let joined = chunks.concat();
            prop_assert_eq!(message(&chunks).into_bytes(), joined.clone());
            prop_assert_eq!(message(&chunks).into_chunks().flatten().collect::<Vec<_>>(), joined.clone());
            let mut buf = message(&chunks);
            let mut rest = &joined[..];
            for (copy, count) in takes {
                let count = count.min(rest.len());
                if copy {
                    prop_assert_eq!(&buf.copy_to_bytes(count)[..], &rest[..count]);
                } else {
                    buf.advance(count);
                }
                rest = &rest[count..];
                prop_assert_eq!(buf.remaining(), rest.len());
                prop_assert!(rest.starts_with(buf.chunk()));
                prop_assert_eq!(buf.chunk().is_empty(), rest.is_empty());
            }
        }
    }
}
