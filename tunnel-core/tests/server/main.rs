//! A server over the memory carrier, in virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step fails the test"
)]

mod accept;
mod churn;
mod early;
mod metrics;
mod policy;
mod routing;
mod sessions;
mod shutdown;
mod support;
mod threads;
mod upstream;
