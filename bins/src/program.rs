//! From the arguments to the exit code, the same for every program.

use std::{env, future::Future, num::NonZeroUsize, process::ExitCode};

use anyhow::Context as _;
use clap::{CommandFactory, FromArgMatches};
use tunnel_core::Threads;

use crate::{
    cli::{self, LogArgs},
    descriptors, logging,
    runtimes::Runtimes,
};

/// The command line of a program.
pub trait Program: CommandFactory + FromArgMatches {
    /// How it logs.
    fn log(&self) -> &LogArgs;

    /// Whether it only checks its configuration.
    fn only_check(&self) -> bool;

    /// How many threads do the work.
    fn threads(&self) -> NonZeroUsize;
}

/// Parses, logs, plans what the flags mean, and runs that; 0 for success, 1 for a failure, 2 for a wrong command line or
/// configuration.
pub fn main<P: Program, T, R: Future<Output = anyhow::Result<()>>>(
    plan: impl FnOnce(P, &Threads) -> anyhow::Result<T>,
    run: impl FnOnce(T) -> R,
) -> ExitCode {
    let args: P = match cli::parse(env::args_os()) {
        Ok(args) => args,
        Err(error) => return wrong_configuration(&error),
    };
    if let Err(error) = logging::init(args.log()) {
        return wrong_configuration(&error);
    }
    tunnel_tls::install_provider();
    descriptors::take();
    keep_some_heap();
    let only_check = args.only_check();
    let threads = if only_check { NonZeroUsize::MIN } else { args.threads() };
    let runtimes = match Runtimes::start(threads).context("cannot start the threads") {
        Ok(runtimes) => runtimes,
        Err(error) => {
            complain(&error);
            return ExitCode::FAILURE;
        }
    };
    let plan = match plan(args, runtimes.threads()) {
        Ok(plan) => plan,
        Err(error) => return wrong_configuration(&error),
    };
    if only_check {
        print("the configuration is fine");
        return ExitCode::SUCCESS;
    }
    descriptors::tell();
    match runtimes.run(run(plan)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Lets the allocator of glibc keep up to 4 MiB of free memory at the end of its heap. By itself it gives what is over
/// 128 KiB back to the system, and bulk has it do so, and fault the pages in again, for every few messages. That limit is
/// twice the largest block that was ever freed (mallopt(3), `M_MMAP_THRESHOLD`); other allocators do not care.
fn keep_some_heap() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(2 * 1024 * 1024)));
}

fn wrong_configuration(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<clap::Error>() {
        // Help and version are "errors" that print to standard output and exit with 0.
        Some(usage) => usage.exit(),
        None => {
            complain(error);
            ExitCode::from(2)
        }
    }
}

#[allow(clippy::print_stdout)] // the answer to --check-config
fn print(text: &str) {
    println!("{text}");
}

/// One line with the causes in it, where a person looks for it whatever the log filter is.
#[allow(clippy::print_stderr)]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
