//! Puts load on a running tunnel and on the direct path, side by side.

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
    stats::{median, micros},
    target::{self, CHUNK, Command},
};
use clap::{Parser, Subcommand};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
};

/// Puts load on a running tunnel and on the direct path, side by side
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
    /// Throughput, connection rate and latency of both paths, interleaved
    Compare {
        /// How long each measurement takes, in seconds
        #[arg(long, default_value_t = 2)]
        seconds: u64,
        /// How often each is repeated; medians are shown
        #[arg(long, default_value_t = 5)]
        repetitions: usize,
        /// Streams of the bulk measurements; repeatable
        #[arg(long, default_values_t = [1, 16])]
        streams: Vec<usize>,
    },
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
    /// Throughput of one download beside downloads that nobody reads
    Stalled {
        /// How many are not read
        #[arg(long, default_value_t = 1)]
        stalled: usize,
        /// How long each measurement takes, in seconds
        #[arg(long, default_value_t = 2)]
        seconds: u64,
        /// How often each is repeated; medians are shown
        #[arg(long, default_value_t = 5)]
        repetitions: usize,
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
        Run::Compare {
            seconds,
            repetitions,
            streams,
        } => {
            compare(
                target,
                tunnel,
                Duration::from_secs(seconds),
                repetitions,
                &streams,
                &args.pid,
            )
            .await?
        }
        Run::Integrity { mib } => integrity(target, tunnel, mib << 20).await?,
        Run::Open { streams } => open(target, tunnel, streams, &args.pid).await?,
        Run::Short { streams, concurrency } => short(target, tunnel, streams, concurrency).await?,
        Run::Stalled {
            stalled,
            seconds,
            repetitions,
        } => beside_stalled(target, tunnel, stalled, Duration::from_secs(seconds), repetitions).await?,
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

fn cpu(pids: &[u32]) -> f64 {
    usages(pids).iter().map(|usage| usage.cpu_seconds).sum()
}

async fn compare(
    target: SocketAddr,
    tunnel: Path,
    time: Duration,
    repetitions: usize,
    streams: &[usize],
    pids: &[u32],
) -> anyhow::Result<()> {
    for &streams in streams {
        for direction in [Direction::Up, Direction::Down] {
            let mut speeds = [Vec::new(), Vec::new()];
            let mut costs = Vec::new();
            for _ in 0..repetitions {
                for (path, speeds) in [Path::Direct, tunnel].into_iter().zip(&mut speeds) {
                    let before = cpu(pids);
                    let bytes = bulk(path, target, direction, streams, time).await?;
                    speeds.push(bytes as f64 / time.as_secs_f64() / 1e9);
                    if path != Path::Direct && bytes > 0 {
                        costs.push((cpu(pids) - before) / (bytes as f64 / 1e9));
                    }
                }
            }
            let [direct, tunnel] = speeds.map(|speeds| median(&speeds));
            let cost = median(&costs);
            print_line(&format!(
                "bulk {direction:?} x{streams}: direct {direct:.3} GB/s, tunnel {tunnel:.3} GB/s ({:.2}x), {cost:.2} CPU s/GB",
                tunnel / direct
            ));
        }
    }
    let mut rates = [Vec::new(), Vec::new()];
    let mut p50s = [Vec::new(), Vec::new()];
    let mut p99s = [Vec::new(), Vec::new()];
    for _ in 0..repetitions {
        for (index, path) in [Path::Direct, tunnel].into_iter().enumerate() {
            rates[index].push(connect_rate(path, target, time).await?);
            let latencies = round_trips(path, target, time).await?;
            p50s[index].push(micros(&latencies, 0.5));
            p99s[index].push(micros(&latencies, 0.99));
        }
    }
    let [direct, tunnel] = rates.map(|rates| median(&rates));
    print_line(&format!(
        "connections: direct {direct:.0}/s, tunnel {tunnel:.0}/s ({:.2}x)",
        tunnel / direct
    ));
    let ([direct50, tunnel50], [direct99, tunnel99]) = (p50s.map(|p| median(&p)), p99s.map(|p| median(&p)));
    print_line(&format!(
        "request/response of 100 bytes: direct p50 {direct50:.0} us, p99 {direct99:.0} us; tunnel p50 {tunnel50:.0} us ({:.1}x), p99 {tunnel99:.0} us ({:.1}x)",
        tunnel50 / direct50,
        tunnel99 / direct99
    ));
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    Up,
    Down,
}

/// The number of bytes that arrive within `time`.
async fn bulk(
    path: Path,
    target: SocketAddr,
    direction: Direction,
    streams: usize,
    time: Duration,
) -> anyhow::Result<u64> {
    let total = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        let mut socket = path.connect(target).await?;
        // Uploads are echoed to nowhere: the receiver's count is the sender's less what is buffered on the way.
        match direction {
            Direction::Up => Command::Upload.send(&mut socket).await?,
            Direction::Down => Command::Download(u64::MAX).send(&mut socket).await?,
        }
        let total = total.clone();
        tasks.spawn(async move {
            match direction {
                Direction::Up => push(&mut socket, &total).await,
                Direction::Down => pull(&mut socket, &total).await,
            }
        });
    }
    // The windows fill first.
    tokio::time::sleep(time / 4).await;
    let start = total.load(Ordering::Relaxed);
    tokio::time::sleep(time).await;
    let bytes = total.load(Ordering::Relaxed) - start;
    ensure!(tasks.try_join_next().is_none(), "a bulk stream ended early");
    tasks.shutdown().await;
    Ok(bytes)
}

async fn push(socket: &mut TcpStream, total: &AtomicU64) -> std::io::Result<()> {
    let chunk = vec![7; CHUNK];
    loop {
        let len = socket.write(&chunk).await?;
        total.fetch_add(len as u64, Ordering::Relaxed);
    }
}

async fn pull(socket: &mut TcpStream, total: &AtomicU64) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match socket.read(&mut chunk).await? {
            0 => return Ok(()),
            len => total.fetch_add(len as u64, Ordering::Relaxed),
        };
    }
}

/// New connections with one byte there and back, a second.
async fn connect_rate(path: Path, target: SocketAddr, time: Duration) -> anyhow::Result<f64> {
    let done = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let done = done.clone();
        tasks.spawn(async move {
            while Instant::now() < end {
                one_byte(path, target).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    Ok(done.load(Ordering::Relaxed) as f64 / time.as_secs_f64())
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

async fn round_trips(path: Path, target: SocketAddr, time: Duration) -> anyhow::Result<Vec<Duration>> {
    let mut socket = path.connect(target).await?;
    Command::Echo.send(&mut socket).await?;
    let mut message = [9; 100];
    let mut latencies = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let start = Instant::now();
        socket.write_all(&message).await?;
        socket.read_exact(&mut message).await?;
        latencies.push(start.elapsed());
    }
    Ok(latencies)
}

async fn integrity(target: SocketAddr, tunnel: Path, len: u64) -> anyhow::Result<()> {
    let expected = tokio::task::spawn_blocking(move || target::pattern_checksum(len)).await?;

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
    target::send_pattern(&mut socket, len).await?;
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

async fn beside_stalled(
    target: SocketAddr,
    tunnel: Path,
    stalled: usize,
    time: Duration,
    repetitions: usize,
) -> anyhow::Result<()> {
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..repetitions {
        alone.push(bulk(tunnel, target, Direction::Down, 1, time).await? as f64);
        let mut unread = Vec::with_capacity(stalled);
        for _ in 0..stalled {
            let mut socket = tunnel.connect(target).await?;
            Command::Download(u64::MAX).send(&mut socket).await?;
            unread.push(socket);
        }
        // Let every window fill.
        tokio::time::sleep(time / 2).await;
        beside.push(bulk(tunnel, target, Direction::Down, 1, time).await? as f64);
    }
    let (alone, beside) = (
        median(&alone) / time.as_secs_f64() / 1e9,
        median(&beside) / time.as_secs_f64() / 1e9,
    );
    print_line(&format!(
        "one download alone {alone:.3} GB/s, beside {stalled} stalled ones {beside:.3} GB/s ({:.2}x)",
        beside / alone
    ));
    Ok(())
}
