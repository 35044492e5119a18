//! The laws of the carrier seam, and how a carrier is held to them.
//!
//! A carrier implements [`Harness`] once and writes one line:
//!
//! ```no_run
//! use tunnel_testkit::{conformance, memory::MemoryHarness};
//!
//! conformance!(MemoryHarness::instant());
//! # fn main() {}
//! ```
//!
//! which makes a test of each law in each role: `agent::law_05_…` has the agent act first, `server::law_05_…` the
//! server. Time is tokio's and paused, so that what a law calls prompt, slow or silent is measured exactly and takes
//! no time; a law that does not end within [`Harness::patience`] of that time has failed.
//!
//! Where a wire cannot do what a law asks, the carrier says so in its
//! [`Capabilities`](tunnel_core::Capabilities), and the law asks only for what they declare.

mod accounting;
mod admission;
mod buffering;
mod bytes;
mod cancellation;
mod early;
mod endings;
mod fairness;
mod fixtures;
mod harness;
mod law;
mod lifecycle;
mod opening;
mod seen;
mod traffic;
mod world;

pub use self::{
    harness::{Harness, Network, Setup, SetupError, Stage},
    law::{LAWS, Law, LawViolation, check, law},
    traffic::Background,
};
