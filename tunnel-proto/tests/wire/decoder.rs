//! Frames are found in a stream of bytes however they come, and nothing else is.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use tunnel_proto::{
    Answer, CloseCode, Drain, Frame, FrameDecoder, FrameError, FrameKind, Message, StreamHead, Target, VarInt,
};

use crate::{checks, strategies};

fn unknown(kind: u64, body: Vec<u8>) -> Bytes {
    let kind = FrameKind::from_value(VarInt::try_from(kind).unwrap());
    let body = body.into();
    Frame { kind, body }.encode()
}

/// What a stream consists of: messages, and frames to skip among them.
fn stream() -> impl Strategy<Value = (Vec<Message>, Vec<u8>)> {
    let skipped = (0x20u64..1 << 62, vec(any::<u8>(), 0..100)).prop_map(|(kind, body)| (None, unknown(kind, body)));
    let message = strategies::message().prop_map(|message| {
        let encoded = message.encode();
        (Some(message), encoded)
    });
    vec(prop_oneof![skipped, message], 0..6).prop_map(|parts| {
        let (messages, bytes): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        (messages.into_iter().flatten().collect(), bytes.concat())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn messages_come_out_of_any_split(
        (messages, bytes) in stream(),
        lens in vec(1usize..2000, 1..10),
    ) {
        let (found, end) = checks::decode(checks::split(&bytes, &lens));
        prop_assert_eq!(found, messages);
        prop_assert_eq!(end, Ok(()));
    }

    #[test]
    fn chunks_of_one_byte_are_enough((messages, bytes) in stream()) {
        prop_assert_eq!(checks::decode(bytes.chunks(1)), (messages, Ok(())));
    }

    #[test]
    fn a_stream_cut_short_ends_inside_a_frame_or_between_two(
        (messages, bytes) in stream(),
        cut in any::<prop::sample::Index>(),
    ) {
        prop_assume!(!bytes.is_empty());
        let (found, end) = checks::decode([&bytes[..cut.index(bytes.len())]]);
        prop_assert!(messages.starts_with(&found));
        prop_assert!(matches!(end, Ok(()) | Err(FrameError::Incomplete { .. })), "{:?}", end);
    }

    #[test]
    fn the_rest_comes_back_whole(
        head in strategies::head(),
        rest in vec(any::<u8>(), 0..3000),
        lens in vec(1usize..2000, 1..10),
    ) {
        let bytes = [&head.encode()[..], &rest].concat();
        let mut chunks = checks::split(&bytes, &lens).into_iter();
        let mut decoder = FrameDecoder::expecting(&[FrameKind::Head]);
        let message = loop {
            match decoder.next() {
                Ok(Some(message)) => break message,
                Ok(None) => decoder.push(Bytes::copy_from_slice(chunks.next().unwrap())),
                Err(error) => panic!("{error}"),
            }
        };
        prop_assert_eq!(message, head.into());
        let mut found = decoder.into_rest().to_vec();
        chunks.for_each(|chunk| found.extend_from_slice(chunk));
        prop_assert_eq!(found, rest);
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(data in vec(any::<u8>(), 0..500)) {
        checks::frames(&data);
    }

    #[test]
    fn damaged_streams_are_read_or_refused(
        (_, mut bytes) in stream(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        lens in any::<[u8; 4]>(),
    ) {
        prop_assume!(!bytes.is_empty());
        for (place, byte) in damage {
            let len = bytes.len();
            bytes[place.index(len)] = byte;
        }
        checks::frames(&[&lens[..], &bytes].concat());
    }
}

fn head() -> Bytes {
    StreamHead::new(Target::from_authority("a.example:1").unwrap()).encode()
}

#[test]
fn payload_behind_a_message_is_not_copied() {
    let chunk = Bytes::from([&head()[..], b"payload"].concat());
    let payload = chunk.slice(chunk.len() - 7..);
    let mut decoder = FrameDecoder::new();
    decoder.push(chunk);
    assert!(matches!(decoder.next(), Ok(Some(Message::Head(_)))));
    assert_eq!(decoder.held(), 7);
    let rest = decoder.into_rest();
    assert_eq!(rest, "payload");
    assert_eq!(rest.as_ptr(), payload.as_ptr());
}

#[test]
fn a_chunk_that_was_read_is_let_go() {
    for bytes in [&b"\x44"[..], b"\x04\x05abc", b"\x20\x05abc", b"\x06\x00"] {
        let chunk = Bytes::copy_from_slice(bytes);
        let mut decoder = FrameDecoder::new();
        decoder.push(chunk.clone());
        while decoder.next().unwrap().is_some() {}
        assert!(chunk.is_unique(), "{bytes:?}");
    }
}

#[test]
fn unread_chunks_are_joined() {
    let head = head();
    let mut decoder = FrameDecoder::new();
    for byte in &head {
        decoder.push(Bytes::copy_from_slice(&[*byte]));
    }
    assert_eq!(decoder.held(), head.len());
    assert!(!decoder.is_empty());
    assert!(matches!(decoder.next(), Ok(Some(Message::Head(_)))));
    assert!(decoder.is_empty());
}

#[test]
fn a_length_above_the_limit_is_refused_before_a_byte_of_the_body() {
    let kinds = Message::KINDS.iter().copied();
    let unknown = FrameKind::from_value(VarInt::from_u32(0x4242));
    for kind in kinds.chain([unknown]) {
        let mut header = Vec::new();
        kind.value().encode(&mut header);
        let limit = u32::try_from(kind.max_body()).unwrap();
        VarInt::from_u32(limit + 1).encode(&mut header);
        let mut decoder = FrameDecoder::new();
        decoder.push(header.into());
        let error = FrameError::TooLong {
            kind,
            len: u64::from(limit) + 1,
            limit: kind.max_body(),
        };
        assert_eq!(decoder.next(), Err(error));
        assert_eq!(decoder.held(), 0);
    }
}

#[test]
fn a_skipped_frame_is_not_held() {
    let frame = unknown(0x4242, vec![0; 64 * 1024]);
    let mut decoder = FrameDecoder::new();
    for chunk in frame.chunks(1000) {
        decoder.push(Bytes::copy_from_slice(chunk));
        assert_eq!(decoder.next(), Ok(None));
        assert_eq!(decoder.held(), 0);
    }
    assert!(decoder.is_empty());
}

#[test]
fn a_message_out_of_place_is_refused_by_its_header() {
    const EXPECTED: &[FrameKind] = &[FrameKind::Claim];
    let mut decoder = FrameDecoder::expecting(EXPECTED);
    decoder.push(head().slice(..2));
    let error = decoder.next().unwrap_err();
    let kind = FrameKind::Head;
    assert_eq!(
        error,
        FrameError::Unexpected {
            kind,
            expected: EXPECTED
        }
    );
    assert_eq!(error.to_string(), "a HEAD frame came where CLAIM was expected");
    assert_eq!(error.close_code(), CloseCode::PROTOCOL);
}

#[test]
fn the_expected_kinds_can_change_between_frames() {
    let mut decoder = FrameDecoder::expecting(&[FrameKind::Head]);
    decoder.push(Bytes::from([head(), Drain::new("bye").encode(), head()].concat()));
    assert!(matches!(decoder.next(), Ok(Some(Message::Head(_)))));
    decoder.expect(&[FrameKind::Drain]);
    assert_eq!(decoder.next(), Ok(Some(Drain::new("bye").into())));
    assert!(matches!(decoder.next(), Err(FrameError::Unexpected { .. })));
}

#[test]
fn an_error_is_final() {
    let mut decoder = FrameDecoder::expecting(&[FrameKind::Answer]);
    decoder.push(head());
    let error = decoder.next().unwrap_err();
    assert_eq!(decoder.held(), 0);
    decoder.push(Answer::Accepted.encode());
    assert_eq!(decoder.held(), 0);
    assert_eq!(decoder.next(), Err(error.clone()));
    assert_eq!(decoder.finish(), Err(error));
    assert!(!decoder.is_empty());
}

#[test]
fn an_end_inside_a_frame_names_the_frame() {
    let cases = [
        (&b"\x44"[..], "the bytes ended inside the header of a frame"),
        (b"\x04", "the bytes ended inside the HEAD frame"),
        (b"\x04\x05", "the bytes ended inside the HEAD frame"),
        (b"\x04\x05abc", "the bytes ended inside the HEAD frame"),
        (b"\x20\x05abc", "the bytes ended inside the 0x20 frame"),
    ];
    for (bytes, expected) in cases {
        let (_, end) = checks::decode([bytes]);
        assert_eq!(end.unwrap_err().to_string(), expected);
    }
}
