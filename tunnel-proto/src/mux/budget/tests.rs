//! One budget and its accounts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
};

use super::budget::{Account, Budget, Call, Exhausted};

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn counting(account: &Account) -> Arc<Count> {
    let count = Arc::new(Count::default());
    account.register(&Waker::from(Arc::clone(&count)));
    count
}

fn calls(count: &Count) -> usize {
    count.0.load(Ordering::Relaxed)
}

#[test]
fn it_is_never_exceeded_and_gets_back_what_was_held() {
    let budget = Budget::new(1000);
    let (first, second) = (budget.account(), budget.account());
    first.charge(600).unwrap();
    assert_eq!(second.charge(401), Err(Exhausted));
    second.charge(400).unwrap();
    assert_eq!((budget.used(), first.held(), second.held()), (1000, 600, 400));
    first.release(100);
    drop(second);
    assert_eq!((budget.used(), first.held()), (500, 500));
    drop(first);
    assert_eq!(budget.used(), 0);
}

#[test]
fn the_connection_that_holds_most_is_asked_once_for_each_step() {
    let budget = Budget::new(6400);
    let (small, large) = (budget.account(), budget.account());
    let (small_calls, large_calls) = (counting(&small), counting(&large));
    large.charge(4000).unwrap();
    small.charge(1599).unwrap();
    assert_eq!((calls(&small_calls), calls(&large_calls)), (0, 0));
    small.charge(1).unwrap();
    assert_eq!((calls(&small_calls), calls(&large_calls)), (0, 1));
    assert!(large.take_call().is_alone() && !large.take_call().is_any() && !small.take_call().is_any());
    small.charge(50).unwrap();
    assert_eq!(calls(&large_calls), 1, "not for each byte");
    small.charge(100).unwrap();
    assert_eq!(calls(&large_calls), 2, "but when it gets worse");
    assert!(large.is_high());
    large.release(1000);
    assert!(!large.is_high());
    small.charge(900).unwrap();
    assert_eq!(calls(&large_calls), 3, "and when it comes again");
}

#[test]
fn who_waits_is_woken_when_there_is_room() {
    let budget = Budget::new(1600);
    let (hog, waiting) = (budget.account(), budget.account());
    let count = counting(&waiting);
    hog.charge(1600).unwrap();
    assert_eq!(waiting.charge(1), Err(Exhausted));
    waiting.wait();
    hog.release(150);
    assert_eq!(calls(&count), 0, "so little is no room");
    hog.release(50);
    assert_eq!(calls(&count), 1);
    assert_eq!(waiting.take_call(), Call::ROOM);
    hog.release(50);
    assert_eq!(calls(&count), 1, "it waits no more");
    waiting.wait();
    assert_eq!(calls(&count), 2, "there is room already");
}

#[test]
fn writers_leave_some_and_the_others_are_asked_when_the_largest_cannot_help() {
    let budget = Budget::new(1600);
    let (large, small, ended) = (budget.account(), budget.account(), budget.account());
    let count = counting(&small);
    ended.charge(900).unwrap();
    ended.turn_deaf();
    large.charge(500).unwrap();
    assert_eq!(small.charge_writer(101), Err(Exhausted));
    small.charge_writer(100).unwrap();
    small.charge(100).unwrap();
    assert!(large.take_call().is_alone());
    assert_eq!(calls(&count), 0);
    large.pass_on();
    assert_eq!((calls(&count), small.take_call()), (1, Call::ALL));
    assert!(!large.take_call().is_any() && !ended.take_call().is_any());
}

/// Writers on many threads, each of which sleeps until it is woken when it gets no room: none sleeps for ever, and
/// the bound holds at every moment.
#[test]
fn no_wake_up_is_lost_between_threads() {
    let budget = Budget::new(1000);
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (budget, account) = (budget.clone(), budget.account());
            std::thread::spawn(move || {
                account.register(&Waker::from(Arc::new(Unpark(std::thread::current()))));
                for round in 0..3000 {
                    while account.charge_writer(300).is_err() {
                        account.wait();
                        while !account.take_call().is_any() {
                            std::thread::park_timeout(std::time::Duration::from_secs(60));
                        }
                    }
                    assert!(budget.used() <= 1000);
                    if round % 7 == 0 {
                        std::thread::yield_now();
                    }
                    account.release(300);
                }
            })
        })
        .collect();
    let started = std::time::Instant::now();
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(budget.used(), 0);
    assert!(
        started.elapsed() < std::time::Duration::from_secs(55),
        "somebody overslept"
    );
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
