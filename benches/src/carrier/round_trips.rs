//! Requests and responses at a fixed rate.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{Purpose, REQUEST, Wire};

/// Between two requests; whole milliseconds, as tokio's timer counts them.
const PERIOD: Duration = Duration::from_millis(3);

/// How long the last responses may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was sent and not answered yet: when it was due.
type Due = Arc<Mutex<VecDeque<Instant>>>;

/// The time from when each request was due to its response, on one stream.
///
/// Requests are sent when they are due, whether or not earlier ones were answered, and a request that could not be sent in time
/// has waited since it was due: what holds requests up is not left out. Only the constant by which tokio's timer is
/// late, because it counts from another millisecond, is taken off.
pub async fn measure(wire: &dyn Wire, time: Duration) -> anyhow::Result<Vec<Duration>> {
    let (mut tx, mut rx) = wire.open().await?;
    tx.send(Bytes::copy_from_slice(&[Purpose::Echo as u8])).await?;
    let due = Due::default();
    let requests = u32::try_from(time.as_millis() / PERIOD.as_millis())?;
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let due = Arc::clone(&due);
        async move {
            let mut ticks = interval(PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut late = Duration::MAX;
            // The first is due at once, so it says nothing about the timer.
            ticks.tick().await;
            for _ in 0..requests {
                let at = ticks.tick().await;
                late = late.min(at.elapsed());
                due.lock().await.push_back(at);
                tx.send(Bytes::from_static(&[9; REQUEST])).await?;
            }
            // Only now, for the stream ends with its halves.
            anyhow::Ok((late, tx))
        }
    });
    let mut latencies = Vec::new();
    let mut part = 0;
    while latencies.len() < requests as usize {
        let response = timeout(PATIENCE, rx.recv()).await.context("no response")??;
        part += response.context("the responses ended")?.len();
        let now = Instant::now();
        for _ in 0..part / REQUEST {
            let at = due.lock().await.pop_front().context("a response without a request")?;
            latencies.push(now - at);
        }
        part %= REQUEST;
    }
    let (late, _tx) = tasks.join_next().await.context("nothing was sent")???;
    Ok(latencies
        .into_iter()
        .map(|latency| latency.saturating_sub(late))
        .collect())
}
