//! How far a comparison is, on standard error.

use std::io::{IsTerminal as _, stderr};

/// Shows how far it is: on a terminal one line that changes, elsewhere a line each time.
#[allow(clippy::print_stderr)]
pub fn progress(line: &str) {
    if stderr().is_terminal() {
        eprint!("\r\x1b[K{line}");
    } else {
        eprintln!("{line}");
    }
}

/// Shows something that stays.
#[allow(clippy::print_stderr)]
pub fn note(line: &str) {
    clear();
    eprintln!("{line}");
}

/// Nothing is under way any more.
pub fn clear() {
    if stderr().is_terminal() {
        progress("");
    }
}
