//! Plain CONNECT, between the two ends of this crate and with peers of others.
#![cfg(feature = "forward")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod clients;
mod early;
mod hostile;
mod laws;
mod proxies;
mod world;
