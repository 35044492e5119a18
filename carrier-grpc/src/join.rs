//! From the frames of HTTP/2, which are cut anywhere, to the messages of gRPC (gRPC over HTTP/2,
//! "Length-Prefixed-Message").

use std::mem;

use bytes::{Buf, Bytes, BytesMut};

use crate::packet::{GRPC_PREFIX, MAX_PACKET};

/// Joins what comes to messages.
///
/// Each byte is copied once, into memory that belongs to its message alone and is as large: HTTP/2's frames are slices
/// of a buffer that many of them share, and a message that somebody reads late is not to keep all of that.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    /// What has come and has not been looked at.
    data: Bytes,
    state: State,
}

#[derive(Debug)]
enum State {
    /// So many bytes of the prefix are there.
    Prefix([u8; GRPC_PREFIX], usize),
    /// A message of this length is being joined.
    Message(BytesMut, usize),
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPrefix {
    #[error("a message is compressed")]
    Compressed,
    #[error("a message has the flag {0}, which does not exist")]
    Flag(u8),
    #[error("a message announces {0} bytes; at most {MAX_PACKET} are allowed")]
    TooLong(u32),
}

impl Default for State {
    fn default() -> Self {
        Self::Prefix([0; GRPC_PREFIX], 0)
    }
}

impl Joiner {
    /// Takes what comes next, after [`next`](Self::next) gave nothing more.
    pub(crate) fn push(&mut self, data: Bytes) {
        debug_assert!(self.data.is_empty(), "there are messages left");
        self.data = data;
    }

    /// The next message, if it is there. After an error there is none any more.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, BadPrefix> {
        while self.data.has_remaining() {
            match &mut self.state {
                State::Prefix(prefix, len) => {
                    let count = self.data.len().min(GRPC_PREFIX - *len);
                    self.data.copy_to_slice(&mut prefix[*len..*len + count]);
                    *len += count;
                    if *len == GRPC_PREFIX {
                        let len = message_len(*prefix)?;
                        self.state = State::Message(BytesMut::with_capacity(len), len);
                    }
                }
                State::Message(message, len) => {
                    let count = self.data.len().min(*len - message.len());
                    message.extend_from_slice(&self.data[..count]);
                    self.data.advance(count);
                }
            }
            if let State::Message(message, len) = &mut self.state
                && message.len() == *len
            {
                let message = mem::take(message).freeze();
                self.state = State::default();
                return Ok(Some(message));
            }
        }
        // Even an empty slice keeps the buffer.
        self.data = Bytes::new();
        Ok(None)
    }

    /// Whether a message has begun and not ended.
    pub(crate) fn is_inside(&self) -> bool {
        !matches!(self.state, State::Prefix(_, 0))
    }
}

fn message_len([flag, len @ ..]: [u8; GRPC_PREFIX]) -> Result<usize, BadPrefix> {
    match flag {
        0 => {}
        1 => return Err(BadPrefix::Compressed),
        _ => return Err(BadPrefix::Flag(flag)),
    }
    let announced = u32::from_be_bytes(len);
    match usize::try_from(announced) {
        Ok(len) if len <= MAX_PACKET => Ok(len),
        _ => Err(BadPrefix::TooLong(announced)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(joiner: &mut Joiner, data: &[u8]) -> Result<Vec<Bytes>, BadPrefix> {
        joiner.push(Bytes::copy_from_slice(data));
        let mut messages = Vec::new();
        while let Some(message) = joiner.next()? {
            messages.push(message);
        }
        Ok(messages)
    }

    fn prefixed(message: &[u8]) -> Vec<u8> {
        let len = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0], &len[..], message].concat()
    }

    #[test]
    fn bad_prefixes_are_named() {
        for (prefix, problem) in [
            ([1, 0, 0, 0, 1], BadPrefix::Compressed),
            ([2, 0, 0, 0, 1], BadPrefix::Flag(2)),
            ([0, 0xff, 0xff, 0xff, 0xff], BadPrefix::TooLong(u32::MAX)),
            ([0, 0, 2, 4, 1], BadPrefix::TooLong(132_097)),
        ] {
            assert_eq!(all(&mut Joiner::default(), &prefix), Err(problem));
        }
        assert_eq!(all(&mut Joiner::default(), &[0, 0, 2, 4, 0]), Ok(vec![]));
    }

    #[test]
    fn no_frame_is_kept() {
        let message = [7; 100];
        let wire = Bytes::from(prefixed(&message));
        let mut joiner = Joiner::default();
        joiner.push(wire.clone());
        let joined = joiner.next().unwrap().unwrap();
        assert_eq!(joiner.next(), Ok(None));
        assert!(wire.is_unique(), "the frame is kept");
        assert_eq!(joined.try_into_mut().unwrap().capacity(), message.len());
    }

    proptest! {
        #[test]
        fn messages_come_out_however_frames_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..10),
            cuts in prop::collection::vec(0usize..40, 1..50),
        ) {
            let wire: Vec<u8> = messages.iter().flat_map(|message| prefixed(message)).collect();
            let mut joiner = Joiner::default();
            let mut joined = Vec::new();
            let mut rest = &wire[..];
            for cut in cuts.iter().cycle().take(wire.len() + cuts.len()).copied().chain([usize::MAX]) {
                let (piece, others) = rest.split_at(cut.min(rest.len()));
                joined.extend(all(&mut joiner, piece).unwrap());
                rest = others;
            }
            prop_assert_eq!(joined, messages);
            prop_assert!(!joiner.is_inside());
        }
    }
}
