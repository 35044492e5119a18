//! Counts instructions of fixed pieces of work with callgrind, and compares them with those of before.

use std::{
    collections::BTreeMap,
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail, ensure};
use benches::workload::{
    heads,
    mux::{Pair, ROUND},
};
use bytes::Bytes;
use clap::{Parser, Subcommand, ValueEnum};

/// Counts instructions of fixed pieces of work with callgrind, and compares them with those of before
///
/// Unlike times, counts hardly depend on the machine or on what else it does. Without valgrind it says so and succeeds.
#[derive(Debug, Parser)]
#[command(name = "instructions")]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,

    /// The counts of before
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json"))]
    baseline: PathBuf,

    /// By how many percent a count may have grown or shrunk
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    tolerance: f64,

    /// Makes the counts of now those of before
    #[arg(long)]
    update: bool,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Does a piece of work so often; what to run under a profiler
    Work { work: Work, rounds: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    /// The head of a stream, written.
    HeadEncode,
    /// The head of a stream, read.
    HeadDecode,
    /// A MiB through the mux, by one stream in pieces of 16 KiB.
    MuxBytes1,
    /// A MiB through the mux, by a thousand streams in turn, 1 KiB each.
    MuxBytes1000,
    /// 4,000 pieces of 64 bytes through the mux, by one stream.
    MuxFrames1,
    /// 4,000 pieces of 64 bytes through the mux, by a thousand streams in turn.
    MuxFrames1000,
    /// A thousand streams opened and accepted.
    MuxOpen1000,
}

impl Work {
    /// How often it is done between two counts, so that what is not the work hardly counts.
    const fn rounds(self) -> usize {
        match self {
            Self::HeadEncode | Self::HeadDecode => 10_000,
            Self::MuxBytes1 | Self::MuxBytes1000 => 64,
            Self::MuxFrames1 | Self::MuxFrames1000 => 8,
            Self::MuxOpen1000 => 4,
        }
    }

    fn run(self, rounds: usize) -> anyhow::Result<()> {
        let carry = |streams: usize, len: usize, count: usize| {
            let mut pair = Pair::new(streams)?;
            let piece = Bytes::from(vec![7; len]);
            (0..rounds).try_for_each(|_| pair.carry(&piece, count))
        };
        match self {
            Self::HeadEncode => {
                let head = heads::head()?;
                (0..rounds).for_each(|_| drop(black_box(black_box(&head).encode())));
                Ok(())
            }
            Self::HeadDecode => {
                let bytes = heads::head()?.encode();
                (0..rounds).try_for_each(|_| heads::decode(bytes.clone()).map(|head| drop(black_box(head))))
            }
            Self::MuxBytes1 => carry(1, 16 * 1024, ROUND / (16 * 1024)),
            Self::MuxBytes1000 => carry(1000, 1024, ROUND / 1024),
            Self::MuxFrames1 => carry(1, 64, 4000),
            Self::MuxFrames1000 => carry(1000, 64, 4000),
            Self::MuxOpen1000 => (0..rounds).try_for_each(|_| Pair::new(1000).map(|pair| drop(black_box(pair)))),
        }
    }
}

type Counts = BTreeMap<String, u64>;

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Part::Work { work, rounds }) = arguments.part {
        work.run(rounds)?;
        return Ok(ExitCode::SUCCESS);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        print("skipped: there is no valgrind");
        return Ok(ExitCode::SUCCESS);
    }
    let before = read(&arguments.baseline)?;
    let mut now = Counts::new();
    let mut failed = false;
    print(&format!(
        "{:<16} {:>12} {:>12} {:>8}",
        "instructions of", "before", "now", "change"
    ));
    for work in Work::value_variants() {
        let name = work.to_possible_value().context("a piece of work has no name")?;
        let name = name.get_name().to_owned();
        let count = count(&name, *work)?;
        let (old, change) = match before.get(&name) {
            Some(old) => (old.to_string(), (count as f64 / *old as f64 - 1.0) * 100.0),
            None => ("-".to_owned(), f64::NAN),
        };
        // Not a number is no change that can be allowed.
        let allowed = change.abs() <= arguments.tolerance;
        failed |= !allowed;
        let mark = if allowed { "" } else { "  <- more than the tolerance" };
        print(&format!("{name:<16} {old:>12} {count:>12} {change:>7.1}%{mark}"));
        now.insert(name, count);
    }
    if arguments.update {
        fs::write(
            &arguments.baseline,
            format!("{}\n", serde_json::to_string_pretty(&now)?),
        )?;
        print(&format!("written to {}", arguments.baseline.display()));
        failed = false;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read(file: &Path) -> anyhow::Result<Counts> {
    if !file.exists() {
        return Ok(Counts::new());
    }
    serde_json::from_str(&fs::read_to_string(file)?).with_context(|| format!("{} is broken", file.display()))
}

/// Instructions of one round: what more rounds cost more, so that starting does not count.
fn count(name: &str, work: Work) -> anyhow::Result<u64> {
    let rounds = work.rounds();
    let [one, many] = [1, 1 + rounds].map(|rounds| collected(name, rounds));
    Ok(many?.saturating_sub(one?) / rounds as u64)
}

fn collected(name: &str, rounds: usize) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["work", name, &rounds.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind fails at {name}:\n{said}");
    match said.lines().find_map(|line| line.split_once("Collected : ")) {
        Some((_, count)) => Ok(count.trim().parse()?),
        None => bail!("callgrind does not say what it collected:\n{said}"),
    }
}

#[allow(clippy::print_stdout)] // it is what this program is for
fn print(text: &str) {
    println!("{text}");
}
