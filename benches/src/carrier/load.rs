//! Bulk: streams that move as much as the connection takes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tokio::{task::JoinSet, time::sleep};

use super::{CHUNK, Purpose, Rx, Tx, Wire, server::Server};
use crate::process;

/// Which way, as the agent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the agent to the server.
    Up,
    /// From the server to the agent.
    Down,
}

/// Streams that move bytes until it is dropped.
#[derive(Debug)]
pub struct Bulk {
    direction: Direction,
    taken: Arc<AtomicU64>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// What was moved in a while.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// At the receiver.
    pub gb_per_second: f64,
    /// Of both processes.
    pub cpu_seconds_per_gb: f64,
}

impl Bulk {
    /// Starts as many streams, and lets them come up to speed.
    pub async fn start(wire: &dyn Wire, direction: Direction, streams: usize) -> anyhow::Result<Self> {
        let taken = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..streams {
            let (mut tx, rx) = wire.open().await?;
            let purpose = match direction {
                Direction::Up => Purpose::Upload,
                Direction::Down => Purpose::Download,
            };
            tx.send(Bytes::copy_from_slice(&[purpose as u8])).await?;
            let taken = Arc::clone(&taken);
            tasks.spawn(async move {
                match direction {
                    Direction::Up => push(tx, rx).await,
                    Direction::Down => pull(tx, rx, &taken).await,
                }
            });
        }
        // Windows grow, and buffers fill.
        sleep(Duration::from_millis(500)).await;
        Ok(Self {
            direction,
            taken,
            tasks,
        })
    }

    /// What it moves from now on for so long.
    pub async fn measure(&mut self, server: &mut Server, time: Duration) -> anyhow::Result<Moved> {
        let before = self.reading(server).await?;
        sleep(time).await;
        let after = self.reading(server).await?;
        ensure!(self.tasks.try_join_next().is_none(), "a bulk stream ended early");
        let gb = (after.bytes - before.bytes) as f64 / 1e9;
        Ok(Moved {
            gb_per_second: gb / (after.at - before.at).as_secs_f64(),
            cpu_seconds_per_gb: (after.cpu_seconds - before.cpu_seconds) / gb,
        })
    }

    /// Ends every stream.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }

    async fn reading(&self, server: &mut Server) -> anyhow::Result<Reading> {
        let bytes = match self.direction {
            Direction::Up => server.taken().await?,
            Direction::Down => self.taken.load(Ordering::Relaxed),
        };
        let mut cpu_seconds = 0.0;
        for pid in [server.pid(), std::process::id()] {
            cpu_seconds += process::usage(pid).context("a process is gone")?.cpu_seconds;
        }
        Ok(Reading {
            at: Instant::now(),
            bytes,
            cpu_seconds,
        })
    }
}

struct Reading {
    at: Instant,
    bytes: u64,
    cpu_seconds: f64,
}

async fn push(mut tx: Box<dyn Tx>, _rx: Box<dyn Rx>) -> anyhow::Result<()> {
    let chunk = Bytes::from(vec![7; CHUNK]);
    loop {
        tx.send(chunk.clone()).await?;
    }
}

async fn pull(_tx: Box<dyn Tx>, mut rx: Box<dyn Rx>, taken: &AtomicU64) -> anyhow::Result<()> {
    while let Some(chunk) = rx.recv().await? {
        taken.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}
