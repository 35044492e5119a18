//! What the fuzzers of the machine have found or begin with, replayed.

use std::{fs, path::Path};

use crate::{adversary, ops::parse, world};

fn inputs(target: &str) -> Vec<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let entries = fs::read_dir(corpus).unwrap();
    let inputs: Vec<_> = entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(!inputs.is_empty(), "{target}");
    inputs
}

#[test]
fn inputs_of_the_fuzzer_of_two_machines_pass() {
    for input in inputs("mux_ops") {
        let (setup, ops) = parse(&input).unwrap();
        world::run(setup, ops);
    }
}

#[test]
fn inputs_of_the_fuzzer_of_a_hostile_peer_pass() {
    for input in inputs("mux_peer") {
        let (setup, ops) = parse(&input).unwrap();
        adversary::run(setup, ops);
    }
}
