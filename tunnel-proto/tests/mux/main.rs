//! The mux, two of them against each other in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod basics;
mod budget;
mod floods;
mod hostile;
mod opening;
mod pair;
mod peer;
mod windows;
