//! Streams that move as much as they can.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::{JoinSet, yield_now},
    time::sleep,
};

use super::{Job, Outcome, reading::Reading, within};
use crate::{
    carrier::load::Direction,
    stats::jain,
    target::{CHUNK, Command, bound_unsent, control::Control},
};

/// Bulk that goes on until it is dropped.
pub(super) struct Bulk {
    direction: Direction,
    control: Control,
    taken: BTreeMap<u64, Arc<AtomicU64>>,
    tasks: JoinSet<std::io::Result<()>>,
}

/// What was moved in a while.
pub(super) struct Moved {
    before: Reading,
    after: Reading,
    each: Vec<f64>,
}

impl Moved {
    pub(super) fn gb(&self) -> f64 {
        self.each.iter().sum::<f64>() / 1e9
    }

    pub(super) fn gb_per_second(&self) -> f64 {
        self.gb() / self.after.seconds_since(&self.before)
    }
}

impl Bulk {
    /// Starts as many streams as can be opened; the others are counted as failed.
    pub(super) async fn start(
        job: &Job,
        direction: Direction,
        streams: usize,
        outcome: &mut Outcome,
    ) -> anyhow::Result<Self> {
        let control = Control::connect(&job.control).await?;
        // Numbers that no other process uses, for the target counts by them.
        let base = u64::from(std::process::id()) << 32;
        let command = |index| match direction {
            Direction::Up => Command::Sink(base + index),
            Direction::Down => Command::Flood,
        };
        let sockets = job
            .open_all((0..streams as u64).map(command).collect(), outcome)
            .await?;
        let mut bulk = Self {
            direction,
            control,
            taken: BTreeMap::new(),
            tasks: JoinSet::new(),
        };
        for (index, (command, socket)) in sockets.into_iter().enumerate() {
            // In the end it is given up with what is still under way, not delivered.
            socket.set_zero_linger()?;
            if direction == Direction::Up {
                bound_unsent(&socket)?;
            }
            let number = match command {
                Command::Sink(number) => number,
                _ => index as u64,
            };
            let taken: Arc<AtomicU64> = Arc::default();
            bulk.taken.insert(number, Arc::clone(&taken));
            bulk.tasks.spawn(async move {
                match direction {
                    Direction::Up => push(socket).await,
                    Direction::Down => pull(socket, &taken).await,
                }
            });
        }
        Ok(bulk)
    }

    /// Lets windows grow and buffers fill, for longer if there are many of them.
    pub(super) async fn warm_up(&self, time: Duration) {
        let each = Duration::from_millis(1) * u32::try_from(self.taken.len()).unwrap_or(u32::MAX);
        sleep(time.max(Duration::from_millis(250)).max(each)).await;
    }

    /// What arrives at the receiver from now on for so long.
    pub(super) async fn measure(&mut self, job: &Job, time: Duration) -> anyhow::Result<Moved> {
        let (before, bytes_before) = (Reading::now(job), self.bytes().await?);
        sleep(time).await;
        let (after, bytes_after) = (Reading::now(job), self.bytes().await?);
        let each = bytes_before
            .iter()
            .zip(bytes_after)
            .map(|(before, after)| (after - before) as f64);
        Ok(Moved {
            before,
            after,
            each: each.collect(),
        })
    }

    /// Counts what has ended, for nothing should have, and ends the rest.
    pub(super) async fn stop(mut self, outcome: &mut Outcome) {
        while let Some(ended) = self.tasks.try_join_next() {
            let error = match ended {
                Ok(Ok(())) => anyhow::anyhow!("the peer ended a stream of bulk"),
                Ok(Err(error)) => anyhow::Error::from(error).context("a stream of bulk broke"),
                Err(error) => error.into(),
            };
            outcome.fail(&error);
        }
        self.tasks.shutdown().await;
    }

    /// What each stream has brought to its receiver.
    async fn bytes(&mut self) -> anyhow::Result<Vec<u64>> {
        Ok(match self.direction {
            Direction::Down => self.taken.values().map(|taken| taken.load(Ordering::Relaxed)).collect(),
            Direction::Up => {
                let account = within("asking the target", async { Ok(self.control.account().await?) }).await?;
                let taken = |number| account.taken.get(number).copied().unwrap_or_default();
                self.taken.keys().map(taken).collect()
            }
        })
    }
}

/// Measures it by itself.
pub(super) async fn measure(
    job: &Job,
    direction: Direction,
    streams: usize,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let mut bulk = Bulk::start(job, direction, streams, outcome).await?;
    bulk.warm_up(job.time() / 2).await;
    let moved = bulk.measure(job, job.time()).await?;
    bulk.stop(outcome).await;
    ensure!(moved.gb() > 0.0, "not a byte moved in {:?}", job.time());
    outcome.set("gb_per_second", moved.gb_per_second());
    outcome.set("jain", jain(&moved.each));
    moved.after.note_cost(&moved.before, moved.gb(), job, outcome);
    Ok(())
}

async fn push(mut socket: TcpStream) -> std::io::Result<()> {
    let chunk = vec![7; CHUNK];
    loop {
        socket.write_all(&chunk).await?;
        // A task that always finds room would keep the others of its thread waiting for megabytes.
        yield_now().await;
    }
}

async fn pull(mut socket: TcpStream, taken: &AtomicU64) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match socket.read(&mut chunk).await? {
            0 => return Ok(()),
            len => taken.fetch_add(len as u64, Ordering::Relaxed),
        };
        yield_now().await;
    }
}
