//! Two machines, and what happens to them.
#![no_main]
#![allow(dead_code)] // of what other tests use

#[path = "../../tunnel-proto/tests/mux/judge.rs"]
mod judge;
#[path = "../../tunnel-proto/tests/mux/model.rs"]
mod model;
#[path = "../../tunnel-proto/tests/mux/ops.rs"]
mod ops;
#[path = "../../tunnel-proto/tests/mux/world/mod.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((setup, ops)) = ops::parse(data) {
        world::run(setup, ops);
    }
});
