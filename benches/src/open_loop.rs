//! Requests and responses at a fixed rate.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::carrier::{Pair, Rx};

/// The bytes of a request, and of its response.
pub const REQUEST: usize = 100;

/// When requests are due.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// When the first is.
    pub start: Instant,
    /// Between two.
    pub period: Duration,
    /// How many there are.
    pub requests: u32,
    /// How long the last responses may take.
    pub patience: Duration,
}

impl Schedule {
    fn due(&self) -> impl Iterator<Item = Instant> + use<> {
        let Self {
            start,
            period,
            requests,
            ..
        } = *self;
        (0..requests).map(move |index| start + period * index)
    }
}

/// Says when requests are due, at that time.
pub type Clock = mpsc::Receiver<Instant>;

/// A clock for each of several schedules: a thread, for the runtime's timer is late by up to a millisecond.
#[must_use]
pub fn clocks(schedules: &[Schedule]) -> Vec<Clock> {
    let mut ticks = Vec::new();
    let mut clocks = Vec::new();
    for schedule in schedules {
        // Room for all of them: a request that is held up does not hold up the clock.
        let (tx, rx) = mpsc::channel(schedule.requests.max(1) as usize);
        ticks.extend(schedule.due().map(|at| (at, tx.clone())));
        clocks.push(rx);
    }
    ticks.sort_by_key(|(at, _)| *at);
    std::thread::spawn(move || {
        for (at, tx) in ticks {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            // Nobody listens any more if the stream has broken.
            let _ = tx.try_send(at);
        }
    });
    clocks
}

/// The time from when each request was due to its response.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// Of those that were answered, in their order.
    pub answered: Vec<Duration>,
    /// How long those had waited that were not answered by the end.
    pub unanswered: Vec<Duration>,
}

impl Latencies {
    /// All of them. What has no response counts with the time that it waited in vain, so that it is not left out.
    #[must_use]
    pub fn all(&self) -> Vec<Duration> {
        [&self.answered[..], &self.unanswered[..]].concat()
    }

    /// Adds those of another stream.
    pub fn add(&mut self, other: Self) {
        self.answered.extend(other.answered);
        self.unanswered.extend(other.unanswered);
    }
}

/// What was due and is not answered yet.
type Due = Arc<Mutex<VecDeque<Instant>>>;

/// Sends requests over a stream that echoes.
///
/// Requests are sent when they are due, whether or not earlier ones were answered, and a request that could not be sent in time
/// has waited since it was due: what holds requests up is not left out.
pub async fn measure((mut tx, rx): Pair, schedule: Schedule, mut clock: Clock) -> anyhow::Result<Latencies> {
    let due = Due::default();
    let mut sender = JoinSet::new();
    sender.spawn({
        let due = Arc::clone(&due);
        async move {
            while let Some(at) = clock.recv().await {
                due.lock().await.push_back(at);
                tx.send(Bytes::from_static(&[9; REQUEST])).await?;
            }
            // Only now, for the stream ends with its halves.
            anyhow::Ok(tx)
        }
    });
    let mut latencies = Latencies::default();
    let end = schedule.start + schedule.period * schedule.requests + schedule.patience;
    let received = receive(rx, schedule.requests, end, &due, &mut latencies.answered).await;
    let Err(error) = received else {
        let _tx = sender.join_next().await.context("nothing was sent")???;
        return Ok(latencies);
    };
    if latencies.answered.is_empty() {
        return Err(error);
    }
    let now = Instant::now();
    // In their order, so the rest is what has no response, sent or not.
    let unanswered = schedule.due().skip(latencies.answered.len());
    latencies.unanswered = unanswered.map(|at| now.saturating_duration_since(at)).collect();
    Ok(latencies)
}

/// Notes the latency of every response until all are there.
async fn receive(
    mut rx: Box<dyn Rx>,
    requests: u32,
    end: Instant,
    due: &Due,
    answered: &mut Vec<Duration>,
) -> anyhow::Result<()> {
    let mut part = 0;
    while answered.len() < requests as usize {
        let left = end.saturating_duration_since(Instant::now());
        let response = timeout(left, rx.recv()).await.context("no response")??;
        part += response.context("the responses ended")?.len();
        let now = Instant::now();
        for _ in 0..part / REQUEST {
            let at = due.lock().await.pop_front().context("a response without a request")?;
            answered.push(now - at);
        }
        part %= REQUEST;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::time::{sleep, sleep_until};

    use super::*;
    use crate::carrier::Tx;

    /// Echoes each request after the delay of its turn; without one, never.
    struct Peer(mpsc::Sender<Bytes>);
    struct Answers(mpsc::Receiver<Bytes>, Vec<u64>);

    #[async_trait]
    impl Tx for Peer {
        async fn send(&mut self, data: Bytes) -> anyhow::Result<()> {
            Ok(self.0.send(data).await?)
        }
    }

    #[async_trait]
    impl Rx for Answers {
        async fn recv(&mut self) -> anyhow::Result<Option<Bytes>> {
            let request = self.0.recv().await;
            match self.1.pop() {
                Some(delay) => sleep(Duration::from_millis(delay)).await,
                None => std::future::pending().await,
            }
            Ok(request)
        }
    }

    async fn run(mut delays: Vec<u64>, requests: u32) -> anyhow::Result<Latencies> {
        let (tx, rx) = mpsc::channel(100);
        delays.reverse();
        let schedule = Schedule {
            start: Instant::now(),
            period: Duration::from_millis(10),
            requests,
            patience: Duration::from_secs(1),
        };
        let (ticks, clock) = mpsc::channel(1);
        tokio::spawn(async move {
            for at in schedule.due() {
                sleep_until(at).await;
                ticks.send(at).await.unwrap();
            }
        });
        measure((Box::new(Peer(tx)), Box::new(Answers(rx, delays))), schedule, clock).await
    }

    fn millis(latencies: &[Duration]) -> Vec<u128> {
        latencies.iter().map(Duration::as_millis).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_is_in_the_latency_of_all_that_were_due_during_it() {
        let latencies = run(vec![0, 45, 0, 0, 0, 0, 0], 7).await.unwrap();
        assert_eq!(millis(&latencies.answered), [0, 45, 35, 25, 15, 5, 0]);
        assert!(latencies.unanswered.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_never_answered_counts_with_what_it_waited() {
        let latencies = run(vec![0, 0], 4).await.unwrap();
        assert_eq!(millis(&latencies.answered), [0, 0]);
        assert_eq!(millis(&latencies.unanswered), [1020, 1010]);
        assert_eq!(latencies.all().len(), 4);
        assert!(run(vec![], 4).await.is_err());
    }

    #[test]
    fn clocks_tell_every_due_time_in_order() {
        let schedule = |offset| Schedule {
            start: Instant::now() - Duration::from_millis(offset),
            period: Duration::from_micros(10),
            requests: 5,
            patience: Duration::ZERO,
        };
        let schedules = [schedule(3), schedule(2)];
        for (schedule, mut clock) in schedules.iter().zip(clocks(&schedules)) {
            let told: Vec<_> = std::iter::from_fn(|| clock.blocking_recv()).collect();
            assert_eq!(told, schedule.due().collect::<Vec<_>>());
        }
    }
}
