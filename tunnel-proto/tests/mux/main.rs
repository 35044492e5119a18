//! The mux, two of them against each other in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod adversary;
mod basics;
mod budget;
mod corpora;
mod floods;
mod hostile;
mod judge;
mod line;
mod memory;
mod model;
mod opening;
mod ops;
mod pair;
mod peer;
mod schedules;
mod windows;
mod world;
