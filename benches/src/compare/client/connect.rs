//! New connections.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

use super::{Job, Outcome, reading::Reading, within};
use crate::{stats::micros, target::Command};

/// Made at once.
const AT_ONCE: usize = 16;

/// Makes one after another in each of several tasks, with a request and its response, and closes them.
pub(super) async fn measure(job: &Job, early: bool, outcome: &mut Outcome) -> anyhow::Result<()> {
    // Code is paged in by the first ones.
    for _ in 0..AT_ONCE {
        one(job, early).await?;
    }
    let before = Reading::now(job);
    let end = Instant::now() + job.time();
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let job = job.clone();
        tasks.spawn(async move {
            let mut made = Vec::new();
            while Instant::now() < end {
                let start = Instant::now();
                made.push(one(&job, early).await.map(|()| start.elapsed()));
            }
            made
        });
    }
    let mut took: Vec<Duration> = Vec::new();
    for made in tasks.join_all().await.into_iter().flatten() {
        match made {
            Ok(time) => took.push(time),
            Err(error) => outcome.fail(&error),
        }
    }
    let after = Reading::now(job);
    ensure!(
        !took.is_empty(),
        "no connection was made: {}",
        outcome.errors.join("; ")
    );
    let made = took.len() as f64;
    outcome.set("per_second", made / after.seconds_since(&before));
    for (key, share) in [("p50_us", 0.5), ("p99_us", 0.99), ("max_us", 1.0)] {
        outcome.set(key, micros(&took, share));
    }
    if !job.server.is_empty() {
        outcome.set("cpu_us_each", after.cpu_since(&before) / made * 1e6);
    }
    Ok(())
}

/// One with a request and its response. The request is sent when there is a connection, or `early`: with what asks for it.
pub(super) async fn one(job: &Job, early: bool) -> anyhow::Result<()> {
    const REQUEST: &[u8] = b"x";
    let mut socket = if early {
        let said = [&Command::Echo.bytes(), REQUEST].concat();
        within("connecting", async {
            Ok(job.path.connect_with(job.target, &said).await?)
        })
        .await?
    } else {
        job.open(Command::Echo).await?
    };
    within("a request", async {
        if !early {
            socket.write_all(REQUEST).await?;
        }
        ensure!(socket.read_u8().await? == b'x', "the echo is wrong");
        socket.shutdown().await?;
        ensure!(socket.read(&mut [0]).await? == 0, "there is more than the echo");
        Ok(())
    })
    .await
}
