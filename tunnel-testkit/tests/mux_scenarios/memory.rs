//! What a process holds when nobody reads.

use std::time::Duration;

use tokio::{task::JoinSet, time::sleep};
use tunnel_core::proto::mux::Budget;

use crate::{Bulk, World, fill};

const LIMIT: u64 = 16 * 1024 * 1024;
const STALLED: usize = 1000;

#[tokio::test(start_paused = true)]
async fn a_thousand_streams_that_nobody_reads_stay_within_the_budget() {
    let (sender, receiver) = (Budget::new(LIMIT), Budget::new(LIMIT));
    let world = World::new(Duration::from_millis(10), sender.clone(), receiver.clone());
    let (mut held, mut sending) = (Vec::new(), JoinSet::new());
    for _ in 0..STALLED {
        let (mut near, far) = world.stream().await;
        held.push(far);
        sending.spawn(async move {
            let taken = fill(&mut *near.tx).await;
            // Nobody reads in the other direction, either.
            (taken, near)
        });
    }
    let mut most = 0;
    for _ in 0..5000 {
        sleep(Duration::from_millis(1)).await;
        for memory in [&sender, &receiver] {
            assert!(memory.used() <= memory.limit(), "{} of {LIMIT}", memory.used());
        }
        most = most.max(receiver.used());
    }
    assert!(most > LIMIT / 2, "{most} bytes are no test of {LIMIT}");
    // The connection lives, and who reads gets on.
    let bulk = Bulk::start(&world, 1).await;
    let speed = bulk.speed(Duration::from_millis(300)).await;
    assert!(speed > 1_000_000.0, "{speed:.0} B/s");
    drop((bulk, held, sending, world));
    sleep(Duration::from_secs(2)).await;
    assert_eq!((sender.used(), receiver.used()), (0, 0), "memory was not given back");
}
