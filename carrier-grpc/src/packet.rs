//! `message Packet { bytes frames = 1; }`, written by hand (`proto/tunnel.proto`).
//!
//! Going out, a packet is a prefix of nine bytes and the chunks of the mux's message as they are: nothing is copied
//! before the socket or TLS. tonic's encoder would copy all of it into one buffer. Coming in, the mux's message is a
//! slice of the packet.

use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut, buf::Chain};
use tunnel_core::proto::mux::{MAX_MESSAGE, Message};

use crate::outlet::Underway;

/// The number of the field `frames`.
const FRAMES: u64 = 1;
/// gRPC's prefix: a flag for compression and the length of what follows.
pub(crate) const GRPC_PREFIX: usize = 5;
/// The longest header of the field: its tag, and a length up to [`MAX_MESSAGE`].
const FIELD_HEADER: usize = 4;

/// The longest packet that is taken: a message with the header of its field, and room for fields of later versions.
pub(crate) const MAX_PACKET: usize = MAX_MESSAGE + 1024;

/// What hyper sends: a packet with gRPC's prefix, or any other bytes.
#[derive(Debug)]
pub(crate) struct Packet {
    bytes: Chain<Bytes, Message>,
    /// Tells the link when the packet has left.
    _underway: Option<Underway>,
}

impl Packet {
    /// Wraps a message of the mux.
    pub(crate) fn new(message: Message, underway: Underway) -> Self {
        let mut header = BytesMut::with_capacity(GRPC_PREFIX + FIELD_HEADER);
        header.put_bytes(0, GRPC_PREFIX);
        put_varint(&mut header, FRAMES << 3 | WireType::Bytes as u64);
        put_varint(&mut header, message.len() as u64);
        let len = header.len() - GRPC_PREFIX + message.len();
        // The mux's messages are far shorter than 4 GiB.
        header[1..GRPC_PREFIX].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        Self {
            bytes: header.freeze().chain(message),
            _underway: Some(underway),
        }
    }

    /// Wraps bytes that are complete as they are.
    pub(crate) fn raw(bytes: Bytes) -> Self {
        Self {
            bytes: bytes.chain(Message::default()),
            _underway: None,
        }
    }
}

impl Buf for Packet {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(slices)
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

/// What is wrong with a packet.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet {0}")]
pub(crate) struct Malformed(&'static str);

/// How the value of a field is encoded (the protobuf encoding guide, "Message Structure").
#[derive(Clone, Copy, Debug)]
enum WireType {
    VarInt = 0,
    Fixed64 = 1,
    Bytes = 2,
    Fixed32 = 5,
}

/// Takes the field `frames` out of a packet; for any other message whose field 1 is of bytes or text, too. A packet
/// without it gives no bytes. They are a slice of the packet, unless much of it is something else that they would keep.
pub(crate) fn decode(mut packet: Bytes) -> Result<Bytes, Malformed> {
    let whole = packet.len();
    let packet = &mut packet;
    let mut frames = None;
    while packet.has_remaining() {
        let tag = varint(packet)?;
        let wire_type = match tag & 7 {
            0 => WireType::VarInt,
            1 => WireType::Fixed64,
            2 => WireType::Bytes,
            5 => WireType::Fixed32,
            _ => return Err(Malformed("has a field of a wire type that is not known")),
        };
        let len = match wire_type {
            WireType::VarInt => {
                varint(packet)?;
                0
            }
            WireType::Fixed64 => 8,
            WireType::Fixed32 => 4,
            WireType::Bytes => varint(packet)?,
        };
        let len = usize::try_from(len).ok().filter(|len| *len <= packet.remaining());
        let len = len.ok_or(TRUNCATED)?;
        match (tag >> 3, wire_type) {
            (0, _) => return Err(Malformed("has a field with the number 0")),
            (FRAMES, WireType::Bytes) if frames.is_some() => return Err(Malformed("has its field twice")),
            (FRAMES, WireType::Bytes) => frames = Some(packet.split_to(len)),
            (FRAMES, _) => return Err(Malformed("has a field 1 that is not of bytes")),
            _ => packet.advance(len),
        }
    }
    let frames = frames.unwrap_or_default();
    if whole - frames.len() > FIELD_HEADER + frames.len() / 8 {
        return Ok(Bytes::copy_from_slice(&frames));
    }
    Ok(frames)
}

const TRUNCATED: Malformed = Malformed("ends inside a field");

fn varint(packet: &mut Bytes) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = packet.try_get_u8().map_err(|_| TRUNCATED)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed("has a number of more than ten bytes"))
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return out.put_u8(low & 0x7f);
        }
        out.put_u8(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use http_body::Body as _;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::outlet::outlet;

    /// The message of `proto/tunnel.proto`, by another implementation.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Reference {
        #[prost(bytes = "bytes", tag = "1")]
        frames: Bytes,
    }

    /// A later version of it.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Later {
        #[prost(uint64, tag = "2")]
        number: u64,
        #[prost(fixed32, tag = "3")]
        small: u32,
        #[prost(bytes = "bytes", tag = "1")]
        frames: Bytes,
        #[prost(fixed64, tag = "4")]
        large: u64,
        #[prost(string, tag = "1000")]
        text: String,
    }

    fn sent(message: impl Into<Message>) -> Bytes {
        let (outlet, body) = outlet();
        outlet.send(message.into());
        let Poll::Ready(Some(Ok(frame))) = pin!(body).poll_frame(&mut Context::from_waker(Waker::noop())) else {
            panic!("nothing is sent");
        };
        let mut packet = frame.into_data().unwrap();
        packet.copy_to_bytes(packet.remaining())
    }

    #[test]
    fn the_description_says_what_is_done_here() {
        let proto = include_str!("../proto/tunnel.proto");
        let has = |line: &str| proto.lines().any(|found| found.trim() == line);
        assert!(has("syntax = \"proto3\";"));
        assert!(has(&format!("bytes frames = {FRAMES};")));
        assert!(has("rpc Connect(stream Packet) returns (stream Packet);"));
        assert!(has("package tunnel.v1;") && has("service Tunnel {"));
        assert_eq!(
            (crate::SERVICE, crate::METHOD),
            ("tunnel.v1.Tunnel", "/tunnel.v1.Tunnel/Connect")
        );
    }

    #[test]
    fn the_document_shows_what_is_sent() {
        let ping = sent(Bytes::from_static(b"\x1a\x08\x01\x02\x03\x04\x05\x06\x07\x08"));
        let hex: Vec<String> = ping.iter().map(|byte| format!("{byte:02x}")).collect();
        let document = include_str!("../../docs/wire.md");
        let (_, example) = document.split_once("```packet\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let shown = example
            .lines()
            .flat_map(|line| line.split('#').next().unwrap().split_whitespace());
        assert_eq!(hex, shown.collect::<Vec<_>>());
    }

    #[test]
    fn the_longest_message_fits() {
        let longest = sent(Bytes::from(vec![7; MAX_MESSAGE]));
        assert_eq!(longest.len(), GRPC_PREFIX + FIELD_HEADER + MAX_MESSAGE);
        assert!(longest.len() <= GRPC_PREFIX + MAX_PACKET);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let cases: [(&'static [u8], &str); 9] = [
            (b"\x0a", "ends inside a field"),
            (b"\x0a\x05abcd", "ends inside a field"),
            (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "ends inside a field"),
            (b"\x11abc", "ends inside a field"),
            (b"\x08\x01", "has a field 1 that is not of bytes"),
            (b"\x0a\x01a\x0a\x01b", "has its field twice"),
            (b"\x02\x00", "has a field with the number 0"),
            (b"\x13\x14", "has a field of a wire type that is not known"),
            (&[0xff; 11], "has a number of more than ten bytes"),
        ];
        for (packet, problem) in cases {
            assert_eq!(
                decode(Bytes::from_static(packet)),
                Err(Malformed(problem)),
                "{packet:x?}"
            );
        }
    }

    #[test]
    fn a_packet_that_is_mostly_something_else_is_not_kept() {
        for (len, small, is_copied) in [(1000, 0, false), (1000, 1, false), (10, 1, true)] {
            let frames = Bytes::from(vec![7; len]);
            let later = Later {
                small,
                frames: frames.clone(),
                ..Later::default()
            };
            let packet = Bytes::from(later.encode_to_vec());
            let memory = packet.as_ptr_range();
            let decoded = decode(packet).unwrap();
            assert_eq!(decoded, frames);
            assert_eq!(!memory.contains(&decoded.as_ptr()), is_copied, "{len} {small}");
        }
    }

    #[test]
    fn a_packet_may_be_empty() {
        assert_eq!(decode(Bytes::new()), Ok(Bytes::new()));
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_the_description_says(message in prop::collection::vec(any::<u8>(), 1..70_000)) {
            let packet = sent(Bytes::from(message.clone()));
            prop_assert_eq!(packet[0], 0);
            prop_assert_eq!(u32::from_be_bytes(packet[1..5].try_into().unwrap()) as usize, packet.len() - GRPC_PREFIX);
            let frames = Bytes::from(message);
            prop_assert_eq!(&packet[GRPC_PREFIX..], &Reference { frames }.encode_to_vec()[..]);
        }

        #[test]
        fn what_others_send_is_understood(
            frames in prop::collection::vec(any::<u8>(), 0..1000),
            number: u64, small: u32, large: u64, text: String,
        ) {
            let frames = Bytes::from(frames);
            let later = Bytes::from(Later { number, small, frames: frames.clone(), large, text }.encode_to_vec());
            prop_assert_eq!(decode(later).unwrap(), frames);
        }

        #[test]
        fn garbage_is_refused_or_read_but_never_more(packet in prop::collection::vec(any::<u8>(), 0..100)) {
            let len = packet.len();
            if let Ok(frames) = decode(packet.into()) {
                prop_assert!(frames.len() <= len);
            }
        }
    }
}
