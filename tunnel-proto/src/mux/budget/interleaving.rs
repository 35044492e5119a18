//! What threads do to one budget, in many orders: whoever waits is woken, and somebody is asked as long as memory is
//! short. The scheduler of these tests reports a deadlock when everybody waits.
//!
//! It takes every operation on an atomic as sequentially consistent, so it says nothing about weaker orderings.

use std::{
    future::poll_fn,
    task::{Poll, Waker},
};

use shuttle::{
    Config as Schedules, Runner,
    future::{block_on, spawn},
    scheduler::{PctScheduler, RandomScheduler},
    thread,
};

use self::{
    budget::{Account, Budget},
    sync::Arc,
};

#[path = "../budget.rs"]
#[allow(clippy::duplicate_mod)] // with other atomics
#[allow(dead_code, unreachable_pub)] // of what a machine needs beside
mod budget;

mod sync {
    pub(super) use shuttle::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic};
}

/// Explores orders of what `scenario` does: some at random, some with few switches, which finds other faults.
fn explore(scenario: fn()) {
    Runner::new(RandomScheduler::new_from_seed(7, 2000), Schedules::new()).run(scenario);
    Runner::new(PctScheduler::new_from_seed(7, 3, 2000), Schedules::new()).run(scenario);
}

/// Takes room as a writer does: sleeps when there is none until it is woken.
async fn charge(account: &Account, bytes: u64) {
    poll_fn(|cx| {
        account.register(cx.waker());
        account.take_call();
        if account.charge_writer(bytes).is_ok() {
            return Poll::Ready(());
        }
        account.wait();
        Poll::Pending
    })
    .await;
}

#[test]
fn a_writer_that_waits_is_woken_whoever_makes_room() {
    explore(|| {
        let budget = Budget::new(1600);
        let hog = budget.account();
        hog.charge(1500).unwrap();
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let account = budget.account();
                spawn(async move {
                    for _ in 0..2 {
                        charge(&account, 700).await;
                        assert!(account.held() == 700);
                        account.release(700);
                    }
                })
            })
            .collect();
        drop(hog);
        block_on(async {
            for writer in writers {
                writer.await.unwrap();
            }
        });
        assert_eq!(budget.used(), 0);
    });
}

#[test]
fn the_bound_holds_and_everything_is_given_back() {
    explore(|| {
        let budget = Budget::new(1000);
        let threads: Vec<_> = (1..4)
            .map(|index| {
                let budget = budget.clone();
                thread::spawn(move || {
                    let account = budget.account();
                    for bytes in [200 * index, 150] {
                        if account.charge(bytes).is_ok() {
                            assert!((bytes..=budget.limit()).contains(&budget.used()));
                        }
                    }
                    account.release(account.held() / 2);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(budget.used(), 0);
    });
}

#[test]
fn somebody_is_asked_whenever_memory_becomes_short_again() {
    explore(|| {
        let budget = Budget::new(6400);
        let (first, second) = (Arc::new(budget.account()), budget.account());
        second.charge(4000).unwrap();
        let charging = {
            let first = Arc::clone(&first);
            thread::spawn(move || first.charge(2000).unwrap())
        };
        second.release(3900);
        charging.join().unwrap();
        // Whoever was asked for that has heard it.
        first.take_call();
        second.take_call();
        second.charge(3600).unwrap();
        assert!(
            first.take_call().is_any() || second.take_call().is_any(),
            "nobody was asked"
        );
    });
}

#[test]
fn another_is_asked_when_the_largest_ends_at_that_moment() {
    explore(|| {
        let budget = Budget::new(6400);
        let (large, small) = (Arc::new(budget.account()), budget.account());
        small.register(Waker::noop());
        large.charge(4000).unwrap();
        let ending = {
            let large = Arc::clone(&large);
            thread::spawn(move || large.turn_deaf())
        };
        small.charge(2000).unwrap();
        ending.join().unwrap();
        assert!(small.take_call().is_any(), "nobody was asked who could hear it");
    });
}
