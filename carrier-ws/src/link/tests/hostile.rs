//! A peer that sends anything.

use std::{fs, path::Path};

use proptest::prelude::*;

use super::{arbitrary::run, *};

/// What the fuzz target has found or begins with.
#[test]
fn inputs_of_the_fuzzer_pass() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/ws_link");
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0);
}

proptest! {
    #[test]
    fn frames_are_understood_however_they_are_cut(
        head: [u8; 5],
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 0..10),
        long in prop::option::of((60_000..140_000_usize, any::<bool>())),
        rest in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let masks = head[0] & 1 == 0;
        let mut input = head.to_vec();
        if let Some((len, is_whole)) = long {
            input.extend(frame(if is_whole { FIN | BINARY } else { BINARY }, masks, &bytes(len)));
            if !is_whole {
                input.extend(frame(FIN | CONTINUATION, masks, b"the rest"));
            }
        }
        for (kind, payload) in frames {
            // Mostly what exists.
            let first = [FIN | BINARY, FIN | BINARY, BINARY, FIN | CONTINUATION, CONTINUATION, FIN | PING, FIN | PONG, kind];
            input.extend(frame(first[usize::from(kind) % first.len()], masks, &payload));
        }
        input.extend(rest);
        run(&input);
    }
}
