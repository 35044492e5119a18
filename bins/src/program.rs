//! From the arguments to the exit code, the same for every program.

use std::{env, future::Future, num::NonZeroUsize, process::ExitCode};

use anyhow::Context as _;
use clap::{CommandFactory, FromArgMatches};
use tunnel_core::Threads;

use crate::{
    cli::{self, LogArgs},
    descriptors,
    logging::Logger,
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
        Err(error) => return Failure::Configuration(error).tell(),
    };
    let logger = match Logger::install(args.log()) {
        Ok(logger) => logger,
        Err(error) => return Failure::Configuration(error).tell(),
    };
    let outcome = work(args, plan, run);
    // Why it ends is what stands last.
    drop(logger);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

fn work<P: Program, T, R: Future<Output = anyhow::Result<()>>>(
    args: P,
    plan: impl FnOnce(P, &Threads) -> anyhow::Result<T>,
    run: impl FnOnce(T) -> R,
) -> Result<(), Failure> {
    tunnel_tls::install_provider();
    descriptors::take();
    keep_some_heap();
    let only_check = args.only_check();
    let threads = if only_check { NonZeroUsize::MIN } else { args.threads() };
    let runtimes = Runtimes::start(threads)
        .context("cannot start the threads")
        .map_err(Failure::Work)?;
    let plan = plan(args, runtimes.threads()).map_err(Failure::Configuration)?;
    if only_check {
        print("the configuration is fine");
        return Ok(());
    }
    descriptors::tell();
    runtimes.run(run(plan)).map_err(Failure::Work)
}

/// Why a program ends.
enum Failure {
    /// The command line or the configuration is wrong.
    Configuration(anyhow::Error),
    /// What it was to do went wrong.
    Work(anyhow::Error),
}

impl Failure {
    /// Says it, and gives the exit code.
    fn tell(self) -> ExitCode {
        let (error, code) = match self {
            Self::Configuration(error) => (error, ExitCode::from(2)),
            Self::Work(error) => (error, ExitCode::FAILURE),
        };
        match error.downcast_ref::<clap::Error>() {
            // Help and version are "errors" that print to standard output and exit with 0.
            Some(usage) => usage.exit(),
            None => complain(&error),
        }
        code
    }
}

/// Lets the allocator of glibc keep up to 4 MiB of free memory at the end of its heap. By itself it gives what is over
/// 128 KiB back to the system, and bulk has it do so, and fault the pages in again, for every few messages. That limit is
/// twice the largest block that was ever freed (mallopt(3), `M_MMAP_THRESHOLD`); other allocators do not care.
fn keep_some_heap() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(2 * 1024 * 1024)));
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
