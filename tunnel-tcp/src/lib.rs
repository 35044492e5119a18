//! What the carriers over TCP share: dialling, directly or through a proxy, listening, and TLS on top.
//!
//! A carrier works over any [`Io`], so that its laws run over a simulated network in virtual time: it takes a [`Dial`]
//! or an [`Accept`], of which [`TcpDialer`] and [`TcpAcceptor`] are the real ones, and puts [`ClientSecurity`] or
//! [`ServerSecurity`] on top.

mod acceptor;
mod congestion;
mod dialer;
mod farewell;
pub mod http2;
mod io;
mod preface;
mod proxy;
mod read_ahead;
mod security;
mod socket;
mod transport;
pub mod upgrade;

pub use self::{
    acceptor::TcpAcceptor,
    congestion::Congestion,
    dialer::TcpDialer,
    farewell::farewell,
    io::{BoxIo, Io},
    preface::expect_http2,
    proxy::{InvalidProxy, InvalidVariable, Proxies, Proxy},
    security::{ClientSecurity, ClientSide, ServerSecurity, ServerSide, explain_tls},
    socket::SocketOptions,
    transport::{Accept, Accepted, Dial, Dialled},
};
