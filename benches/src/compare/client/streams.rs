//! Memory of streams that do nothing.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use super::{Job, Outcome, within};
use crate::{process, target::Command};

/// Streams that code is paged in by.
const FIRST: usize = 10;

/// Opens so many, uses each once, and compares the memory.
pub(super) async fn measure(job: &Job, streams: usize, outcome: &mut Outcome) -> anyhow::Result<()> {
    ensure!(!job.server.is_empty(), "there is no server");
    let _first = hold(job, FIRST, outcome).await?;
    let before = [&job.server, &job.agent].map(|pids| memory(pids));
    let start = Instant::now();
    let held = hold(job, streams, outcome).await?;
    outcome.set("seconds", start.elapsed().as_secs_f64());
    sleep(Duration::from_millis(500)).await;
    let after = [&job.server, &job.agent].map(|pids| memory(pids));
    for (index, key) in ["server_kib", "agent_kib"].into_iter().enumerate() {
        outcome.set(key, (after[index] - before[index]) / held.len() as f64);
    }
    Ok(())
}

async fn hold(job: &Job, streams: usize, outcome: &mut Outcome) -> anyhow::Result<Vec<TcpStream>> {
    let mut held = Vec::with_capacity(streams);
    for (_, mut socket) in job.open_all(vec![Command::Echo; streams], outcome).await? {
        let used = within("a request", async {
            socket.write_all(b"x").await?;
            ensure!(socket.read_u8().await? == b'x', "the echo is wrong");
            Ok(())
        });
        match used.await {
            Ok(()) => held.push(socket),
            Err(error) => outcome.fail(&error),
        }
    }
    ensure!(!held.is_empty(), "no stream works");
    Ok(held)
}

fn memory(pids: &[u32]) -> f64 {
    pids.iter().filter_map(|pid| process::memory_kib(*pid)).sum::<u64>() as f64
}
