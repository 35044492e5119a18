//! The frames of a link: their golden files, and what holds for every message.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, prelude::*};
use tunnel_proto::{
    Answer, CloseCode, FrameError, FrameKind, Message, Refusal, RefusalKind, StreamCode, StreamHead, Target, VarInt,
    mux::{Frame, Frames, Hello, MAX_MESSAGE, MAX_PAYLOAD, Side, StreamId},
};

use crate::{checks, document::golden_files, strategies};

/// How the names of the golden files begin that hold a message of a link.
pub(crate) const PREFIX: &str = "link-";

fn integer(value: u32) -> VarInt {
    VarInt::from_u32(value)
}

/// The messages that are written exactly as their files say, and read back.
fn exact() -> BTreeMap<&'static str, Vec<Frame>> {
    let id = StreamId::new(Side::Agent, 1);
    let head = StreamHead::new(Target::from_authority("kubelet.example:10250").unwrap());
    let refusal = Refusal::new(RefusalKind::DnsError, "no such host");
    let abandoned = StreamId::new(Side::Agent, 3);
    let cancelled = StreamCode::CANCELLED;
    let token = [0, 0, 0, 0, 0, 0, 0, 7];
    let data = |payload: &'static [u8], fin| Frame::Data {
        id,
        payload: Bytes::from_static(payload),
        fin,
    };
    let close = Frame::Close {
        code: CloseCode::SHUTDOWN,
        text: "shutting down".into(),
    };
    let half_reset = Frame::Reset {
        id: StreamId::from_value(integer(3)),
        code: StreamCode::TARGET_RESET,
    };
    let half_stop = Frame::Stop {
        id: StreamId::from_value(integer(5)),
        code: cancelled,
    };
    let one = |frame| vec![frame];
    BTreeMap::from([
        ("link-hello", one(Frame::Hello(Hello::new(16_384, 64 << 10, 64 << 20)))),
        ("link-open", one(Frame::Open { id, head: head.clone() })),
        (
            "link-open-answer",
            one(Frame::Answer {
                id,
                answer: Answer::Accepted,
            }),
        ),
        (
            "link-open-answer-refused",
            one(Frame::Answer {
                id: StreamId::new(Side::Server, 32),
                answer: Answer::Refused(refusal.clone()),
            }),
        ),
        ("link-data", one(data(b"hello", false))),
        ("link-data-fin", one(data(b"", true))),
        (
            "link-reset",
            one(Frame::Reset {
                id,
                code: StreamCode::TARGET_RESET,
            }),
        ),
        ("link-stop", one(Frame::Stop { id, code: cancelled })),
        (
            "link-max-stream-data",
            one(Frame::MaxStreamData {
                id,
                offset: integer(327_680),
            }),
        ),
        (
            "link-max-data",
            one(Frame::MaxData {
                offset: integer(68_157_440),
            }),
        ),
        ("link-max-streams", one(Frame::MaxStreams { count: integer(16_385) })),
        ("link-ping", one(Frame::Ping(token))),
        ("link-pong", one(Frame::Pong(token))),
        ("link-close", one(close.clone())),
        (
            "link-control-agent",
            vec![
                Frame::Open {
                    id: StreamId::from_value(integer(0)),
                    head: head.clone(),
                },
                half_reset.clone(),
                half_stop.clone(),
                Frame::Drain(Default::default()),
            ],
        ),
        (
            "link-control-server",
            vec![
                Frame::Answer {
                    id: StreamId::from_value(integer(0)),
                    answer: Answer::Refused(refusal.clone()),
                },
                half_reset,
                half_stop,
                close.clone(),
            ],
        ),
        (
            "link-abandoned",
            vec![
                Frame::Reset {
                    id: abandoned,
                    code: cancelled,
                },
                Frame::Stop {
                    id: abandoned,
                    code: cancelled,
                },
            ],
        ),
    ])
}

/// The files that are read and never written: what they hold, and how many frames are skipped.
fn read_only() -> BTreeMap<&'static str, (Vec<Frame>, u32)> {
    let data = Frame::Data {
        id: StreamId::new(Side::Server, 1),
        payload: Bytes::new(),
        fin: false,
    };
    let reset = Frame::Reset {
        id: StreamId::new(Side::Agent, 1),
        code: StreamCode::MEMORY,
    };
    BTreeMap::from([
        ("link-unknown", (vec![Frame::Ping([0, 1, 2, 3, 4, 5, 6, 7]), data], 1)),
        (
            "link-long-integers",
            (vec![Frame::Hello(Hello::new(7, 8, 9)), reset], 0),
        ),
    ])
}

fn golden_links() -> BTreeMap<String, Vec<u8>> {
    let mut files = golden_files();
    files.retain(|name, _| name.starts_with(PREFIX));
    files
}

fn read(message: &[u8]) -> Result<Vec<Frame>, FrameError> {
    Frames::new(Bytes::copy_from_slice(message)).collect()
}

#[test]
fn golden_files_are_written_and_read_as_they_are() {
    let (exact, read_only, files) = (exact(), read_only(), golden_links());
    for (name, bytes) in &files {
        if let Some(frames) = exact.get(&name[..]) {
            assert_eq!(checks::encode(frames), bytes, "{name}");
            assert_eq!(read(bytes).as_ref(), Ok(frames), "{name}");
        } else {
            let mut frames = Frames::new(bytes.clone().into());
            let found: Result<Vec<_>, _> = frames.by_ref().collect();
            let (expected, skipped) = &read_only[&name[..]];
            assert_eq!(found.as_ref(), Ok(expected), "{name}");
            assert_eq!(frames.skipped(), *skipped, "{name}");
        }
    }
    assert_eq!(files.len(), exact.len() + read_only.len());
}

/// A message that is cut gives the frames that came whole, and then an error unless it is cut between two.
#[test]
fn no_truncation_gives_another_frame() {
    for (name, bytes) in golden_links() {
        let whole = read(&bytes).unwrap();
        for len in 0..bytes.len() {
            let mut frames = Frames::new(bytes[..len].to_vec().into());
            for expected in &whole {
                match frames.next() {
                    Some(Ok(frame)) => assert_eq!(&frame, expected, "{name}, {len} bytes"),
                    Some(Err(FrameError::Incomplete { .. })) | None => break,
                    Some(Err(error)) => panic!("{name}, {len} bytes: {error}"),
                }
            }
            assert!(frames.next().is_none(), "{name}, {len} bytes");
        }
    }
}

#[test]
fn a_frame_that_is_too_long_is_refused_before_it_has_come() {
    let (frames, end) = checks::control_frames([&[0x15, 0x40, 0xff][..]]);
    assert!(frames.is_empty() && end.is_err(), "{end:?}");
}

proptest! {
    #[test]
    fn a_message_comes_back_as_it_was(frames in vec(strategies::link_frame(), 1..8)) {
        prop_assume!(checks::encode(&frames).len() <= MAX_MESSAGE);
        prop_assert_eq!(read(&checks::encode(&frames)), Ok(frames));
    }

    #[test]
    fn frames_of_a_control_stream_are_found_however_it_is_cut(
        frames in vec(strategies::link_frame(), 1..8),
        lens in vec(1_usize..200, 1..5),
    ) {
        let mut bytes = BytesMut::new();
        for frame in &frames {
            // Behind one of a kind that nobody knows.
            bytes.extend_from_slice(&[0x3f, 2, 7, 7]);
            frame.encode(&mut bytes);
        }
        prop_assert_eq!(checks::control_frames(checks::split(&bytes, &lens)), (frames, Ok(())));
    }

    #[test]
    fn arbitrary_control_streams_are_read_or_refused(data in vec(any::<u8>(), 0..300)) {
        checks::control(&data);
    }

    #[test]
    fn every_frame_fits_the_longest_body_of_its_kind(frame in strategies::link_frame()) {
        let encoded = checks::encode(&[frame]);
        let mut body = &encoded[..];
        let kind = FrameKind::from_value(VarInt::decode(&mut body).unwrap());
        let len = VarInt::decode(&mut body).unwrap().into_inner();
        prop_assert_eq!(len, body.len() as u64);
        prop_assert!(body.len() <= kind.max_body());
    }

    #[test]
    fn arbitrary_messages_are_read_or_refused(data in vec(any::<u8>(), 0..300)) {
        checks::mux_frames(&data);
    }

    #[test]
    fn damaged_messages_are_read_or_refused(
        frames in vec(strategies::link_frame(), 1..4),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut bytes = checks::encode(&frames).to_vec();
        for (place, byte) in damage {
            let len = bytes.len();
            bytes[place.index(len)] = byte;
        }
        checks::mux_frames(&bytes);
    }
}

#[test]
fn payload_is_not_copied() {
    let message = Bytes::from_static(b"\x13\x06\x02hello\x14\x01\x02");
    let mut frames = Frames::new(message.clone());
    let Some(Ok(Frame::Data { payload, .. })) = frames.next() else {
        panic!("no payload")
    };
    assert_eq!(payload, "hello");
    assert_eq!(payload.as_ptr(), message[3..].as_ptr());
}

#[test]
fn an_error_is_the_last_item() {
    let mut frames = Frames::new(Bytes::from_static(b"\x1a\x01\x00\x18\x01\x07"));
    assert!(matches!(frames.next(), Some(Err(FrameError::Malformed(_)))));
    assert!(frames.next().is_none());
    assert!(frames.next().is_none());
}

#[test]
fn what_is_malformed_is_named() {
    let cases = [
        (&b""[..], "the bytes ended inside the header of a frame"),
        (b"\x40", "the bytes ended inside the header of a frame"),
        (b"\x13", "the bytes ended inside the DATA frame"),
        (b"\x13\x06\x02hell", "the bytes ended inside the DATA frame"),
        (b"\x20\x05abc", "the bytes ended inside the 0x20 frame"),
        (b"\x13\x00", "DATA frame, field stream: the body ends inside the field"),
        (
            b"\x11\x01\x40",
            "OPEN frame, field stream: the body ends inside the field",
        ),
        (b"\x11\x01\x02", "OPEN frame, field target: is missing"),
        (b"\x11\x05\x02\x01\x02ab", "OPEN frame, field target: is not a target"),
        (b"\x12\x01\x02", "OPEN_ANSWER frame, field outcome: is missing"),
        (b"\x10\x00", "HELLO frame, field max_streams: is missing"),
        (b"\x1c\x00", "CLOSE frame, field code: is missing"),
        (
            b"\x15\x01\x02",
            "RESET frame, field code: the body ends inside the field",
        ),
        (
            b"\x16\x03\x02\x00\x00",
            "STOP frame, field code: is followed by more bytes",
        ),
        (
            b"\x17\x02\x02\x40",
            "MAX_STREAM_DATA frame, field offset: the body ends inside the field",
        ),
        (
            b"\x18\x00",
            "MAX_DATA frame, field offset: the body ends inside the field",
        ),
        (
            b"\x18\x02\x00\x00",
            "MAX_DATA frame, field offset: is followed by more bytes",
        ),
        (b"\x1a\x01\x00", "PING frame, field token: is not eight bytes"),
        (b"\x1b\x00", "PONG frame, field token: is not eight bytes"),
        (
            b"\x19\x08\xd0\x00\x00\x00\x00\x00\x00\x01",
            "MAX_STREAMS frame, field count: has the value 1152921504606846977, which is out of range",
        ),
        (
            b"\x14\x08\xe0\x00\x00\x00\x00\x00\x00\x00",
            "DATA_FIN frame, field stream: has the value 2305843009213693952, which is out of range",
        ),
    ];
    for (bytes, expected) in cases {
        let error = read(bytes).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.close_code(), CloseCode::PROTOCOL);
    }
}

#[test]
fn lengths_have_their_limits() {
    for kind in FrameKind::KNOWN.iter().filter(|kind| !Message::KINDS.contains(kind)) {
        let (len, limit) = (kind.max_body() as u64 + 1, kind.max_body());
        let mut header = BytesMut::new();
        kind.value().encode(&mut header);
        VarInt::try_from(len).unwrap().encode(&mut header);
        let kind = *kind;
        assert_eq!(read(&header), Err(FrameError::TooLong { kind, len, limit }));
    }

    let data = |len| Frame::Data {
        id: StreamId::new(Side::Agent, 0),
        payload: vec![7; len].into(),
        fin: false,
    };
    let most = vec![data(MAX_PAYLOAD)];
    assert_eq!(read(&checks::encode(&most)), Ok(most));
    assert_eq!(
        read(&checks::encode(&[data(MAX_PAYLOAD + 1)])).unwrap_err().to_string(),
        "DATA frame, field payload: has 65537 bytes; at most 65536 are allowed"
    );

    let pings = checks::encode(&vec![Frame::Ping([7; 8]); MAX_MESSAGE / 10]);
    let fill = MAX_MESSAGE - pings.len();
    let fill = [&[0x20, u8::try_from(fill - 2).unwrap()][..], &vec![0; fill - 2]].concat();
    let longest = [&pings[..], &fill].concat();
    assert_eq!(read(&longest).unwrap().len(), MAX_MESSAGE / 10);
    let longer = [&longest[..], &[0]].concat();
    let len = MAX_MESSAGE + 1;
    assert_eq!(read(&longer), Err(FrameError::MessageTooLong { len }));
}

/// The handshake's frames are over when the mux begins, and the mux has its own way to say HEAD and ANSWER.
#[test]
fn frames_have_their_place() {
    for name in ["claim", "welcome", "rejection", "head", "answer-accepted"] {
        let bytes = &golden_files()[name];
        assert!(matches!(read(bytes), Err(FrameError::Unexpected { .. })), "{name}");
    }
    assert!(matches!(
        read(&golden_files()["drain"]).as_deref(),
        Ok([Frame::Drain(_)])
    ));
    for (name, bytes) in golden_links() {
        let (messages, end) = checks::decode([&bytes[..]]);
        assert!(messages.is_empty());
        assert!(matches!(end, Err(FrameError::Unexpected { .. })), "{name}");
    }
}

#[test]
fn what_the_wire_cannot_carry_is_cut() {
    let cut = Hello::new(u64::MAX, u64::MAX, u64::MAX);
    let mut set = Hello::new(0, 0, 0);
    (set.max_streams, set.stream_window, set.connection_window) = (u64::MAX, u64::MAX, u64::MAX);
    assert_eq!(cut.max_streams, StreamId::MAX_COUNT);
    assert_eq!(cut.stream_window, VarInt::MAX.into_inner());
    assert_eq!(read(&checks::encode(&[Frame::Hello(set)])), Ok(vec![Frame::Hello(cut)]));
}
