//! A carrier without a network: the reference implementation of the seam.
//!
//! Both ends of a connection look at one [`state`](self) under one lock, so there is nothing to encode and nothing to
//! wait for; what a real carrier does with frames, credit and timers is here a few fields. Everything is bounded: a
//! stream holds at most one window in each direction, a connection at most its stream limits, a listener its backlog.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use tunnel_testkit::memory;
//!
//! let (carrier, listener) = memory::pair(memory::Config::default());
//! # drop((carrier, listener)); }
//! ```
//!
//! # Time
//!
//! Bytes arrive at once, unless [`Config::bandwidth`] makes the wire a slow one. Timers are tokio's, so tests may
//! pause them. A [`Wire`] breaks on purpose: [`cut`](Wire::cut) tells both ends at once, [`silence`](Wire::silence)
//! tells nobody, and keepalive has to notice.

mod attempt;
mod carrier;
mod connection;
mod ends;
mod half;
mod harness;
mod inbound;
mod link;
mod listener;
mod pipe;
mod state;
mod wire;

use std::num::NonZeroUsize;

use tokio::sync::mpsc;
use tunnel_core::{Identity, Keepalive};

pub use self::{
    attempt::MemoryIncoming,
    carrier::{Knock, MemoryCarrier},
    connection::MemoryConnection,
    ends::{Ends, ends},
    harness::MemoryHarness,
    listener::MemoryListener,
    wire::Wire,
};

/// The carrier's name.
const NAME: &str = "memory";

/// How a pair of ends behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many bytes of a stream may be under way or unread, in each direction. Default 64 KiB.
    pub window: usize,
    /// How many streams the server may have open towards an agent; how many an agent may have is in the server's
    /// welcome. Default 1024.
    pub max_streams: u32,
    /// How a silent wire is noticed; the shorter of this and the welcome's counts.
    pub keepalive: Keepalive,
    /// How many bytes the wire carries per millisecond and direction, over all streams in turn; none are carried
    /// between two milliseconds. Default `None`: bytes arrive at once.
    pub bandwidth: Option<NonZeroUsize>,
    /// How many dials may wait to be accepted; more of them wait. Default 64.
    pub backlog: usize,
    /// What the certificate of an agent proves. Default: the common name `agent`.
    pub agent: Identity,
    /// What the certificate of the server proves. Default: the common name `server`.
    pub server: Identity,
    /// Whether an agent trusts the server's certificate. Default yes.
    pub server_is_trusted: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window: 64 * 1024,
            max_streams: 1024,
            keepalive: Keepalive::default(),
            bandwidth: None,
            backlog: 64,
            agent: named("agent"),
            server: named("server"),
            server_is_trusted: true,
        }
    }
}

/// An identity with a common name and nothing else.
fn named(name: &str) -> Identity {
    let mut identity = Identity::anonymous();
    identity.common_name = Some(name.to_owned());
    identity
}

/// Makes a listener and a carrier that dials it. [`MemoryCarrier::another`] makes carriers for more agents.
#[must_use]
pub fn pair(config: Config) -> (MemoryCarrier, MemoryListener) {
    let (attempts, backlog) = mpsc::channel(config.backlog.max(1));
    (MemoryCarrier::new(config, attempts), MemoryListener::new(backlog))
}
