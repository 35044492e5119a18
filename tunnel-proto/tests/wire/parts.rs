//! Frames in pieces: a codec of the tests' own, as far as identifiers and lengths go.

use tunnel_proto::{Frame, FrameError, FrameKind, Message, VarInt, mux};

/// The identifier and the value of a field.
pub(crate) type Field = (u64, Vec<u8>);

pub(crate) fn take_apart(frame: &[u8]) -> (FrameKind, Vec<Field>) {
    let mut input = frame;
    let integer = |input: &mut &[u8]| VarInt::decode(input).unwrap();
    let kind = FrameKind::from_value(integer(&mut input));
    assert_eq!(integer(&mut input).into_inner(), input.len() as u64);
    let mut fields = Vec::new();
    while !input.is_empty() {
        let id = integer(&mut input).into_inner();
        let len = usize::try_from(integer(&mut input).into_inner()).unwrap();
        let (value, rest) = input.split_at(len);
        fields.push((id, value.to_vec()));
        input = rest;
    }
    (kind, fields)
}

pub(crate) fn put_together(kind: FrameKind, fields: &[Field]) -> Frame {
    let mut body = Vec::new();
    for (id, value) in fields {
        VarInt::try_from(*id).unwrap().encode(&mut body);
        VarInt::try_from(value.len() as u64).unwrap().encode(&mut body);
        body.extend_from_slice(value);
    }
    Frame {
        kind,
        body: body.into(),
    }
}

/// What a frame holds, wherever it has its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Message(Message),
    Link(mux::Frame),
}

pub(crate) fn content(frame: &Frame) -> Result<Option<Content>, FrameError> {
    if Message::KINDS.contains(&frame.kind) {
        Ok(frame.message()?.map(Content::Message))
    } else {
        let next = mux::Frames::new(frame.encode()).next();
        Ok(next.transpose()?.map(Content::Link))
    }
}
