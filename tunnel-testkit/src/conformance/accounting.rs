//! Law 16: figures and credit.

use std::{fmt::Display, sync::Arc};

use tokio::{task::JoinSet, try_join};
use tunnel_core::{
    Backpressure, Connection, ConnectionStats, Duplex, OpenError, Refusal, RefusalKind, SendError, StreamCode,
};

use super::{
    fixtures::{head, name},
    harness::Harness,
    seen::{OrSeen, Seen, Verdict, ensure, eventually, within},
    traffic::{Background, CHUNK, Dropped, abandon, expect_end, pattern, recv_pattern, send_pattern},
    world::World,
};
use crate::Side;

/// How many streams are ended badly, and how many at once.
const ABORTED: usize = 10_000;
const AT_ONCE: usize = 8;

pub(super) async fn law_16_stats_and_credit(harness: &dyn Harness, first: Side) -> Verdict {
    let world = World::new(harness, first).await?;
    figures(&world, harness).await?;
    if !world.can_open() {
        // What is done to streams is done to those that the other end opens, when that acts first.
        return Ok(());
    }

    let credit = [&world.near, &world.far].map(|end| end.stats().credit_outstanding);
    // The far end's streams end by what the near end does to them, and by nothing else.
    let far = abort_many(&world, harness).await?;
    world.no_streams().await?;
    for (end, before) in [&world.near, &world.far].into_iter().zip(credit) {
        eventually(world.prompt, || {
            let after = end.stats().credit_outstanding;
            (after != before).then(|| format!("the credit was {before:?} and is {after:?} after {ABORTED} streams"))
        })
        .await?;
    }
    drop(far);
    expect_whole(&world, harness, format_args!("{ABORTED} resets and cancels")).await?;
    Ok(())
}

/// Expects that every place is still there and every window whole, and gives the streams that show it.
pub(super) async fn expect_whole(
    world: &World,
    harness: &dyn Harness,
    after: impl Display,
) -> Verdict<Vec<(Duplex, Duplex)>> {
    let places = world.setup.max_streams;
    let mut streams = Vec::new();
    for number in 1..=places {
        let what = format!("stream {number} of {places}, after {after}");
        let (mut near, mut far) = within(world.prompt, &what, world.stream()).await??;
        if world.near.capabilities().backpressure == Backpressure::Credit {
            let size = harness.window();
            let what = format!("a window of bytes on {what}");
            within(world.prompt, &what, send_pattern(&mut *near.tx, size, || CHUNK)).await??;
            within(world.prompt, &what, send_pattern(&mut *far.tx, size, || CHUNK)).await??;
            within(world.prompt, &what, recv_pattern(&mut *far.rx, 0, size, || CHUNK)).await??;
        }
        streams.push((near, far));
    }
    Ok(streams)
}

/// The figures add up.
async fn figures(world: &World, harness: &dyn Harness) -> Verdict {
    const STREAMS: u64 = 3;
    let (forth, back) = (3 * harness.window() + 1, harness.window() / 2);
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let (mut near, mut far) = world.stream().await?;
        let Duplex {
            tx: near_tx,
            rx: near_rx,
        } = &mut near;
        let Duplex { tx: far_tx, rx: far_rx } = &mut far;
        try_join!(
            send_pattern(&mut **near_tx, forth, || CHUNK),
            recv_pattern(&mut **far_rx, 0, forth, || CHUNK),
            send_pattern(&mut **far_tx, back, || CHUNK),
            recv_pattern(&mut **near_rx, 0, back, || CHUNK),
        )?;
        streams.push((near, far));
    }
    let total = |bytes: usize| STREAMS * bytes as u64;
    let expected = |sent, received, opened, accepted, open| {
        let mut stats = ConnectionStats::default();
        stats.bytes_sent = total(sent);
        stats.bytes_received = total(received);
        stats.streams_opened = opened;
        stats.streams_accepted = accepted;
        stats.streams_open = open;
        stats
    };
    let (opened, accepted) = if world.can_open() { (STREAMS, 0) } else { (0, STREAMS) };
    expect_stats("near", &*world.near, expected(forth, back, opened, accepted, STREAMS))?;
    expect_stats("far", &*world.far, expected(back, forth, accepted, opened, STREAMS))?;
    for (mut near, mut far) in streams {
        near.tx.finish().await.or_seen("finishing")?;
        expect_end(&mut *far.rx).await?;
        far.tx.finish().await.or_seen("finishing")?;
        expect_end(&mut *near.rx).await?;
    }
    world.no_streams().await?;
    expect_stats("near", &*world.near, expected(forth, back, opened, accepted, 0))?;
    expect_stats("far", &*world.far, expected(back, forth, accepted, opened, 0))
}

/// Compares what every carrier can tell.
fn expect_stats(name: &str, end: &dyn Connection, expected: ConnectionStats) -> Verdict {
    let mut stats = end.stats();
    (stats.rtt, stats.credit_outstanding) = (None, None);
    ensure!(stats == expected, "the {name} end says {stats:?} for {expected:?}");
    Ok(())
}

/// How a stream is ended badly.
#[derive(Clone, Copy, Debug)]
enum Abort {
    OpenDropped(Dropped),
    Refused,
    UnansweredDropped,
    ResetWhileUnread,
    StoppedWhileUnread,
    Dropped,
    ReceiverDropped,
    ResetAtOnce,
}

impl Abort {
    const ALL: [Self; 10] = [
        Self::OpenDropped(Dropped {
            polls: 0,
            when_woken: false,
        }),
        Self::OpenDropped(Dropped {
            polls: 1,
            when_woken: true,
        }),
        Self::OpenDropped(Dropped {
            polls: 2,
            when_woken: false,
        }),
        Self::Refused,
        Self::UnansweredDropped,
        Self::ResetWhileUnread,
        Self::StoppedWhileUnread,
        Self::Dropped,
        Self::ReceiverDropped,
        Self::ResetAtOnce,
    ];

    /// What the far end is to do, as the name of the stream.
    fn name(self) -> &'static str {
        match self {
            Self::Refused => "refuse",
            Self::UnansweredDropped => "drop",
            Self::StoppedWhileUnread => "talk",
            _ => "listen",
        }
    }
}

/// Opens streams and ends them badly; gives the task that serves them at the far end.
async fn abort_many(world: &World, harness: &dyn Harness) -> Verdict<Background> {
    let window = harness.window();
    let far = Arc::clone(&world.far);
    let far = Background::spawn(async move {
        let mut streams = JoinSet::new();
        while let Ok(inbound) = far.accept().await {
            match &*name(inbound.head()) {
                "refuse" => inbound.refuse(Refusal::new(RefusalKind::ConnectionRefused, "no")),
                "drop" => drop(inbound),
                name => {
                    let sends = if name == "talk" { window } else { 0 };
                    streams.spawn(async move {
                        let Ok(mut stream) = inbound.accept().await else { return };
                        // It reads nothing, so that what it was sent is discarded; a failure is what it waits for.
                        let _ended: Verdict = send_pattern(&mut *stream.tx, sends, || CHUNK).await;
                        let _ended = stream.tx.stopped().await;
                    });
                }
            }
            while streams.try_join_next().is_some() {}
        }
    });
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let near = Arc::clone(&world.near);
        workers.spawn(async move {
            for abort in Abort::ALL.into_iter().cycle().take(ABORTED / AT_ONCE) {
                one(&*near, abort, window).await?;
            }
            Verdict::Ok(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.or_seen("ending streams")??;
    }
    Ok(far)
}

/// Opens a stream and ends it badly.
async fn one(near: &dyn Connection, abort: Abort, window: usize) -> Verdict {
    let head = head(abort.name());
    if let Abort::OpenDropped(moment) = abort {
        abandon(moment, near.open(head)).await;
        return Ok(());
    }
    let opened = near.open(head).await;
    if matches!(abort, Abort::Refused | Abort::UnansweredDropped) {
        return match opened {
            Err(OpenError::Refused(_)) => Ok(()),
            Err(other) => Err(Seen(format!("a refusal was seen as: {other}"))),
            Ok(_) => Err(Seen("a refusal was seen as a stream".to_owned())),
        };
    }
    let mut stream = opened.or_seen("opening a stream")?;
    match abort {
        Abort::ResetWhileUnread => {
            send_pattern(&mut *stream.tx, window, || CHUNK).await?;
            stream.tx.reset(StreamCode::TARGET_RESET);
        }
        Abort::StoppedWhileUnread => {
            // Some has come, and the rest is under way.
            let received = stream.rx.recv(1).await.or_seen("receiving")?;
            ensure!(received == Some(pattern(0, 1)), "{received:?} was received");
            stream.rx.stop(StreamCode::TARGET_ERROR);
        }
        Abort::Dropped => send_pattern(&mut *stream.tx, 100, || CHUNK).await?,
        Abort::ReceiverDropped => {
            drop(stream.rx);
            return match stream.tx.finish().await {
                // The drop may have ended both halves.
                Err(SendError::Reset(_)) if !near.capabilities().half_reset => Ok(()),
                finished => finished.or_seen("finishing"),
            };
        }
        _ => {
            stream.tx.reset(StreamCode::CANCELLED);
            stream.rx.stop(StreamCode::CANCELLED);
        }
    }
    Ok(())
}
