//! What must hold for arbitrary bytes. The package `fuzz` includes this file, so it uses the public interface alone.

use bytes::{Bytes, BytesMut};
use tunnel_proto::{Frame, FrameDecoder, FrameError, FrameKind, Message, Target, mux};

/// The names of the fuzz targets.
pub(crate) const TARGETS: &[&str] = &[
    "target",
    "claim",
    "welcome",
    "rejection",
    "head",
    "answer",
    "drain",
    "frames",
    "mux_frames",
    "control",
];

/// Runs what the fuzz target of this name runs.
pub(crate) fn run(target: &str, data: &[u8]) {
    match target {
        "target" => self::target(data),
        "claim" => body(FrameKind::Claim, data),
        "welcome" => body(FrameKind::Welcome, data),
        "rejection" => body(FrameKind::Rejection, data),
        "head" => body(FrameKind::Head, data),
        "answer" => body(FrameKind::Answer, data),
        "drain" => body(FrameKind::Drain, data),
        "frames" => frames(data),
        "mux_frames" => mux_frames(data),
        "control" => control(data),
        _ => panic!("{target} is not one of {TARGETS:?}"),
    }
}

/// A text that is a target is printed so that it reads as the same target, and within the limit.
pub(crate) fn target(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Ok(target) = text.parse::<Target>() {
        let printed = target.to_string();
        assert!(printed.len() <= Target::MAX, "{printed}");
        assert_eq!(printed.parse(), Ok(target), "{printed}");
    }
}

/// A body that can be read is written so that it reads as the same message.
pub(crate) fn body(kind: FrameKind, data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    let frame = Frame { kind, body };
    let Ok(Some(message)) = frame.message() else {
        return;
    };
    assert_eq!(message.kind(), kind);
    round_trip(&message);
}

/// Bytes give the same messages and the same end however they are split, and the decoder stays within its bound.
/// The first four bytes say how they are split.
pub(crate) fn frames(data: &[u8]) {
    let Some((lens, data)) = data.split_first_chunk::<4>() else {
        return;
    };
    let whole = decode([data]);
    whole.0.iter().for_each(round_trip);
    let lens = lens.map(|len| usize::from(len).max(1));
    assert_eq!(decode(split(data, &lens)), whole);
}

/// The bytes in chunks of these lengths, which are used again and again.
pub(crate) fn split<'a>(mut bytes: &'a [u8], lens: &[usize]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    for len in lens.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (chunk, rest) = bytes.split_at(bytes.len().min(*len));
        chunks.push(chunk);
        bytes = rest;
    }
    chunks
}

/// The messages in these chunks, and how they end.
pub(crate) fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Message>, Result<(), FrameError>) {
    let mut decoder = FrameDecoder::new();
    let mut messages = Vec::new();
    for chunk in chunks {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
        }
        assert!(decoder.held() <= FrameDecoder::MAX_HELD);
    }
    (messages, decoder.finish())
}

/// The frames in a message of a link, up to the first error, are written so that they read as the same frames.
pub(crate) fn mux_frames(data: &[u8]) {
    let message = Bytes::copy_from_slice(data);
    let frames: Vec<_> = mux::Frames::new(message).map_while(Result::ok).collect();
    if !frames.is_empty() {
        let written = encode(&frames);
        assert!(written.len() <= data.len(), "{frames:?}");
        assert_eq!(mux::Frames::new(written).collect::<Result<Vec<_>, _>>(), Ok(frames));
    }
}

/// Bytes of a control stream give the same frames and the same end however they are split, and those of a message.
/// The first four bytes say how they are split.
pub(crate) fn control(data: &[u8]) {
    let Some((lens, data)) = data.split_first_chunk::<4>() else {
        return;
    };
    let whole = control_frames([data]);
    let lens = lens.map(|len| usize::from(len).max(1));
    assert_eq!(control_frames(split(data, &lens)), whole);
    if let (frames, Ok(())) = whole
        && !data.is_empty()
        && data.len() <= mux::MAX_MESSAGE
    {
        let message = mux::Frames::new(Bytes::copy_from_slice(data));
        assert_eq!(message.map_while(Result::ok).collect::<Vec<_>>(), frames);
    }
}

/// The frames of a control stream that comes in these chunks, and the error that ends it.
pub(crate) fn control_frames<'a>(
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<mux::Frame>, Result<(), FrameError>) {
    let mut stream = mux::FrameStream::default();
    let mut frames = Vec::new();
    for chunk in chunks {
        stream.push(chunk);
        loop {
            match stream.take() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(()))
}

/// A message of a link of these frames.
pub(crate) fn encode(frames: &[mux::Frame]) -> Bytes {
    let mut out = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut out));
    out.freeze()
}

fn round_trip(message: &Message) {
    let encoded = message.encode();
    let (messages, end) = decode([&encoded[..]]);
    assert_eq!(messages, std::slice::from_ref(message));
    assert_eq!(end, Ok(()));
}
