//! Happy eyeballs (RFC 8305): several addresses of one host, tried in a staggered race.

use std::{
    future::poll_fn,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::sleep;

/// How long an attempt may take before the next is started beside it: what RFC 8305 §5 recommends.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Orders addresses so that the families take turns, beginning with the family of the first and keeping the order
/// within each (RFC 8305 §4).
#[must_use]
pub fn interleave(ips: Vec<IpAddr>) -> Vec<IpAddr> {
    let Some(first) = ips.first().map(IpAddr::is_ipv4) else {
        return ips;
    };
    let total = ips.len();
    let (one, other): (Vec<_>, Vec<_>) = ips.into_iter().partition(|ip| ip.is_ipv4() == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut ordered = Vec::with_capacity(total);
    while ordered.len() < total {
        ordered.extend(one.next());
        ordered.extend(other.next());
    }
    ordered
}

/// Starts the attempts one after another, the next when one has failed or after `delay` beside it (RFC 8305 §5), and
/// gives what the first successful one yields. Tells `failed` about those that fail, as they do; `None` if all do.
///
/// # Cancel safety
///
/// Dropping the future drops the attempts, as the first success drops the others.
pub async fn race<F, T, E>(
    attempts: impl IntoIterator<Item = F>,
    delay: Duration,
    mut failed: impl FnMut(E),
) -> Option<T>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = attempts.into_iter().peekable();
    let mut running = Vec::new();
    loop {
        running.extend(waiting.next().map(Box::pin));
        if running.is_empty() {
            return None;
        }
        tokio::select! {
            biased;
            ended = poll_fn(|cx| poll_any(&mut running, cx)) => match ended {
                Ok(winner) => return Some(winner),
                Err(error) => failed(error),
            },
            () = sleep(delay), if waiting.peek().is_some() => {}
        }
    }
}

/// Ready with the outcome of an attempt that has ended, which is then no longer among those running.
fn poll_any<F: Future>(running: &mut Vec<Pin<Box<F>>>, cx: &mut Context<'_>) -> Poll<F::Output> {
    for at in 0..running.len() {
        if let Poll::Ready(outcome) = running[at].as_mut().poll(cx) {
            drop(running.remove(at));
            return Poll::Ready(outcome);
        }
    }
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::pending};

    use proptest::prelude::*;
    use tokio::time::{Instant, sleep};

    use super::*;

    fn ips(text: &[&str]) -> Vec<IpAddr> {
        text.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    /// What an attempt does.
    #[derive(Clone, Copy)]
    enum Fate {
        Hangs,
        Fails(u64),
        Connects(u64),
    }

    /// The winner, the failures and when each attempt started, in milliseconds.
    async fn run(fates: &[Fate]) -> (Option<usize>, Vec<usize>, Vec<u128>, Instant) {
        let start = Instant::now();
        let started = RefCell::new(Vec::new());
        let attempts = fates.iter().enumerate().map(|(n, fate)| {
            let started = &started;
            async move {
                started.borrow_mut().push(start.elapsed().as_millis());
                match fate {
                    Fate::Hangs => pending().await,
                    Fate::Fails(after) => {
                        sleep(Duration::from_millis(*after)).await;
                        Err(n)
                    }
                    Fate::Connects(after) => {
                        sleep(Duration::from_millis(*after)).await;
                        Ok(n)
                    }
                }
            }
        });
        let mut failures = Vec::new();
        let winner = race(attempts, ATTEMPT_DELAY, |n| failures.push(n)).await;
        (winner, failures, started.into_inner(), start)
    }

    #[test]
    fn families_take_turns() {
        let ordered = interleave(ips(&[
            "2001:db8::1",
            "2001:db8::2",
            "2001:db8::3",
            "192.0.2.1",
            "192.0.2.2",
        ]));
        assert_eq!(
            ordered,
            ips(&["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"])
        );
        let ordered = interleave(ips(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]));
        assert_eq!(ordered, ips(&["192.0.2.1", "2001:db8::1", "192.0.2.2"]));
        assert_eq!(interleave(Vec::new()), Vec::<IpAddr>::new());
    }

    proptest! {
        #[test]
        fn interleaving_loses_nothing_and_keeps_the_order_within_a_family(ips: Vec<IpAddr>) {
            let ordered = interleave(ips.clone());
            prop_assert_eq!(ordered.len(), ips.len());
            for v4 in [true, false] {
                let family = |ips: &[IpAddr]| ips.iter().copied().filter(|ip| ip.is_ipv4() == v4).collect::<Vec<_>>();
                prop_assert_eq!(family(&ordered), family(&ips));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_answers_in_time_is_alone() {
        let (winner, failures, started, _) = run(&[Fate::Connects(249), Fate::Connects(0)]).await;
        assert_eq!((winner, failures, started), (Some(0), vec![], vec![0]));
    }

    #[tokio::test(start_paused = true)]
    async fn silent_ones_are_joined_after_the_delay() {
        let (winner, failures, started, start) = run(&[Fate::Hangs, Fate::Hangs, Fate::Connects(10)]).await;
        assert_eq!((winner, failures, started), (Some(2), vec![], vec![0, 250, 500]));
        assert_eq!(start.elapsed(), Duration::from_millis(510));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_one_may_still_win() {
        let (winner, _, started, start) = run(&[Fate::Connects(300), Fate::Connects(100)]).await;
        assert_eq!((winner, started), (Some(0), vec![0, 250]));
        assert_eq!(start.elapsed(), Duration::from_millis(300));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_at_once() {
        let fates = [Fate::Fails(5), Fate::Fails(0), Fate::Hangs, Fate::Connects(1)];
        let (winner, failures, started, _) = run(&fates).await;
        assert_eq!((winner, failures, started), (Some(3), vec![0, 1], vec![0, 5, 5, 255]));
    }

    #[tokio::test(start_paused = true)]
    async fn without_attempts_there_is_no_winner() {
        assert_eq!(run(&[]).await.0, None);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_the_race_is_over() {
        let (winner, failures, _, start) = run(&[Fate::Fails(400), Fate::Fails(10)]).await;
        assert_eq!((winner, failures), (None, vec![1, 0]));
        assert_eq!(start.elapsed(), Duration::from_millis(400));
    }
}
