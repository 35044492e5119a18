//! Puts load on a running tunnel and looks whether it comes through whole.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use benches::{
    client::Path,
    process::{self, Usage},
    target::{self, CHUNK, Command, pattern::pattern_checksum},
};
use clap::{Parser, Subcommand};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Semaphore,
    task::JoinSet,
};

/// Puts load on a running tunnel and looks whether it comes through whole
///
/// The target runs inside this program unless there is a --target; the tunnel's agent must be able to reach it.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Args {
    /// The tunnel's CONNECT proxy
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8090", global = true)]
    proxy: SocketAddr,

    /// A target in another process, which `load target` is: two processes may have more sockets open than one
    #[arg(long, value_name = "ADDR", global = true)]
    target: Option<SocketAddr>,

    /// Processes whose CPU time, memory and descriptors are to be shown; repeatable
    #[arg(long, value_name = "PID", global = true)]
    pid: Vec<u32>,

    #[command(subcommand)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Run {
    /// Is the target of another run, and prints its address
    Target,
    /// Sends and receives so many MiB through the tunnel and compares checksums
    Integrity {
        /// MiB each way
        #[arg(long, default_value_t = 1024)]
        mib: u64,
    },
    /// Opens so many streams at once, uses each, and closes them
    Open {
        /// How many
        #[arg(long, default_value_t = 10_000)]
        streams: usize,
    },
    /// Opens, uses and closes so many streams one after another, some at once
    Short {
        /// How many in all
        #[arg(long, default_value_t = 50_000)]
        streams: usize,
        /// How many at once
        #[arg(long, default_value_t = 32)]
        concurrency: usize,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let target = match args.target {
        Some(target) => target,
        None => target::spawn().await.context("the target cannot listen on loopback")?,
    };
    let tunnel = Path::Proxy(args.proxy);
    let before = usages(&args.pid);
    match args.run {
        Run::Target => {
            print_line(&target.to_string());
            std::future::pending::<()>().await;
        }
        Run::Integrity { mib } => integrity(target, tunnel, mib << 20).await?,
        Run::Open { streams } => open(target, tunnel, streams, &args.pid).await?,
        Run::Short { streams, concurrency } => short(target, tunnel, streams, concurrency).await?,
    }
    // What was just closed takes a moment to be let go of.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (pid, (before, after)) in args.pid.iter().zip(before.iter().zip(usages(&args.pid))) {
        print_line(&format!(
            "process {pid}: {} -> {} KiB resident, {} -> {} descriptors, {:.2} s of CPU",
            before.resident_kib,
            after.resident_kib,
            before.descriptors,
            after.descriptors,
            after.cpu_seconds - before.cpu_seconds,
        ));
    }
    Ok(())
}

#[allow(clippy::print_stdout)] // it is what this program is for
fn print_line(line: &str) {
    println!("{line}");
}

fn usages(pids: &[u32]) -> Vec<Usage> {
    pids.iter()
        .map(|pid| process::usage(*pid).unwrap_or_default())
        .collect()
}

async fn one_byte(path: Path, target: SocketAddr) -> anyhow::Result<()> {
    let mut socket = path.connect(target).await?;
    Command::Echo.send(&mut socket).await?;
    socket.write_all(b"x").await?;
    ensure!(socket.read_u8().await? == b'x', "the echo is wrong");
    socket.shutdown().await?;
    ensure!(socket.read(&mut [0]).await? == 0, "there is more than the echo");
    Ok(())
}

async fn integrity(target: SocketAddr, tunnel: Path, len: u64) -> anyhow::Result<()> {
    let expected = tokio::task::spawn_blocking(move || pattern_checksum(len)).await?;

    let mut socket = tunnel.connect(target).await?;
    Command::Download(len).send(&mut socket).await?;
    let start = Instant::now();
    let (sum, total) = target::checksum_to_end(&mut socket).await?;
    ensure!(total == len, "{total} of {len} bytes arrived down");
    ensure!(
        sum == expected,
        "the bytes that arrived down are not those that were sent"
    );
    print_line(&format!(
        "down: {len} bytes, checksum {sum:#018x}, {:.2?}",
        start.elapsed()
    ));

    let mut socket = tunnel.connect(target).await?;
    Command::Upload.send(&mut socket).await?;
    let start = Instant::now();
    target::send_pattern(&mut socket, len, || CHUNK).await?;
    let sum = socket.read_u64().await?;
    ensure!(
        sum == expected,
        "the bytes that arrived up are not those that were sent"
    );
    print_line(&format!(
        "up: {len} bytes, checksum {sum:#018x}, {:.2?}",
        start.elapsed()
    ));

    let mut socket = tunnel.connect(target).await?;
    Command::Reset.send(&mut socket).await?;
    let error = socket.read(&mut [0]).await;
    let reset = matches!(&error, Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset);
    ensure!(reset, "a target's reset arrived as {error:?}");
    print_line("reset: arrived as a reset");
    Ok(())
}

async fn open(target: SocketAddr, tunnel: Path, streams: usize, pids: &[u32]) -> anyhow::Result<()> {
    let start = Instant::now();
    let dialling = Arc::new(Semaphore::new(64));
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        let dialling = dialling.clone();
        tasks.spawn(async move {
            let _permit = dialling.acquire().await?;
            let mut socket = tunnel.connect(target).await?;
            Command::Echo.send(&mut socket).await?;
            anyhow::Ok(socket)
        });
    }
    let mut sockets = Vec::with_capacity(streams);
    while let Some(result) = tasks.join_next().await {
        sockets.push(result??);
    }
    print_line(&format!("{} streams open after {:.2?}", sockets.len(), start.elapsed()));
    for (pid, usage) in pids.iter().zip(usages(pids)) {
        print_line(&format!(
            "process {pid}: {} KiB resident, {} descriptors",
            usage.resident_kib, usage.descriptors
        ));
    }
    for socket in &mut sockets {
        socket.write_all(b"x").await?;
    }
    for socket in &mut sockets {
        ensure!(socket.read_u8().await? == b'x', "the echo is wrong");
    }
    print_line(&format!("each echoed after {:.2?}", start.elapsed()));
    for mut socket in sockets {
        socket.shutdown().await?;
        ensure!(socket.read(&mut [0]).await? == 0, "there is more than the echo");
    }
    print_line(&format!("all closed cleanly after {:.2?}", start.elapsed()));
    Ok(())
}

async fn short(target: SocketAddr, tunnel: Path, streams: usize, concurrency: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    let left = Arc::new(AtomicU64::new(streams as u64));
    let mut tasks = JoinSet::new();
    for _ in 0..concurrency {
        let left = left.clone();
        tasks.spawn(async move {
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
            {
                one_byte(tunnel, target).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    let rate = streams as f64 / start.elapsed().as_secs_f64();
    print_line(&format!("{streams} streams in {:.2?}: {rate:.0}/s", start.elapsed()));
    Ok(())
}
