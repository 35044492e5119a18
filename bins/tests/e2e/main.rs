//! The two programs as an operator meets them: real processes, sockets, signals and files, on loopback alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::print_stderr,
    reason = "a test that cannot run says so, one that fails shows the logs"
)]

mod carriers;
mod clients;
mod configuration;
mod connect;
mod curl;
mod dev;
mod early;
mod garbage;
mod headers;
mod identity;
mod logging;
mod loss;
mod proxies;
mod reload;
mod several;
mod shortage;
mod shutdown;
mod streams;
mod support;
