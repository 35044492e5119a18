//! Bytes that wait, in the chunks in which they came.

use std::{collections::VecDeque, mem};

use bytes::{Bytes, BytesMut};

/// Chunks below this are copied together: each costs more to keep than to copy, and may pin a larger buffer.
pub(super) const SMALL: usize = 1024;
/// Where copying together stops.
const FULL: usize = 16 * 1024;

/// A queue of bytes that copies none but small chunks. An empty one holds no memory.
#[derive(Debug, Default)]
pub struct Queue {
    chunks: VecDeque<Bytes>,
    /// Small chunks copied together, behind the others.
    tail: BytesMut,
    len: usize,
}

impl Queue {
    /// How many bytes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a chunk behind the others, as it is unless it is small.
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.len() < SMALL {
            return self.push_copy(&chunk);
        }
        self.len += chunk.len();
        self.seal();
        self.chunks.push_back(chunk);
    }

    /// Puts a copy behind the others, so that the buffer in which the bytes came can go.
    pub fn push_copy(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        if bytes.len() >= SMALL {
            self.seal();
            self.chunks.push_back(Bytes::copy_from_slice(bytes));
            return;
        }
        if self.tail.len() + bytes.len() > FULL {
            self.seal();
        }
        self.tail.extend_from_slice(bytes);
    }

    /// Takes at most `max` bytes off the front, as many as are in one piece.
    pub fn pop(&mut self, max: usize) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.seal();
        }
        let chunk = self.chunks.front_mut()?;
        let taken = if chunk.len() <= max {
            self.chunks.pop_front()?
        } else {
            chunk.split_to(max)
        };
        self.len -= taken.len();
        if self.len == 0 {
            self.clear();
        }
        Some(taken)
    }

    /// Drops everything; gives how much that was.
    pub fn clear(&mut self) -> usize {
        mem::take(self).len
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(mem::take(&mut self.tail).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            steps in prop::collection::vec((0u8..3, 0usize..3000), 1..100),
        ) {
            let mut queue = Queue::default();
            let (mut fed, mut taken) = (Vec::new(), Vec::new());
            let mut next = 0u8;
            for (step, size) in steps {
                if step < 2 {
                    let chunk: Vec<u8> = (0..size).map(|_| { next = next.wrapping_add(1); next }).collect();
                    fed.extend_from_slice(&chunk);
                    if step == 0 { queue.push(chunk.into()) } else { queue.push_copy(&chunk) }
                } else if let Some(chunk) = queue.pop(size.max(1)) {
                    prop_assert!(!chunk.is_empty() && chunk.len() <= size.max(1));
                    taken.extend_from_slice(&chunk);
                } else {
                    prop_assert!(queue.is_empty());
                }
                prop_assert_eq!(queue.len(), fed.len() - taken.len());
            }
            while let Some(chunk) = queue.pop(700) {
                taken.extend_from_slice(&chunk);
            }
            prop_assert_eq!(taken, fed);
            prop_assert_eq!(queue.chunks.capacity() + queue.tail.capacity(), 0);
        }
    }

    #[test]
    fn a_large_chunk_is_not_copied() {
        let chunk = Bytes::from(vec![7; SMALL]);
        let mut queue = Queue::default();
        queue.push(chunk.clone());
        assert_eq!(queue.pop(usize::MAX).unwrap().as_ptr(), chunk.as_ptr());
    }
}
