//! Law 17: bytes that are sent with the open.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::{join, time::sleep, try_join};
use tunnel_core::{Duplex, OpenError, Refusal, RefusalKind};

use super::{
    accounting::expect_whole,
    fixtures::head,
    harness::Harness,
    seen::{OrSeen, Seen, Verdict, ensure, within},
    traffic::{CHUNK, Dropped, abandon, echo, expect_end, pattern, recv_pattern, send_pattern},
    world::World,
};
use crate::Side;

/// More polls than an open needs when every event wakes it a few times.
const MOST_POLLS: usize = 100;
/// How many opens with a window of bytes are refused.
const REFUSED: usize = 64;

pub(super) async fn law_17_early_bytes(harness: &dyn Harness, first: Side) -> Verdict {
    let world = World::new(harness, first).await?;
    if !world.can_open() {
        return Ok(());
    }
    let mut total = 0;
    let window = harness.window();
    for size in [0, 1, window - 1, window, window + 1, 3 * window] {
        // Answered before the bytes have come, and after.
        for patience in [Duration::ZERO, world.prompt] {
            total += delivered(&world, harness, size, patience).await?;
        }
    }
    world.no_streams().await?;
    let (sent, received) = (world.near.stats().bytes_sent, world.far.stats().bytes_received);
    ensure!(
        (sent, received) == (total, total),
        "of {total} bytes, the near end says that it has sent {sent}, and the far one that it has received {received}"
    );
    refused(&world, harness).await?;
    given_up(&world, window).await
}

/// Opens a stream with bytes and sends more: they arrive first, and once. Gives how many there were.
async fn delivered(world: &World, harness: &dyn Harness, size: usize, patience: Duration) -> Verdict<u64> {
    /// What is sent behind them.
    const MORE: usize = 1000;
    let whole = bytes(size + MORE);
    let mut early = whole.slice(..size);
    let (near, far) = join!(world.near.open_with(head("early"), &mut early), async {
        let inbound = world.far.accept().await.or_seen("accepting a stream")?;
        sleep(patience).await;
        inbound.accept().await.or_seen("answering a stream")
    });
    let (mut near, mut far) = (near.or_seen(format_args!("opening a stream with {size} bytes"))?, far?);
    let taken = size
        .checked_sub(early.len())
        .filter(|taken| early == whole.slice(*taken..size));
    let Some(taken) = taken else {
        return Err(Seen(format!("of {size} bytes, {} others are left", early.len())));
    };
    ensure!(
        taken <= harness.bound(),
        "{taken} bytes were taken with the open, and {} is the bound",
        harness.bound()
    );
    let send = async {
        near.tx
            .send_all(whole.slice(taken..))
            .await
            .or_seen("sending the rest")?;
        near.tx.finish().await.or_seen("finishing")
    };
    let receive = async {
        recv_pattern(&mut *far.rx, 0, whole.len(), || CHUNK).await?;
        expect_end(&mut *far.rx).await
    };
    try_join!(send, receive)?;
    Ok(whole.len() as u64)
}

/// Has opens refused, before their bytes have come and after: nobody else misses anything.
async fn refused(world: &World, harness: &dyn Harness) -> Verdict {
    let window = harness.window();
    let (mut near, mut far) = world.stream().await?;
    send_pattern(&mut *near.tx, window / 2, || CHUNK).await?;
    for number in 0..REFUSED {
        let mut early = bytes(window);
        let refusal = Refusal::new(RefusalKind::ConnectionRefused, "not this one");
        let (opened, answered) = join!(world.near.open_with(head("refused"), &mut early), async {
            let inbound = world.far.accept().await.or_seen("accepting a stream")?;
            if number % 8 == 0 {
                sleep(world.prompt).await;
            }
            inbound.refuse(refusal.clone());
            Verdict::Ok(())
        });
        answered?;
        match opened {
            Err(OpenError::Refused(seen)) if seen.kind == refusal.kind => {}
            other => return Err(Seen(format!("a refusal of an open with bytes was seen as {other:?}"))),
        }
    }
    near.tx.finish().await.or_seen("finishing")?;
    recv_pattern(&mut *far.rx, 0, window / 2, || CHUNK).await?;
    expect_end(&mut *far.rx).await?;
    drop((near, far));
    world.no_streams().await?;
    let streams = expect_whole(world, harness, format_args!("{REFUSED} refusals of opens with bytes")).await?;
    drop(streams);
    world.no_streams().await
}

/// Drops an open with bytes after every number of polls.
async fn given_up(world: &World, window: usize) -> Verdict {
    let _echo = echo(&world.far);
    for moment in Dropped::moments(MOST_POLLS) {
        let mut early = bytes(window);
        let opening = abandon(moment, world.near.open_with(head("given-up"), &mut early));
        let opened = within(
            world.prompt * 2,
            format_args!("an open with bytes that is {moment}"),
            opening,
        )
        .await?;
        let Some(stream) = opened.transpose().or_seen("opening a stream")? else {
            let left = world.no_streams().await;
            left.map_err(|Seen(seen)| Seen(format!("an open with bytes was {moment}, and {seen}")))?;
            continue;
        };
        let Duplex { mut tx, mut rx } = stream;
        let send = async {
            tx.send_all(early).await.or_seen("sending the rest")?;
            tx.finish().await.or_seen("finishing")
        };
        let receive = async {
            recv_pattern(&mut *rx, 0, window, || CHUNK).await?;
            expect_end(&mut *rx).await
        };
        try_join!(send, receive)?;
        drop((tx, rx));
        return world.no_streams().await;
    }
    Err(Seen(format!(
        "an open with bytes did not complete within {MOST_POLLS} polls"
    )))
}

/// The first `count` bytes of the pattern.
fn bytes(count: usize) -> Bytes {
    let mut all = BytesMut::with_capacity(count);
    while all.len() < count {
        all.extend_from_slice(&pattern(all.len(), count - all.len()));
    }
    all.freeze()
}
