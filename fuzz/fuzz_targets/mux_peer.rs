//! A machine and a hostile peer.
#![no_main]
#![allow(dead_code)] // of what other tests use

#[path = "../../tunnel-proto/tests/mux/adversary.rs"]
mod adversary;
#[path = "../../tunnel-proto/tests/mux/judge.rs"]
mod judge;
#[path = "../../tunnel-proto/tests/mux/model.rs"]
mod model;
#[path = "../../tunnel-proto/tests/mux/ops.rs"]
mod ops;
#[path = "../../tunnel-proto/tests/mux/peer.rs"]
mod peer;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((setup, ops)) = ops::parse(data) {
        adversary::run(setup, ops);
    }
});
