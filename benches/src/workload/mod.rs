//! Fixed pieces of work, for the criterion benches and for counting instructions.

pub mod heads;
pub mod mux;
