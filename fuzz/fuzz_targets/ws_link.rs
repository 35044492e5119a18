//! A WebSocket and a hostile peer.
#![no_main]

#[path = "../../carrier-ws/src/link/tests/arbitrary.rs"]
mod arbitrary;
#[path = "../../carrier-ws/src/link/mod.rs"]
mod link;

libfuzzer_sys::fuzz_target!(|data: &[u8]| arbitrary::run(data));
