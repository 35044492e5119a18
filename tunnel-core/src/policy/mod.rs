//! Who may reach what through whom, on both ends.
//!
//! Policies are pure and synchronous, so that they can be tested as a table and asked anywhere.

mod pattern;

pub use pattern::{InvalidPattern, Pattern};
