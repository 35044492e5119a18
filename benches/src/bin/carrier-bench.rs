//! Compares the carriers as people run them: programs, CONNECT and mutual TLS.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use benches::{
    compare::{
        agents::AgentsJob,
        child,
        client::{Job, Outcome},
        link::{self, Link},
        options::Options,
        peers::Relay,
        progress::note,
        runner::{Runner, tell},
    },
    target::{self, control, responder::Responder},
};
use clap::{Parser, Subcommand};
use tokio::net::{TcpListener, UnixListener};

/// Compares the carriers as people run them, beside direct TCP and beside bare relays made of the same crates
///
/// Server, agent, client and target are processes of their own on loopback, with CONNECT and mutual TLS. Peers take turns within
/// each repetition, so that all meet the same noise; compare rows of one table only. docs/performance.md explains the figures.
///
/// The exit code is 0 if nothing failed, 3 if results were written but something failed in them or is missing, 2 for a command
/// line that is wrong, and 1 if there are no results.
#[derive(Debug, Parser)]
#[command(name = "carrier-bench", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,

    #[command(flatten)]
    options: Options,
}

/// What the processes of a comparison are.
#[derive(Debug, Subcommand)]
enum Part {
    /// Becomes a program that ends with its parent
    #[command(hide = true)]
    Guard {
        parent: u32,
        #[arg(long)]
        realtime: bool,
        #[arg(last = true)]
        words: Vec<OsString>,
    },
    /// The target
    #[command(hide = true)]
    Target {
        ip: IpAddr,
        control: PathBuf,
        #[arg(long)]
        realtime: bool,
    },
    /// The impaired link
    #[command(hide = true)]
    Link {
        link: Link,
        near: String,
        far: String,
        seed: u64,
    },
    /// Makes a measurement
    #[command(hide = true)]
    Client { job: String },
    /// Waits until a stream gets through
    #[command(hide = true)]
    Reach { job: String },
    /// Many agents that do nothing
    #[command(hide = true)]
    Agents { job: String },
    /// The first hop of a bare relay
    #[command(hide = true)]
    Near {
        relay: Relay,
        ip: IpAddr,
        #[arg(long)]
        far: SocketAddr,
        #[arg(long)]
        credentials: PathBuf,
    },
    /// The second hop of a bare relay
    #[command(hide = true)]
    Far {
        relay: Relay,
        ip: IpAddr,
        #[arg(long)]
        target: SocketAddr,
        #[arg(long)]
        credentials: PathBuf,
    },
}

/// Results were written, but something failed in them or is missing. (clap ends with 2.)
const FAULTY: u8 = 3;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    // Thousands of connections; whoever cannot have that many descriptors is told by the failure.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let Arguments { part, options } = Arguments::parse();
    // The one thread that starts processes has to live as long as they do: the kernel kills them with it.
    let mut runtime = match part {
        None => tokio::runtime::Builder::new_current_thread(),
        Some(_) => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build()?;
    match part {
        None => runtime.block_on(compare(options)),
        Some(part) => runtime.block_on(Box::pin(play(part))).map(|()| ExitCode::SUCCESS),
    }
}

async fn play(part: Part) -> anyhow::Result<()> {
    match part {
        Part::Guard {
            parent,
            realtime,
            words,
        } => child::guard(parent, realtime, &words),
        Part::Link { link, near, far, seed } => link::carry(link, &near, &far, seed).await,
        Part::Target { ip, control, realtime } => be_target(ip, control, realtime).await,
        Part::Client { job } => tell(&serde_json::from_str::<Job>(&job)?.run().await?),
        Part::Reach { job } => {
            serde_json::from_str::<Job>(&job)?.reach().await?;
            tell(&Outcome::default())
        }
        Part::Agents { job } => tell(&serde_json::from_str::<AgentsJob>(&job)?.run().await?),
        Part::Near {
            relay,
            ip,
            far,
            credentials,
        } => relay.near((ip, 0).into(), far, &credentials).await,
        Part::Far {
            relay,
            ip,
            target,
            credentials,
        } => relay.far((ip, 0).into(), target, &credentials).await,
    }
}

async fn be_target(ip: IpAddr, socket: PathBuf, is_realtime: bool) -> anyhow::Result<()> {
    let ledger = Arc::new(control::Ledger::default());
    let listener = TcpListener::bind((ip, 0)).await?;
    let responder = Responder::start(is_realtime)?;
    let told = UnixListener::bind(&socket)?;
    print(&format!("listening on {}", listener.local_addr()?));
    tokio::spawn(target::listen(listener, Arc::clone(&ledger), responder));
    Ok(control::serve(told, ledger).await?)
}

async fn compare(options: Options) -> anyhow::Result<ExitCode> {
    let runner = Runner::new(options.clone()).await?;
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // Then nobody can.
            std::future::pending().await
        }
    };
    let report = runner.run(interrupted).await?;
    let text = report.markdown();
    print(&text);
    if let Some(file) = &options.markdown {
        std::fs::write(file, &text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(file) = &options.json {
        let json = serde_json::to_string_pretty(&report.json())?;
        std::fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(dir) = &options.plots {
        report
            .draw(dir)
            .with_context(|| format!("cannot draw in {}", dir.display()))?;
    }
    Ok(match report.fault() {
        None => ExitCode::SUCCESS,
        Some(fault) => {
            note(&format!("error: not everything went well: {fault}"));
            FAULTY.into()
        }
    })
}

#[allow(clippy::print_stdout)] // it is what this program is for
fn print(text: &str) {
    println!("{text}");
}
