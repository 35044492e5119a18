//! One measurement of one kind, in processes of its own.

use std::{collections::BTreeMap, fmt, path::Path, str::FromStr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{
    Kind, Pair, Purpose, Wire,
    load::{Bulk, Direction, Moved},
    server::Server,
};
use crate::{
    credentials::Credentials,
    open_loop::{self, Schedule},
    process,
    stats::micros,
};

/// What is measured, by the name of the figure.
pub type Figures = BTreeMap<String, f64>;

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// `up-N`, `down-N`: so many streams of bulk.
    Bulk(Direction, usize),
    /// `rr`: requests and responses on a connection that does nothing else; `rr-beside-N`: and so many downloads.
    RoundTrips(usize),
    /// `idle-N`: a download alone, and then beside so many streams that do nothing.
    Idle(usize),
    /// `streams-N`: the memory of so many streams that do nothing.
    StreamMemory(usize),
    /// `connections-N`: the memory of so many connections that do nothing.
    ConnectionMemory(usize),
}

impl Cell {
    /// Whether there is such a thing for this kind.
    #[must_use]
    pub fn applies(self, kind: Kind) -> bool {
        match self {
            Self::Bulk(_, 1) | Self::RoundTrips(0) | Self::ConnectionMemory(_) => true,
            // It bounds nothing, so there is nothing to compare.
            Self::Idle(_) | Self::StreamMemory(_) => kind.multiplexes() && kind != Kind::Fifo,
            Self::Bulk(..) | Self::RoundTrips(_) => kind.multiplexes(),
        }
    }

    /// Starts a server, measures for so long, and ends it.
    pub async fn run(self, kind: Kind, credentials: &Path, time: Duration) -> anyhow::Result<Figures> {
        let mut server = Server::start(kind, credentials).await?;
        let dialler = kind.dialler(server.addr, &Credentials::in_dir(credentials)?)?;
        let wire = dialler.dial().await?;
        let mut figures = Figures::new();
        match self {
            Self::Bulk(direction, streams) => {
                let mut bulk = Bulk::start(&*wire, direction, streams).await?;
                note(&mut figures, "", bulk.measure(&mut server, time).await?);
            }
            Self::RoundTrips(0) => note_latencies(&mut figures, &round_trips(&*wire, time).await?),
            Self::RoundTrips(beside) => {
                let mut bulk = Bulk::start(&*wire, Direction::Down, beside).await?;
                let (moved, latencies) = tokio::try_join!(bulk.measure(&mut server, time), round_trips(&*wire, time))?;
                note(&mut figures, "", moved);
                note_latencies(&mut figures, &latencies);
            }
            Self::Idle(streams) => {
                let mut bulk = Bulk::start(&*wire, Direction::Down, 1).await?;
                note(&mut figures, "alone_", bulk.measure(&mut server, time).await?);
                bulk.stop().await;
                let _idle = idle(&wire, streams).await?;
                let mut bulk = Bulk::start(&*wire, Direction::Down, 1).await?;
                note(&mut figures, "", bulk.measure(&mut server, time).await?);
            }
            Self::StreamMemory(streams) => {
                // Code is paged in and allocators warm up with the first few.
                let warm = idle(&wire, 10).await?;
                let before = resident(&server)?;
                let idle = idle(&wire, streams).await?;
                note_memory(&mut figures, before, resident(&server)?, streams);
                drop((warm, idle));
            }
            Self::ConnectionMemory(connections) => {
                let mut wires = Vec::with_capacity(connections + 10);
                for _ in 0..10 {
                    wires.push(used(dialler.dial().await?).await?);
                }
                settle().await;
                let before = resident(&server)?;
                for _ in 0..connections {
                    wires.push(used(dialler.dial().await?).await?);
                }
                settle().await;
                note_memory(&mut figures, before, resident(&server)?, connections);
            }
        }
        Ok(figures)
    }
}

fn note(figures: &mut Figures, prefix: &str, moved: Moved) {
    figures.insert(format!("{prefix}gb_per_second"), moved.gb_per_second);
    figures.insert(format!("{prefix}cpu_seconds_per_gb"), moved.cpu_seconds_per_gb);
}

fn note_latencies(figures: &mut Figures, latencies: &[Duration]) {
    for (name, share) in [("p50_us", 0.5), ("p99_us", 0.99)] {
        figures.insert(name.to_owned(), micros(latencies, share));
    }
}

/// The server's and the agent's resident KiB.
fn resident(server: &Server) -> anyhow::Result<[u64; 2]> {
    let of = |pid| Some(process::usage(pid)?.resident_kib);
    Ok([of(server.pid()), of(std::process::id())].map(Option::unwrap_or_default))
}

fn note_memory(figures: &mut Figures, before: [u64; 2], after: [u64; 2], count: usize) {
    for (index, name) in ["server_kib_each", "agent_kib_each"].into_iter().enumerate() {
        let kib = after[index].saturating_sub(before[index]) as f64;
        figures.insert(name.to_owned(), kib / count as f64);
    }
}

/// Streams that are open, and known to the server.
async fn idle(wire: &Arc<dyn Wire>, streams: usize) -> anyhow::Result<Vec<Pair>> {
    let mut pairs = Vec::with_capacity(streams);
    for _ in 0..streams {
        let (mut tx, rx) = wire.open().await?;
        tx.send(Bytes::copy_from_slice(&[Purpose::Idle as u8])).await?;
        pairs.push((tx, rx));
    }
    settle().await;
    Ok(pairs)
}

/// A connection over which a request has gone, and whose stream stays: what connects and never does anything has yet
/// to buy most of what it needs.
async fn used(wire: Arc<dyn Wire>) -> anyhow::Result<(Arc<dyn Wire>, Pair)> {
    let (mut tx, mut rx) = wire.open().await?;
    tx.send(Bytes::copy_from_slice(&[Purpose::Echo as u8])).await?;
    tx.send(Bytes::from_static(b"x")).await?;
    rx.recv().await?.context("no echo")?;
    Ok((wire, (tx, rx)))
}

/// Latencies of requests at a fixed rate, on a stream of their own.
async fn round_trips(wire: &dyn Wire, time: Duration) -> anyhow::Result<Vec<Duration>> {
    const PERIOD: Duration = Duration::from_millis(3);
    let mut pair = wire.open().await?;
    pair.0.send(Bytes::copy_from_slice(&[Purpose::Echo as u8])).await?;
    let schedule = Schedule {
        start: Instant::now() + PERIOD,
        period: PERIOD,
        requests: u32::try_from(time.as_millis() / PERIOD.as_millis())?,
        patience: Duration::from_secs(30),
    };
    let clock = open_loop::clocks(&[schedule]).pop().context("no clock")?;
    let latencies = open_loop::measure(pair, schedule, clock).await?;
    ensure!(
        latencies.unanswered.is_empty(),
        "{} requests have no response",
        latencies.unanswered.len()
    );
    Ok(latencies.answered)
}

async fn settle() {
    sleep(Duration::from_millis(500)).await;
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bulk(Direction::Up, streams) => write!(f, "up-{streams}"),
            Self::Bulk(Direction::Down, streams) => write!(f, "down-{streams}"),
            Self::RoundTrips(0) => f.write_str("rr"),
            Self::RoundTrips(beside) => write!(f, "rr-beside-{beside}"),
            Self::Idle(streams) => write!(f, "idle-{streams}"),
            Self::StreamMemory(streams) => write!(f, "streams-{streams}"),
            Self::ConnectionMemory(connections) => write!(f, "connections-{connections}"),
        }
    }
}

impl FromStr for Cell {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        if name == "rr" {
            return Ok(Self::RoundTrips(0));
        }
        let (what, number) = name.rsplit_once('-').context("a measurement is NAME-NUMBER")?;
        let number = number.parse()?;
        Ok(match what {
            "up" => Self::Bulk(Direction::Up, number),
            "down" => Self::Bulk(Direction::Down, number),
            "rr-beside" => Self::RoundTrips(number),
            "idle" => Self::Idle(number),
            "streams" => Self::StreamMemory(number),
            "connections" => Self::ConnectionMemory(number),
            _ => bail!("{name} is no measurement"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_printed() {
        for name in [
            "up-1",
            "down-16",
            "rr",
            "rr-beside-16",
            "idle-10000",
            "streams-5",
            "connections-7",
        ] {
            assert_eq!(name.parse::<Cell>().unwrap().to_string(), name);
        }
        assert!("down".parse::<Cell>().is_err() && "sideways-1".parse::<Cell>().is_err());
    }
}
