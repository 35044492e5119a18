//! Several attempts, of which the first to succeed counts.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use tokio::time::sleep;

/// Starts the attempts one after another, the next when `stagger` has passed or when one has failed, and gives what
/// the first successful one yields. Tells `failed` about those that fail; `None` if all do.
///
/// # Cancel safety
///
/// Dropping the future drops the attempts.
pub(crate) async fn race<F, T, E>(
    attempts: impl IntoIterator<Item = F>,
    stagger: Duration,
    mut failed: impl FnMut(E),
) -> Option<T>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = attempts.into_iter().peekable();
    let mut running: Vec<Pin<Box<F>>> = Vec::new();
    loop {
        running.extend(waiting.next().map(Box::pin));
        if running.is_empty() {
            return None;
        }
        tokio::select! {
            biased;
            outcome = first(&mut running) => match outcome {
                Ok(winner) => return Some(winner),
                Err(error) => failed(error),
            },
            () = sleep(stagger), if waiting.peek().is_some() => {}
        }
    }
}

/// Waits for the first of several futures and removes it.
async fn first<F: Future>(futures: &mut Vec<Pin<Box<F>>>) -> F::Output {
    poll_fn(|cx| {
        for (index, future) in futures.iter_mut().enumerate() {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                drop(futures.swap_remove(index));
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const STAGGER: Duration = Duration::from_millis(250);

    /// Attempts that take this many milliseconds; gives the winner, its time and how many failed.
    async fn run(attempts: &[(u64, bool)]) -> (Option<usize>, u64, usize) {
        let started = Instant::now();
        let mut failures = 0;
        let attempts = attempts.iter().enumerate().map(|(number, (took, good))| async move {
            sleep(Duration::from_millis(*took)).await;
            if *good { Ok(number) } else { Err(()) }
        });
        let winner = race(attempts, STAGGER, |()| failures += 1).await;
        (winner, u64::try_from(started.elapsed().as_millis()).unwrap(), failures)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_to_succeed_wins() {
        assert_eq!(run(&[(100, true), (0, true)]).await, (Some(0), 100, 0));
        assert_eq!(run(&[(10_000, true), (50, true)]).await, (Some(1), 300, 0));
        assert_eq!(run(&[(400, true), (200, true)]).await, (Some(0), 400, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_at_once() {
        assert_eq!(run(&[(10, false), (20, true)]).await, (Some(1), 30, 1));
        assert_eq!(run(&[(10, false), (300, false), (5, true)]).await, (Some(2), 265, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn there_may_be_no_winner() {
        assert_eq!(run(&[]).await, (None, 0, 0));
        assert_eq!(run(&[(10, false), (20, false)]).await, (None, 30, 2));
    }
}
