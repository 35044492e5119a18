//! Happy eyeballs (RFC 8305): several addresses of one target, tried in a staggered race.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::timeout;

/// Orders addresses so that the families take turns, beginning with the family of the first and keeping the order
/// within each (RFC 8305 §4).
pub(super) fn interleave(ips: Vec<IpAddr>) -> Vec<IpAddr> {
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

/// Connects to the first address that answers, or to none. The next attempt starts when the one before has failed, or
/// after `delay` beside it (§5); the first success drops the others. Failures are noted as they happen, in order.
pub(super) async fn race<T, F: Future<Output = io::Result<T>>>(
    addrs: &[SocketAddr],
    delay: Duration,
    failures: &mut Vec<(SocketAddr, io::Error)>,
    connect: impl Fn(SocketAddr) -> F,
) -> Option<T> {
    let mut waiting = addrs.iter();
    let mut running = Vec::new();
    loop {
        if let Some(&addr) = waiting.next() {
            running.push((addr, Box::pin(connect(addr))));
        }
        if running.is_empty() {
            return None;
        }
        let next = poll_fn(|cx| poll_any(&mut running, cx));
        let next = if waiting.as_slice().is_empty() {
            next.await
        } else if let Ok(next) = timeout(delay, next).await {
            next
        } else {
            continue;
        };
        match next {
            (_, Ok(connected)) => return Some(connected),
            (addr, Err(error)) => failures.push((addr, error)),
        }
    }
}

/// Ready with an attempt that has ended, which is then no longer among those running.
fn poll_any<T, F: Future<Output = io::Result<T>>>(
    running: &mut Vec<(SocketAddr, Pin<Box<F>>)>,
    cx: &mut Context<'_>,
) -> Poll<(SocketAddr, io::Result<T>)> {
    for at in 0..running.len() {
        let (addr, attempt) = &mut running[at];
        if let Poll::Ready(result) = attempt.as_mut().poll(cx) {
            let addr = *addr;
            drop(running.remove(at));
            return Poll::Ready((addr, result));
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

    const DELAY: Duration = Duration::from_millis(250);

    fn ips(text: &[&str]) -> Vec<IpAddr> {
        text.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn addrs(count: u8) -> Vec<SocketAddr> {
        (0..count).map(|n| SocketAddr::from(([10, 0, 0, n], 80))).collect()
    }

    /// What an attempt does, by the last number of its address.
    #[derive(Clone, Copy)]
    enum Fate {
        Hangs,
        Fails(u64),
        Connects(u64),
    }

    /// The winner, the failures and when each attempt started, in milliseconds.
    async fn run(fates: &[Fate]) -> (Option<u8>, Vec<u8>, Vec<u128>, Instant) {
        let start = Instant::now();
        let started = RefCell::new(Vec::new());
        let mut failures = Vec::new();
        let last = |addr: SocketAddr| match addr.ip() {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(_) => unreachable!(),
        };
        let addrs = addrs(u8::try_from(fates.len()).unwrap());
        let winner = race(&addrs, DELAY, &mut failures, |addr| {
            started.borrow_mut().push(start.elapsed().as_millis());
            let n = last(addr);
            let fate = fates[usize::from(n)];
            async move {
                match fate {
                    Fate::Hangs => pending().await,
                    Fate::Fails(after) => {
                        sleep(Duration::from_millis(after)).await;
                        Err(io::ErrorKind::ConnectionRefused.into())
                    }
                    Fate::Connects(after) => {
                        sleep(Duration::from_millis(after)).await;
                        Ok(n)
                    }
                }
            }
        })
        .await;
        let failures = failures.into_iter().map(|(addr, _)| last(addr)).collect();
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
    async fn when_all_fail_the_race_is_over() {
        let (winner, failures, _, start) = run(&[Fate::Fails(400), Fate::Fails(10)]).await;
        assert_eq!((winner, failures), (None, vec![1, 0]));
        assert_eq!(start.elapsed(), Duration::from_millis(400));
    }
}
