//! `tunnel-server`: accepts agents from private networks and opens streams through them on behalf of clients.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::main(bins::server::plan, bins::server::run)
}
