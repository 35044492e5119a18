//! HTTP/2 itself: the pipe below it, its settings and its codes. Nothing here knows the tunnel's own protocol.

mod codes;
mod pipe;
mod session;

pub(crate) use self::{
    codes::{connection_error, reason, stream_code},
    pipe::{Pipe, Sight},
    session::{Incoming, Knobs, Sent, Session},
};
