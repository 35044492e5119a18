//! `docs/wire.md` and the golden files, as the tests read them.

use std::{collections::BTreeMap, fs, path::Path};

pub(crate) const DOCUMENT: &str = include_str!("../../../docs/wire.md");

/// Bytes as two hexadecimal digits each; `#` begins a comment.
pub(crate) fn parse_hex(text: &str) -> Vec<u8> {
    let code = |line: &str| line.split('#').next().unwrap_or_default().to_owned();
    let digits: Vec<String> = text.lines().map(code).collect();
    let digits = digits.join(" ");
    digits
        .split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

pub(crate) fn golden_files() -> BTreeMap<String, Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, parse_hex(&fs::read_to_string(&path).unwrap()))
    };
    fs::read_dir(directory).unwrap().map(file).collect()
}

/// The rows of the first table behind a heading, cell by cell.
pub(crate) fn table(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = DOCUMENT.split_once(heading).unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with('|')).skip(2);
    let cells = |row: &str| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    rows.take_while(|line| line.starts_with('|')).map(cells).collect()
}
