//! Requests at a fixed rate, alone and beside bulk.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    runtime::Builder,
    task::JoinSet,
    time::Instant,
};

use super::{Job, Outcome, bulk::Bulk};
use crate::{
    carrier::{Rx, Tx, load::Direction},
    open_loop::{self, Latencies, REQUEST, Schedule},
    realtime::{self, Rank},
    stats::micros,
    target::Command,
};

const STREAMS: u32 = 8;
/// Of the requests of each stream.
const PERIOD: Duration = Duration::from_millis(10);
/// For the last responses.
const PATIENCE: Duration = Duration::from_secs(5);

/// Nothing else goes through the tunnel.
pub(super) async fn alone(job: &Job, outcome: &mut Outcome) -> anyhow::Result<()> {
    let latencies = measure(job, job.time(), outcome).await?;
    note(&latencies, outcome);
    Ok(())
}

/// Downloads go through it, first alone.
pub(super) async fn beside(job: &Job, downloads: usize, outcome: &mut Outcome) -> anyhow::Result<()> {
    let mut bulk = Bulk::start(job, Direction::Down, downloads, outcome).await?;
    bulk.warm_up(job.time() / 2).await;
    let alone = bulk.measure(job, job.time()).await?;
    let (latencies, moved) = beside_bulk(job, &mut bulk, outcome).await?;
    bulk.stop(outcome).await;
    note(&latencies, outcome);
    outcome.set("gb_per_second", moved);
    outcome.set("share", moved / alone.gb_per_second());
    Ok(())
}

/// Requests beside bulk that has started: their latencies, and what the bulk moves in GB/s.
pub(super) async fn beside_bulk(job: &Job, bulk: &mut Bulk, outcome: &mut Outcome) -> anyhow::Result<(Latencies, f64)> {
    let (moved, latencies) = tokio::join!(bulk.measure(job, job.time()), measure(job, job.time(), outcome));
    Ok((latencies?, moved?.gb_per_second()))
}

/// On several streams, evenly spread over the period, in a thread of their own: they wait for no bulk of this process.
async fn measure(job: &Job, time: Duration, outcome: &mut Outcome) -> anyhow::Result<Latencies> {
    let requests = u32::try_from(time.as_millis() / PERIOD.as_millis())?.max(1);
    let job = job.clone();
    let own = move || {
        if job.realtime {
            realtime::enter(Rank::Measuring)?;
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(run(&job, requests))
    };
    let (latencies, errors) = tokio::task::spawn_blocking(own).await??;
    outcome.merge(errors);
    Ok(latencies)
}

async fn run(job: &Job, requests: u32) -> anyhow::Result<(Latencies, Outcome)> {
    let mut outcome = Outcome::default();
    let sockets = job
        .open_all(vec![Command::Respond; STREAMS as usize], &mut outcome)
        .await?;
    let start = Instant::now() + PERIOD;
    let schedule = |index| Schedule {
        start: start + PERIOD / STREAMS * index,
        period: PERIOD,
        requests,
        patience: PATIENCE,
    };
    let schedules: Vec<_> = (0..STREAMS).map(schedule).take(sockets.len()).collect();
    let clocks = open_loop::clocks(&schedules);
    let mut tasks = JoinSet::new();
    for (((_, socket), schedule), clock) in sockets.into_iter().zip(schedules).zip(clocks) {
        let (read, write) = socket.into_split();
        let pair = (
            Box::new(Writer(write)) as _,
            Box::new(Reader(read, BytesMut::new())) as _,
        );
        tasks.spawn(open_loop::measure(pair, schedule, clock));
    }
    let mut latencies = Latencies::default();
    for stream in tasks.join_all().await {
        latencies.add(stream?);
    }
    Ok((latencies, outcome))
}

/// Notes percentiles, and what had no response.
pub(super) fn note(latencies: &Latencies, outcome: &mut Outcome) {
    let all = latencies.all();
    let percentiles = [
        ("p50_us", 0.5),
        ("p90_us", 0.9),
        ("p99_us", 0.99),
        ("p999_us", 0.999),
        ("max_us", 1.0),
    ];
    for (key, share) in percentiles {
        outcome.set(key, micros(&all, share));
    }
    outcome.set("unanswered", latencies.unanswered.len() as f64);
}

struct Writer(OwnedWriteHalf);

#[async_trait]
impl Tx for Writer {
    async fn send(&mut self, data: Bytes) -> anyhow::Result<()> {
        Ok(self.0.write_all(&data).await?)
    }
}

struct Reader(OwnedReadHalf, BytesMut);

#[async_trait]
impl Rx for Reader {
    async fn recv(&mut self) -> anyhow::Result<Option<Bytes>> {
        self.1.reserve(REQUEST * 16);
        let len = self.0.read_buf(&mut self.1).await?;
        Ok((len > 0).then(|| self.1.split().freeze()))
    }
}
