//! What the fuzz targets have found or begin with, replayed.

use std::{collections::BTreeSet, fs, path::Path};

use crate::checks;

/// Replayed by the tests of the mux and of `carrier-ws`.
const OTHERS: [&str; 3] = ["mux_ops", "mux_peer", "ws_link"];

fn entries(directory: &Path) -> impl Iterator<Item = fs::DirEntry> + use<> {
    fs::read_dir(directory).unwrap().map(Result::unwrap)
}

#[test]
fn every_fuzz_target_has_a_corpus_that_passes() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    for target in checks::TARGETS {
        let files: Vec<_> = entries(&fuzz.join("corpus").join(target)).collect();
        assert!(!files.is_empty(), "{target}");
        for file in files {
            checks::run(target, &fs::read(file.path()).unwrap());
        }
    }
    let sources = entries(&fuzz.join("fuzz_targets"));
    let sources: BTreeSet<_> = sources.map(|file| file.file_name().into_string().unwrap()).collect();
    let targets = checks::TARGETS.iter().chain(&OTHERS);
    assert_eq!(sources, targets.map(|target| format!("{target}.rs")).collect());
}
