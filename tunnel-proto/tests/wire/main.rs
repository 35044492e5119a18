//! The wire format, seen from outside: what `docs/wire.md` says, held against the public interface.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy exempts only functions marked as tests"
)]

mod checks;
mod corpora;
mod decoder;
mod document;
mod golden;
mod link;
mod malformed;
mod parts;
mod round_trip;
mod strategies;
mod target;
mod values;
