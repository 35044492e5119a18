//! Law 8: bounded buffers.

use tokio::try_join;
use tunnel_core::Backpressure;

use super::{
    harness::Harness,
    seen::{OrSeen, Verdict, ensure, within},
    traffic::{CHUNK, expect_end, fill, recv_pattern, room},
    world::World,
};
use crate::Side;

pub(super) async fn law_08_bounded_buffers(harness: &dyn Harness, first: Side) -> Verdict {
    let world = World::new(harness, first).await?;
    if world.near.capabilities().backpressure == Backpressure::None {
        return Ok(());
    }
    let (window, bound) = (harness.window(), harness.bound());
    let cap = 2 * bound + CHUNK;
    let mut streams = Vec::new();
    // Large chunks, small ones, and single bytes, which cost the most to hold.
    for chunk in [CHUNK, 100, 1, 4 * window] {
        let (mut near, far) = world.stream().await?;
        let sent = fill(&mut *near.tx, 0, cap, chunk, world.prompt).await?;
        ensure!(
            sent <= bound,
            "{sent} bytes were taken in chunks of {chunk} while nobody read, and {bound} is the bound"
        );
        ensure!(
            sent >= window,
            "only {sent} bytes were taken in chunks of {chunk}, and the window has {window}"
        );
        streams.push((near, far, sent));
    }
    // What is read makes room for as much, and no more.
    for (near, far, sent) in &mut streams {
        let read = window / 2;
        recv_pattern(&mut *far.rx, 0, read, || CHUNK).await?;
        let more = fill(&mut *near.tx, *sent, cap, CHUNK, world.prompt).await?;
        ensure!(
            *sent + more - read <= bound,
            "after {read} bytes were read, {} are under way, and {bound} is the bound",
            *sent + more - read
        );
        // Who waits for room hears of it.
        let room = within(harness.patience() / 8, "room where all was read", room(&mut *near.tx));
        let recv = recv_pattern(&mut *far.rx, read, *sent + more, || CHUNK);
        let (room, ()) = try_join!(async { room.await? }, recv)?;
        ensure!(room > 0, "room for no bytes");
        near.tx.finish().await.or_seen("finishing")?;
        expect_end(&mut *far.rx).await?;
    }
    drop(streams);
    world.no_streams().await
}
