//! Laws 9 and 10: streams that share a connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
    try_join,
};
use tunnel_core::{Backpressure, Duplex, Inbound};

use super::{
    fixtures::{head, name},
    harness::{Harness, Setup},
    seen::{OrSeen, Seen, Verdict, ensure, within},
    traffic::{CHUNK, fill, is_pending, pattern, recv_pattern, room, send_pattern},
    world::World,
};
use crate::Side;

/// The stream limit of law 9, where all but one of them stall, and of streams that ask for room.
const MANY: u32 = 32;
/// How many exchanges the latency is measured with.
const EXCHANGES: usize = 200;
/// What an exchange moves in each direction.
const SMALL: usize = 64;
/// The resolution of the clock that virtual time has.
const TICK: Duration = Duration::from_millis(1);

pub(super) async fn law_09_stalled_readers(harness: &dyn Harness, first: Side) -> Verdict {
    let undisturbed = measure(harness, first, 0).await?;
    for stalled in [1, MANY - 1] {
        let disturbed = measure(harness, first, stalled).await?;
        let slowest = undisturbed.transfer.mul_f64(1.1) + TICK;
        ensure!(
            disturbed.transfer <= slowest,
            "{} bytes took {:?} beside {stalled} stalled streams, and {:?} without them",
            harness.bulk(),
            disturbed.transfer,
            undisturbed.transfer
        );
        let latest = undisturbed.exchange * 2 + TICK;
        ensure!(
            disturbed.exchange <= latest,
            "an exchange took {:?} (p99) beside {stalled} stalled streams, and {:?} without them",
            disturbed.exchange,
            undisturbed.exchange
        );
    }
    Ok(())
}

/// What one stream achieves.
struct Achieved {
    /// The time of a large transfer.
    transfer: Duration,
    /// The 99th percentile of the time of a small exchange.
    exchange: Duration,
}

/// Measures one stream beside others that are full and that nobody reads.
async fn measure(harness: &dyn Harness, first: Side, stalled: u32) -> Verdict<Achieved> {
    let setup = Setup {
        max_streams: MANY,
        ..Setup::default()
    };
    let world = World::with(harness, first, setup).await?;
    let none = Achieved {
        transfer: Duration::ZERO,
        exchange: Duration::ZERO,
    };
    let can_stall = world.near.capabilities().backpressure == Backpressure::Credit;
    if !can_stall {
        return Ok(none);
    }
    let mut held = Vec::new();
    for _ in 0..stalled {
        let (mut near, far) = world.stream().await?;
        fill(&mut *near.tx, 0, 2 * harness.bound() + CHUNK, CHUNK, world.prompt).await?;
        held.push((near, far));
    }
    let (mut near, mut far) = world.stream().await?;
    let what = format!("a transfer beside {stalled} stalled streams");
    let limit = harness.patience() / 8;
    // Once to get up to speed.
    within(limit, &what, transfer(&mut near, &mut far, harness.bulk())).await??;
    let start = Instant::now();
    within(limit, &what, transfer(&mut near, &mut far, harness.bulk())).await??;
    let transfer = start.elapsed();

    let mut times = Vec::with_capacity(EXCHANGES);
    for _ in 0..EXCHANGES {
        let start = Instant::now();
        let what = format!("an exchange beside {stalled} stalled streams");
        within(limit, what, exchange(&mut near, &mut far)).await??;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let exchange = times[EXCHANGES * 99 / 100 - 1];
    Ok(Achieved { transfer, exchange })
}

/// Moves bytes from the near end to the far one.
async fn transfer(near: &mut Duplex, far: &mut Duplex, size: usize) -> Verdict {
    let send = send_pattern(&mut *near.tx, size, || CHUNK);
    let recv = recv_pattern(&mut *far.rx, 0, size, || 4 * CHUNK);
    try_join!(send, recv)?;
    Ok(())
}

/// Sends a few bytes there and back.
async fn exchange(near: &mut Duplex, far: &mut Duplex) -> Verdict {
    for (from, to) in [(&mut near.tx, &mut far.rx), (&mut far.tx, &mut near.rx)] {
        from.send_all(pattern(0, SMALL)).await.or_seen("sending")?;
        from.flush().await.or_seen("flushing")?;
        recv_pattern(&mut **to, 0, SMALL, || CHUNK).await?;
    }
    Ok(())
}

pub(super) async fn law_10_stream_limit(harness: &dyn Harness, first: Side) -> Verdict {
    limit(harness, first).await?;
    starvation(harness, first).await?;
    wavering(harness, first).await
}

/// How many streams fit under the limit of law 10.
const FEW: u32 = 4;
/// The name of a stream that is given up while it waits for a place.
const ABANDONED: &str = "abandoned";

async fn limit(harness: &dyn Harness, first: Side) -> Verdict {
    let setup = Setup {
        max_streams: FEW,
        ..Setup::default()
    };
    let world = World::with(harness, first, setup).await?;
    if !world.can_open() {
        // The limit is on streams that the other end opens, and held when that acts first.
        return Ok(());
    }
    let mut open = Vec::new();
    for _ in 0..FEW {
        open.push(within(world.prompt, "a stream under the limit", world.stream()).await??);
    }
    // One that gives up, and three more, wait in this order.
    let abandoned = {
        let near = Arc::clone(&world.near);
        tokio::spawn(async move { near.open(head(ABANDONED)).await })
    };
    sleep(TICK).await;
    let mut waiting = Vec::new();
    for number in 0..3 {
        let near = Arc::clone(&world.near);
        let head = head(&format!("waiting-{number}"));
        waiting.push(tokio::spawn(async move { near.open(head).await }));
        sleep(TICK).await;
    }
    sleep(world.prompt).await;
    ensure!(
        waiting.iter().all(|open| !open.is_finished()),
        "a stream beyond the limit of {FEW} was opened"
    );
    ensure!(
        is_pending(world.far.accept()).await,
        "a stream beyond the limit of {FEW} was there to accept"
    );
    abandoned.abort();
    sleep(TICK).await;
    for (number, opening) in waiting.into_iter().enumerate() {
        drop(open.pop());
        let what = format!("the stream that waited as number {number}, after a place was free");
        let inbound = within(world.prompt, &what, next_not_given_up(&world)).await??;
        let seen = name(inbound.head());
        ensure!(
            seen == format!("waiting-{number}"),
            "the place went to {seen} before waiting-{number}"
        );
        let far = inbound.accept().await.or_seen("answering")?;
        let near = within(world.prompt, &what, opening)
            .await?
            .or_seen(&what)?
            .or_seen(&what)?;
        // One place was free, so one stream was opened.
        sleep(world.prompt).await;
        ensure!(
            is_pending(world.far.accept()).await,
            "one stream has ended, and two took its place"
        );
        open.insert(0, (near, far));
    }
    drop(open);
    world.no_streams().await
}

/// Accepts the next stream other than the one that was given up. That one may be seen, and then as given up.
async fn next_not_given_up(world: &World) -> Verdict<Box<dyn Inbound>> {
    loop {
        let mut inbound = world.far.accept().await.or_seen("accepting a stream")?;
        if name(inbound.head()) != ABANDONED {
            return Ok(inbound);
        }
        let what = "the news that an open beyond the limit was given up";
        within(world.prompt / 2, what, inbound.cancelled()).await?;
    }
}

/// How many streams are busy while a small one has something to say.
const BUSY: usize = 8;
/// How often the small one says it.
const SAID: usize = 20;

async fn starvation(harness: &dyn Harness, first: Side) -> Verdict {
    let world = World::new(harness, first).await?;
    let moved = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    // What is ahead of a small message at the most, if streams take turns: everything that the busy ones have queued,
    // in both directions, once more as much for what is in the network, and a turn for each.
    let ahead = 4 * BUSY * (harness.bound() + CHUNK);
    let most = SAID * ahead;
    let mut busy = JoinSet::new();
    for _ in 0..BUSY {
        let (near, far) = world.stream().await?;
        let (sender_over, receiver_over) = (Arc::clone(&over), Arc::clone(&over));
        let moved = Arc::clone(&moved);
        // The halves that are not used are kept: dropping one may end both.
        busy.spawn(async move {
            let mut near = near;
            let _unused = &near.rx;
            let mut offset = 0;
            while !sender_over.load(Ordering::Relaxed) {
                let data = pattern(offset, CHUNK);
                offset += data.len();
                if near.tx.send_all(data).await.is_err() {
                    break;
                }
            }
        });
        busy.spawn(async move {
            let mut far = far;
            let _unused = &far.tx;
            while let Ok(Some(bytes)) = far.rx.recv(CHUNK).await {
                // A starved stream would wait for ever, and with it this law.
                if moved.fetch_add(bytes.len(), Ordering::Relaxed) > most {
                    receiver_over.store(true, Ordering::Relaxed);
                }
                if receiver_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
    }
    let (mut near, mut far) = world.stream().await?;
    // In a task like those that are busy: a runtime may give a test's own future fewer turns than it gives tasks.
    let small = tokio::spawn(async move {
        for _ in 0..SAID {
            exchange(&mut near, &mut far).await?;
        }
        Ok((near, far))
    });
    let what = "small exchanges beside busy streams";
    let small = within(harness.patience() / 4, what, small).await?.or_seen(what)??;
    let moved = moved.load(Ordering::Relaxed);
    over.store(true, Ordering::Relaxed);
    busy.abort_all();
    while busy.join_next().await.is_some() {}
    if moved > most {
        return Err(Seen(format!(
            "{SAID} small exchanges took as long as {moved} bytes of {BUSY} busy streams; {most} would be fair"
        )));
    }
    ensure!(moved > 0, "the busy streams moved nothing");
    drop(small);
    world.no_streams().await
}

/// How many streams ask for room and send nothing.
const WAVERING: usize = 2 * BUSY;

/// Streams that ask for room and do not use it take none from others.
async fn wavering(harness: &dyn Harness, first: Side) -> Verdict {
    let setup = Setup {
        max_streams: MANY,
        ..Setup::default()
    };
    let world = World::with(harness, first, setup).await?;
    let what = "transfers beside streams that ask for room and send nothing";
    let limit = harness.patience() / 8;
    let mut others = JoinSet::new();
    for _ in 0..WAVERING {
        let (mut near, mut far) = world.stream().await?;
        // Some of them only after they have moved bulk themselves.
        let size = others.len() * CHUNK / 4;
        within(limit, what, transfer(&mut near, &mut far, size)).await??;
        others.spawn(async move {
            // All halves are kept: dropping one may end both.
            let (_far, mut near) = (far, near);
            loop {
                let room = room(&mut *near.tx).await;
                ensure!(room? > 0, "room for no bytes");
                sleep(TICK).await;
            }
        });
    }
    let mut busy = JoinSet::new();
    for _ in 0..BUSY {
        let (mut near, mut far) = world.stream().await?;
        let size = harness.bulk() / BUSY;
        busy.spawn(async move { transfer(&mut near, &mut far, size).await });
    }
    let transfers = async {
        while let Some(transfer) = busy.join_next().await {
            transfer.or_seen(what)??;
        }
        Ok(())
    };
    within(limit, what, transfers).await??;
    if let Some(ended) = others.try_join_next() {
        return ended.or_seen("asking for room")?;
    }
    others.shutdown().await;
    world.no_streams().await
}
