//! From the arguments to the exit code, the same for every program.

use std::{
    convert::Infallible, env, future::Future, num::NonZeroUsize, process::ExitCode, sync::mpsc, thread, time::Duration,
};

use anyhow::Context as _;
use clap::{CommandFactory, FromArgMatches};
use tunnel_core::Threads;

use crate::{
    cli::{self, LogArgs},
    descriptors,
    logging::Logger,
    runtimes::Runtimes,
};

/// How long a program takes at most to say what is left to say.
const FAREWELL: Duration = Duration::from_secs(2);

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
    end(logger, work(args, plan, run))
}

/// Says what is left to say, the failure last, for as long as somebody listens.
fn end(logger: Logger, outcome: Result<(), Failure>) -> ExitCode {
    let code = outcome.as_ref().map_or_else(Failure::code, |()| ExitCode::SUCCESS);
    let (said, is_said) = mpsc::sync_channel::<Infallible>(0);
    let say = move || {
        drop(logger);
        if let Err(failure) = outcome {
            failure.tell();
        }
        drop(said);
    };
    // Whoever does not read standard error keeps that thread for ever, but not the process.
    if let Ok(_thread) = thread::Builder::new().spawn(say) {
        let _ = is_said.recv_timeout(FAREWELL);
    }
    code
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
    fn code(&self) -> ExitCode {
        match self {
            Self::Configuration(_) => ExitCode::from(2),
            Self::Work(_) => ExitCode::FAILURE,
        }
    }

    /// Says it, and gives the exit code.
    fn tell(self) -> ExitCode {
        let (Self::Configuration(error) | Self::Work(error)) = &self;
        match error.downcast_ref::<clap::Error>() {
            // Help and version are "errors" that print to standard output and exit with 0.
            Some(usage) => usage.exit(),
            None => complain(error),
        }
        self.code()
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
