//! Benches of the parts and the carrier comparison
