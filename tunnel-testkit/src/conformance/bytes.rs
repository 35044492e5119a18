//! Laws 2 to 4: bytes, and their clean end.

use fastrand::Rng;
use tokio::{time::sleep, try_join};
use tunnel_core::{RecvStream, SendStream};

use super::{
    harness::Harness,
    seen::{OrSeen, Verdict, within},
    traffic::{CHUNK, expect_end, recv_pattern, send_pattern},
    world::World,
};
use crate::Side;

/// What a large transfer has.
const LARGE: usize = 8 * 1024 * 1024;

pub(super) async fn law_02_whole_and_in_order(harness: &dyn Harness, first: Side) -> Verdict {
    let world = World::new(harness, first).await?;
    let window = harness.window();
    for size in [0, 1, window - 1, window, window + 1, LARGE] {
        let (mut near, mut far) = world.stream().await?;
        try_join!(
            transfer(&mut *near.tx, &mut *far.rx, size, || CHUNK, || CHUNK),
            transfer(&mut *far.tx, &mut *near.rx, 0, || CHUNK, || CHUNK),
        )?;
    }
    // Chunks of any size, in both directions at once.
    for seed in 0..8 {
        let mut random = Rng::with_seed(seed);
        let size = random.usize(1..3 * window);
        let [mut a, mut b, mut c, mut d] = [(); 4].map(|()| random.fork());
        let (mut near, mut far) = world.stream().await?;
        try_join!(
            transfer(
                &mut *near.tx,
                &mut *far.rx,
                size,
                || any_size(&mut a),
                || any_size(&mut b)
            ),
            transfer(
                &mut *far.tx,
                &mut *near.rx,
                size / 2,
                || any_size(&mut c),
                || any_size(&mut d)
            ),
        )?;
    }
    world.no_streams().await
}

/// Mostly small, sometimes large.
fn any_size(random: &mut Rng) -> usize {
    let most = 1 << random.u32(0..17);
    random.usize(1..=most)
}

/// Moves `size` bytes of the pattern and the clean end.
async fn transfer(
    tx: &mut dyn SendStream,
    rx: &mut dyn RecvStream,
    size: usize,
    chunk: impl FnMut() -> usize,
    max: impl FnMut() -> usize,
) -> Verdict {
    let send = async {
        send_pattern(tx, size, chunk).await?;
        tx.finish().await.or_seen("finishing")
    };
    let recv = async {
        recv_pattern(rx, 0, size, max).await?;
        expect_end(rx).await
    };
    try_join!(send, recv)?;
    Ok(())
}

pub(super) async fn law_03_finish_implies_flush(harness: &dyn Harness, first: Side) -> Verdict {
    let world = World::new(harness, first).await?;
    let window = harness.window();
    for size in [0, 1, 100, window - 1, window] {
        let (mut near, mut far) = world.stream().await?;
        send_pattern(&mut *near.tx, size, || CHUNK).await?;
        near.tx.finish().await.or_seen("finishing")?;
        near.tx.finish().await.or_seen("finishing again")?;
        // Nobody looks after the sender from here on, and the reader takes its time.
        drop(near.tx);
        sleep(world.prompt).await;
        let recv = async {
            recv_pattern(&mut *far.rx, 0, size, || CHUNK).await?;
            expect_end(&mut *far.rx).await
        };
        within(world.prompt, format_args!("{size} bytes and the clean end"), recv).await??;
    }
    world.no_streams().await
}

pub(super) async fn law_04_half_close(harness: &dyn Harness, first: Side) -> Verdict {
    let world = World::new(harness, first).await?;
    if !world.near.capabilities().half_close {
        return Ok(());
    }
    let size = 2 * harness.window();
    // Once the opener ends first, once the other side.
    for opener_ends_first in [true, false] {
        let (near, far) = world.stream().await?;
        let (mut early, mut late) = if opener_ends_first { (near, far) } else { (far, near) };
        let half = async {
            transfer(&mut *early.tx, &mut *late.rx, 100, || CHUNK, || CHUNK).await?;
            // The whole of the other direction comes after the end of this one, and after a while.
            sleep(world.prompt).await;
            transfer(&mut *late.tx, &mut *early.rx, size, || CHUNK, || CHUNK).await
        };
        within(harness.patience() / 4, "a transfer after a half-close", half).await??;
    }
    world.no_streams().await
}
