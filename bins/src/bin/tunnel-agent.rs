//! `tunnel-agent`: dials out to servers and opens streams to targets in this network on their behalf.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::main(bins::agent::plan, bins::agent::run)
}
