//! The wire encoding: a stream's head and answer, as each new stream pays them.

use anyhow::Context as _;
use bytes::Bytes;
use tunnel_core::{
    Answer, StreamHead,
    proto::{FrameDecoder, Message, TraceContext},
};

/// A head with everything in it.
pub fn head() -> anyhow::Result<Message> {
    let mut head = StreamHead::new("tcp://kubelet.node-7.cluster.example:10250".parse()?);
    head.client = Some("[2001:db8::7]:54321".parse()?);
    head.deadline = Some(std::time::Duration::from_secs(30));
    head.trace = TraceContext::new(
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "vendor=value",
    )
    .ok();
    Ok(Message::from(head))
}

/// The answer that most streams get.
#[must_use]
pub fn answer() -> Message {
    Message::from(Answer::Accepted)
}

/// Reads a message that is there as a whole.
pub fn decode(bytes: Bytes) -> anyhow::Result<Message> {
    let mut decoder = FrameDecoder::new();
    decoder.push(bytes);
    decoder.next()?.context("half a message")
}
