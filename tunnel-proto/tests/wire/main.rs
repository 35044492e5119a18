//! The wire format, seen from outside: what `docs/wire.md` says, held against the public interface.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy exempts only functions marked as tests"
)]

mod checks;
mod decoder;
mod round_trip;
mod strategies;
mod target;
