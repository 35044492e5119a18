//! Measures the carriers beside each other and beside the bare protocols that they are made of.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use benches::{
    carrier::{
        Kind,
        cell::{Cell, Figures},
        report::Report,
        server,
    },
    credentials::Credentials,
};
use clap::{Args, Parser, Subcommand};
use tokio::runtime;

/// Measures the carriers beside each other and beside the bare protocols that they are made of
///
/// Every measurement takes place in two new processes, on loopback with TLS: an agent with one thread and a server with one for each
/// core, as the programs have by default. Kinds take turns within each repetition, so that all meet the same noise; compare rows of
/// one table only.
#[derive(Debug, Parser)]
#[command(name = "carrier")]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,

    #[command(flatten)]
    compare: Compare,
}

#[derive(Debug, Args)]
struct Compare {
    /// What to measure: quic, ws, grpc, h2, fifo, bare-tls, bare-ws, bare-grpc; repeatable. All by default
    #[arg(long)]
    kind: Vec<Kind>,

    /// Measurements: up-N, down-N (streams of bulk), rr, rr-beside-N (requests beside downloads), idle-N (a download beside
    /// idle streams), streams-N, connections-N (memory); repeatable
    #[arg(long, value_delimiter = ',', default_values = [
        "down-1", "up-1", "down-16", "up-16", "rr", "rr-beside-16", "idle-10000", "streams-10000", "connections-1000",
    ])]
    cell: Vec<Cell>,

    /// How often each is repeated
    #[arg(long, default_value_t = 5)]
    repetitions: usize,

    /// How long each takes, in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,

    /// One repetition of a second
    #[arg(long)]
    quick: bool,

    /// Writes every run to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Is the server of a measurement
    Server {
        #[arg(long)]
        kind: Kind,
        #[arg(long)]
        credentials: PathBuf,
    },
    /// Makes one measurement and prints its figures as JSON; what to run under a profiler
    Agent {
        #[arg(long)]
        kind: Kind,
        #[arg(long)]
        cell: Cell,
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// A directory for certificates; one that lasts only as long by default
        #[arg(long)]
        credentials: Option<PathBuf>,
    },
}

fn main() -> anyhow::Result<()> {
    // Thousands of connections; whoever cannot have that many descriptors is told by the failure.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let arguments = Arguments::parse();
    let mut runtime = match arguments.part {
        Some(Part::Server { .. }) => runtime::Builder::new_multi_thread(),
        _ => runtime::Builder::new_current_thread(),
    };
    runtime.enable_all().build()?.block_on(play(arguments))
}

async fn play(Arguments { part, compare }: Arguments) -> anyhow::Result<()> {
    match part {
        Some(Part::Server { kind, credentials }) => server::run(kind, &credentials).await,
        Some(Part::Agent {
            kind,
            cell,
            seconds,
            credentials,
        }) => {
            let own = tempfile::tempdir()?;
            let dir = credentials.as_deref().unwrap_or(own.path());
            ensure!(cell.applies(kind), "{kind} has no {cell}");
            let figures = cell.run(kind, dir, Duration::from_secs_f64(seconds)).await?;
            print(&serde_json::to_string(&figures)?);
            Ok(())
        }
        None => run(compare).await,
    }
}

async fn run(mut compare: Compare) -> anyhow::Result<()> {
    if compare.quick {
        (compare.repetitions, compare.seconds) = (1, 1.0);
    }
    if compare.kind.is_empty() {
        compare.kind = Kind::ALL.to_vec();
    }
    let dir = tempfile::tempdir()?;
    // Once, so that processes only read it.
    let ca = dir.path().join("ca");
    Credentials::in_dir(&ca)?;
    let mut report = Report::default();
    for cell in &compare.cell {
        for repetition in 0..compare.repetitions {
            for kind in compare.kind.iter().filter(|kind| cell.applies(**kind)) {
                let figures = agent(*kind, *cell, compare.seconds, &ca)
                    .await
                    .with_context(|| format!("{cell} of {kind}, repetition {repetition}"))?;
                report.add(*cell, *kind, figures);
            }
        }
    }
    print(&format!(
        "{} CPUs, {} repetitions of {} s, kinds interleaved; median (smallest-largest)",
        std::thread::available_parallelism()?,
        compare.repetitions,
        compare.seconds
    ));
    print(&report.table());
    if let Some(file) = compare.json {
        std::fs::write(&file, report.json().to_string()).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Makes one measurement in a process of its own.
async fn agent(kind: Kind, cell: Cell, seconds: f64, credentials: &Path) -> anyhow::Result<Figures> {
    let output = tokio::process::Command::new(std::env::current_exe()?)
        .args(["agent", "--kind", &kind.to_string(), "--cell", &cell.to_string()])
        .args(["--seconds", &seconds.to_string(), "--credentials"])
        .arg(credentials)
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(output.status.success(), "it failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[allow(clippy::print_stdout)] // it is what this program is for
fn print(text: &str) {
    println!("{text}");
}
