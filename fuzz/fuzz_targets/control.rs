//! A control stream.
#![no_main]

#[path = "../../tunnel-proto/tests/wire/checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::run("control", data));
