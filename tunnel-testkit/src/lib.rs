//! The memory carrier, a simulated network, and the conformance laws that every carrier must pass.
//!
//! [`memory`] is the reference implementation of the carrier seam: small enough to read, and held to the same laws as
//! the carriers that use a network. [`mod@conformance`] holds those laws. [`sim`] is a network of byte pipes in virtual
//! time, for the carriers over TCP; [`programs`] starts real proxies. [`ends`] is what carriers need for tests of their
//! own, [`OtherThread`] a runtime beside the test's. The crate belongs in tests and examples.

pub mod conformance;
pub mod ends;
pub mod memory;
mod other_thread;
pub mod pki;
pub mod programs;
mod side;
pub mod sim;

pub use other_thread::OtherThread;
pub use side::Side;
