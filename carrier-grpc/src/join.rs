//! From the frames of HTTP/2, which are cut anywhere, to the messages of gRPC (gRPC over HTTP/2,
//! "Length-Prefixed-Message").

use std::mem;

use bytes::{Buf, Bytes, BytesMut};

use crate::packet::{GRPC_PREFIX, MAX_PACKET};

/// From this length on a message may be left where it is.
const LARGE: usize = 32 * 1024;

/// Joins what comes to messages.
///
/// Each byte is copied once, into memory that belongs to its message alone and is as large: HTTP/2's frames are slices
/// of a buffer that many of them share, and a message that somebody reads late is not to keep all of that. A [`LARGE`]
/// message that is whole in a frame is left where h2 has read it, if that is such memory, as it is where nothing on the
/// way cuts frames.
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
                        if len >= LARGE && len == self.data.len() {
                            self.state = State::default();
                            return Ok(Some(alone(mem::take(&mut self.data))));
                        }
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

/// The bytes in memory that is theirs alone: where they are, if that is so, or in a copy.
fn alone(bytes: Bytes) -> Bytes {
    match bytes.try_into_mut() {
        Ok(mut bytes) => {
            // Without room for that, the memory is less than 17/8 as large.
            let is_wasteful = bytes.try_reclaim(bytes.len() / 8);
            if is_wasteful {
                Bytes::copy_from_slice(&bytes)
            } else {
                bytes.freeze()
            }
        }
        Err(shared) => Bytes::copy_from_slice(&shared),
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

    /// Whether the message that the wire holds is a copy of it.
    fn is_copied(wire: Bytes) -> bool {
        let place = wire[GRPC_PREFIX..].as_ptr();
        let mut joiner = Joiner::default();
        joiner.push(wire);
        joiner.next().unwrap().unwrap().as_ptr() != place
    }

    #[test]
    fn a_long_message_stays_where_it_is_if_it_has_its_memory_alone() {
        let wire = prefixed(&[7; LARGE]);
        assert!(!is_copied(wire.clone().into()));
        assert!(is_copied(prefixed(&[7; LARGE - 1]).into()), "a shorter one");
        assert!(
            is_copied([&wire[..], b"\0"].concat().into()),
            "there is more in its frame"
        );
        let shared = Bytes::from(wire.clone());
        assert!(is_copied(shared.clone()), "something else keeps the memory");

        let mut large = BytesMut::with_capacity(wire.len() + wire.len() / 4);
        large.extend_from_slice(&wire);
        assert!(is_copied(large.freeze()), "there is room behind it");
        let mut large = BytesMut::from(&[0; 2 * LARGE][..]);
        large.extend_from_slice(&wire);
        assert!(
            is_copied(large.split_off(2 * LARGE).freeze()),
            "there was much before it"
        );
    }

    #[test]
    fn a_long_message_that_is_cut_is_joined() {
        let wire = prefixed(&[7; LARGE]);
        let mut joiner = Joiner::default();
        let (begin, end) = wire.split_at(LARGE);
        assert_eq!(all(&mut joiner, begin), Ok(vec![]));
        assert!(joiner.is_inside());
        assert_eq!(all(&mut joiner, end).unwrap(), [&[7; LARGE][..]]);
        assert!(!joiner.is_inside());
    }

    /// Were it otherwise, bulk would be copied once more.
    #[tokio::test]
    async fn h2_gives_a_long_frame_memory_of_its_own() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let sending = async {
            let builder = h2::client::Builder::new();
            let (mut requests, connection) = builder.handshake::<_, Bytes>(near).await.unwrap();
            tokio::spawn(connection);
            let (response, mut body) = requests.send_request(http::Request::new(()), false).unwrap();
            // By then it knows how long frames may be.
            response.await.unwrap();
            for _ in 0..8 {
                body.send_data(prefixed(&[7; 2 * LARGE]).into(), false).unwrap();
            }
            std::future::pending::<()>().await;
        };
        let receiving = async {
            let mut builder = h2::server::Builder::new();
            builder
                .max_frame_size(crate::config::MAX_FRAME)
                .initial_window_size(1 << 24)
                .initial_connection_window_size(1 << 24);
            let mut connection = builder.handshake::<_, Bytes>(far).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let _responding = respond.send_response(http::Response::new(()), false).unwrap();
            tokio::spawn(async move { while connection.accept().await.is_some() {} });
            let mut body = request.into_body();
            for _ in 0..8 {
                assert!(!is_copied(body.data().await.unwrap().unwrap()));
            }
        };
        tokio::select! {
            () = sending => {}
            () = receiving => {}
        }
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

    fn message() -> impl Strategy<Value = Vec<u8>> {
        let long = (LARGE..LARGE + 10).prop_map(|len| (0..251).cycle().take(len).collect());
        prop_oneof![9 => prop::collection::vec(any::<u8>(), 0..300), 1 => long]
    }

    proptest! {
        #[test]
        fn messages_come_out_however_frames_are_cut(
            messages in prop::collection::vec(message(), 0..10),
            cuts in prop::collection::vec(prop_oneof![0usize..40, LARGE..2 * LARGE], 1..50),
        ) {
            let wire: Vec<u8> = messages.iter().flat_map(|message| prefixed(message)).collect();
            let mut joiner = Joiner::default();
            let mut joined = Vec::new();
            let mut rest = &wire[..];
            for cut in cuts.iter().cycle().take(wire.len() + cuts.len()).copied().chain([usize::MAX]) {
                let (piece, others) = rest.split_at(cut.min(rest.len()));
                joined.extend(all(&mut joiner, piece).unwrap());
                rest = others;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(joined, messages);
            prop_assert!(!joiner.is_inside());
        }
    }
}
