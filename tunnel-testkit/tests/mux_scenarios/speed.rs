//! How fast one stream is, alone and beside others.

use std::time::Duration;

use crate::{Bulk, GIGABIT, World, fill};

/// What a stream has to reach of what it could.
const ENOUGH: f64 = 0.9;

#[tokio::test(start_paused = true)]
async fn one_stream_fills_a_long_fast_path() {
    let world = World::gigabit(Duration::from_millis(60));
    let bulk = Bulk::start(&world, 1).await;
    // From 256 KiB the window has to grow fivefold and more; each doubling takes a round trip or two.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let speed = bulk.speed(Duration::from_millis(500)).await;
    assert!(speed >= ENOUGH * GIGABIT as f64, "{speed:.0} B/s of {GIGABIT}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_as_fast_beside_ten_thousand_idle_ones() {
    let alone = {
        let world = World::gigabit(Duration::from_millis(10));
        let bulk = Bulk::start(&world, 1).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        bulk.speed(Duration::from_millis(200)).await
    };
    assert!(alone >= ENOUGH * GIGABIT as f64, "{alone:.0} B/s alone");

    let world = World::gigabit(Duration::from_millis(10));
    let mut idle = Vec::new();
    for _ in 0..10_000 {
        idle.push(world.stream().await);
    }
    let bulk = Bulk::start(&world, 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let beside = bulk.speed(Duration::from_millis(200)).await;
    assert!(
        beside >= ENOUGH * alone,
        "{beside:.0} B/s beside them, {alone:.0} alone"
    );
    assert_eq!(world.server.stats().streams_open, 10_001);
    drop(idle);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_as_fast_beside_one_that_nobody_reads() {
    let world = World::gigabit(Duration::from_millis(10));
    let bulk = Bulk::start(&world, 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let alone = bulk.speed(Duration::from_millis(200)).await;

    let (mut near, far) = world.stream().await;
    let taken = fill(&mut *near.tx).await;
    let beside = bulk.speed(Duration::from_millis(200)).await;
    assert!(beside >= ENOUGH * alone, "{beside:.0} B/s beside it, {alone:.0} alone");
    drop(bulk);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (window, queue) = (256 * 1024, 128 * 1024);
    assert!((1..=window + queue).contains(&taken), "{taken} bytes were taken");
    let held = world.agent_memory.used();
    assert!(
        (1..=window).contains(&held),
        "{held} bytes are held at the reader's end"
    );
    let held = world.server_memory.used();
    assert!(held <= queue, "{held} bytes are held at the writer's end");
    drop(far);
}
