//! Sans-IO vocabulary and wire encoding of the reverse tunnel.
//!
//! Everything that two ends of a tunnel say to each other is defined here: where a stream should go
//! ([`Target`], [`StreamHead`]), what came of it ([`Answer`], [`Refusal`]), what an agent says of itself
//! ([`Claim`]), what a server answers ([`Welcome`], [`Rejection`]), and the codes with which streams and
//! connections end ([`StreamCode`], [`CloseCode`]). A [`Message`] is any of them as it travels, in one [`Frame`];
//! [`FrameDecoder`] takes the bytes of a stream apart.
//!
//! This crate performs no I/O, reads no clock, draws no random numbers and knows no TLS. Its input is bytes
//! and its output is values, or the reverse; every limit is checked before memory is allocated for what a
//! peer announced. The bytes are specified in `docs/wire.md`, whose sections the modules cite.

mod answer;
mod capabilities;
mod claim;
mod codes;
mod decoder;
mod drain;
mod field;
mod frame;
mod head;
mod id;
mod identity;
mod message;
pub mod mux;
mod proxy_status;
mod rejection;
mod secret;
mod target;
mod text;
mod varint;
mod welcome;

pub use answer::{Answer, Refusal, RefusalKind};
pub use capabilities::CapabilityNames;
pub use claim::{Claim, Generation, Labels};
pub use codes::{CloseCode, StreamCode};
pub use decoder::FrameDecoder;
pub use drain::Drain;
pub use field::Problem;
pub use frame::{Frame, FrameError, FrameKind, MalformedFrame};
pub use head::{InvalidTraceContext, Metadata, StreamHead, TraceContext};
pub use id::{AgentId, InvalidId, ServerId};
pub use identity::{Fingerprint, Identity};
pub use message::{Message, PROTOCOL_VERSIONS};
pub use proxy_status::{ProxyError, ProxyStatus};
pub use rejection::Rejection;
pub use secret::{InvalidSecret, Secret};
pub use target::{DnsName, Host, HostPort, InvalidTarget, Target, UnixPath};
pub use text::Text;
pub use varint::{VarInt, VarIntOutOfRange};
pub use welcome::{Keepalive, StreamLimits, Welcome};
