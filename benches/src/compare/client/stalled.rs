//! Downloads and requests beside downloads that nobody reads.

use std::time::Duration;

use anyhow::ensure;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Job, Outcome, PATIENCE, bulk::Bulk, requests, within};
use crate::{
    carrier::load::Direction,
    target::{CHUNK, Command, checksum_of, control::Control, pattern::pattern_checksum},
};

/// Downloads that are read.
const OTHERS: usize = 4;

/// What is read of all stalled downloads together in the end. It is more than what may be on the way unread, or at
/// least shows that nothing of that is lost.
const READ_ON: u64 = 128 << 20;

/// The most of one of them.
const READ_ON_EACH: u64 = 16 << 20;

/// Measures the others with and without stalled ones, and then reads these.
pub(super) async fn measure(job: &Job, stalled: usize, outcome: &mut Outcome) -> anyhow::Result<()> {
    let mut bulk = Bulk::start(job, Direction::Down, OTHERS, outcome).await?;
    bulk.warm_up(job.time() / 2).await;
    let before = bulk.measure(job, job.time()).await?.gb_per_second();

    let unread = job
        .open_all(vec![Command::Download(u64::MAX); stalled], outcome)
        .await?;
    until_stalled(job).await?;
    let (latencies, beside) = requests::beside_bulk(job, &mut bulk, outcome).await?;
    bulk.stop(outcome).await;
    requests::note(&latencies, outcome);
    outcome.set("gb_per_second", beside);
    outcome.set("share", beside / before);

    let len = (READ_ON / stalled as u64).min(READ_ON_EACH);
    let expected = tokio::task::spawn_blocking(move || pattern_checksum(len)).await?;
    let mut tasks = JoinSet::new();
    for (_, socket) in unread {
        tasks.spawn(within("reading what was stalled", read_on(socket, len, expected)));
    }
    let mut intact = 0;
    for read in tasks.join_all().await {
        match read {
            Ok(()) => intact += 1,
            Err(error) => outcome.fail(&error),
        }
    }
    outcome.set("intact", f64::from(intact));
    outcome.set("lost", stalled as f64 - f64::from(intact));
    Ok(())
}

/// Waits until the target has found no room for a while: until all buffers and windows on the way are full. A busy
/// machine may not get round to them for some time, and as long as they are not full they take their share.
async fn until_stalled(job: &Job) -> anyhow::Result<()> {
    const LOOK: Duration = Duration::from_millis(200);
    const STILL: u32 = 5;
    let mut control = Control::connect(&job.control).await?;
    let end = Instant::now() + PATIENCE;
    let (mut before, mut still) = (0, 0);
    while Instant::now() < end {
        let sent = control.account().await?.sent;
        still = if sent == before { still + 1 } else { 0 };
        if still == STILL {
            return Ok(());
        }
        before = sent;
        sleep(LOOK).await;
    }
    // Whoever buffers without end is measured as it is.
    Ok(())
}

async fn read_on(mut socket: TcpStream, len: u64, expected: u64) -> anyhow::Result<()> {
    let (sum, total) = checksum_of(&mut socket, len, || CHUNK).await?;
    ensure!(total == len, "only {total} of {len} bytes came");
    ensure!(sum == expected, "the bytes are not those that were sent");
    Ok(())
}
