//! What the carriers over TCP share: dialling, directly or through a proxy, listening, and TLS on top.
//!
//! A carrier works over any [`Io`], so that its laws run over a simulated network in virtual time.

mod io;
mod transport;

pub use self::{
    io::{BoxIo, Io},
    transport::{Accept, Accepted, Dial, Dialled},
};
