//! HTTP/2, and streams on it, whatever protocol opens them. Nothing here knows what that protocol says.
//!
//! - `session`: HTTP/2 itself, on a `pipe`, which may read `ahead`; `codes` are what it calls errors, `connect` what requests and responses have in
//!   common, and `frames` sees what h2 does not tell of.
//! - `driver`: the one task that knows HTTP/2. `visit` is what it does about a stream, `memory` when the budget is short;
//!   what a `protocol` does in its own way. `wire` is a stream as it sees it, `window` and
//!   `under_way` how large windows should be, `pulse` whether the peer is alive.
//! - `stream`: one stream as the application sees it, through its `halves`; `opening` and `inbound` are how it begins.
//! - `hub`: what these and the handle (`connection`) share; `arrivals` are streams that nobody has looked at.

mod ahead;
mod arrivals;
mod codes;
mod connect;
mod connection;
mod driver;
mod frames;
mod halves;
mod hub;
mod inbound;
mod memory;
mod opening;
mod pipe;
mod protocol;
mod pulse;
mod session;
mod stream;
mod under_way;
mod visit;
mod window;
mod wire;

#[cfg(feature = "forward")]
pub(crate) use self::{
    codes::{close_code, close_reason, plain_reason},
    frames::GoAway,
};
pub(crate) use self::{
    codes::{connection_error, reason, stream_code},
    connect::{PROXY_STATUS, connect, proxy_status},
    connection::H2Connection,
    driver::Driver,
    hub::Hub,
    pipe::{Pipe, Sight},
    protocol::Protocol,
    session::{Incoming, Knobs, Sent, Session},
    stream::{Outcome, Plan, Rx, Stream, Tx},
    wire::Opening,
};
