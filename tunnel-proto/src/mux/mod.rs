//! The mux: many streams over one ordered pipe of messages.
//!
//! A *link* carries messages in order and nothing else: a WebSocket, one gRPC call. The bytes are specified in
//! `docs/wire.md` §9.

mod frame;
mod id;
mod message;

pub use self::{
    frame::{Frame, Frames, Hello, MAX_MESSAGE, MAX_PAYLOAD},
    id::{Side, StreamId},
    message::Message,
};
