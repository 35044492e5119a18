//! An agent over the memory carrier and over scripted ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step fails the test"
)]

mod balanced;
mod connecting;
mod extra;
mod listening;
mod log;
mod scripted;
mod serving;
mod several;
mod shutdown;
mod support;
