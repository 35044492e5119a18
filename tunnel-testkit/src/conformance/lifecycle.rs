//! Laws 11 to 13: how connections end.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    join,
    task::JoinSet,
    time::{Instant, sleep},
    try_join,
};
use tunnel_core::{CloseCode, ConnectionError, Initiator, OpenError, RecvError, RecvStream, SendError};

use super::{
    fixtures::head,
    harness::{Harness, Setup},
    seen::{OrSeen, Seen, Verdict, ensure, within},
    traffic::{CHUNK, expect_end, fill, is_pending, pattern, read_out, recv_pattern, send_pattern},
    world::{World, can_open, stream},
};
use crate::Side;

pub(super) async fn law_11_cut(harness: &dyn Harness, first: Side) -> Verdict {
    let setup = Setup {
        max_streams: 3,
        ..Setup::default()
    };
    let world = World::with(harness, first, setup).await?;
    let (mut pending, mut unread) = pending_operations(&world, harness).await?;
    ensure!(
        pending.try_join_next().is_none(),
        "an operation ended before the wire was cut"
    );
    world.network.cut();
    let limit = world.setup.keepalive.bound() + world.prompt;
    let mut missing = pending.len();
    let all = async {
        while let Some(ended) = pending.join_next().await {
            let (what, error) = ended.or_seen("an operation")?;
            expect_network(&format!("a pending {what}"), error.as_ref())?;
            missing -= 1;
        }
        Ok(())
    };
    let ended = within(limit, "the end of every pending operation", all).await;
    ended.map_err(|Seen(seen)| Seen(format!("{seen}; {missing} still wait")))??;
    // What is tried afterwards fails at once.
    for end in [&world.near, &world.far] {
        let (opened, accepted, closed) = within(world.prompt, "new operations after a cut", async {
            join!(end.open(head("late")), end.accept(), end.closed())
        })
        .await?;
        if can_open(&**end) {
            expect_network("a late open", connection_error_of_open(opened.err()).as_ref())?;
        }
        expect_network("a late accept", accepted.err().as_ref())?;
        expect_network("closed", Some(&closed))?;
        ensure!(end.stats().streams_open == 0, "streams outlived the connection");
    }
    let received = within(world.prompt, "receiving after a cut", read_out(&mut *unread)).await?;
    expect_network(
        "receiving after a cut",
        connection_error_of_recv(received.err()).as_ref(),
    )
}

type Ended = (&'static str, Option<ConnectionError>);

/// Everything that can wait, waiting, at both ends, each to give the error of the connection with which it ended; and
/// a receiver with unread bytes.
async fn pending_operations(world: &World, harness: &dyn Harness) -> Verdict<(JoinSet<Ended>, Box<dyn RecvStream>)> {
    let mut pending = JoinSet::new();
    let (mut near, mut far) = world.stream().await?;
    fill(&mut *near.tx, 0, 2 * harness.bound() + CHUNK, CHUNK, world.prompt).await?;
    pending.spawn(async move { ("recv", connection_error_of_recv(near.rx.recv(CHUNK).await.err())) });
    pending.spawn(async move {
        let sent = near.tx.send_all(Bytes::from(vec![0; CHUNK])).await;
        ("send", connection_error_of_send(sent.err()))
    });
    let unread = far.rx;
    pending.spawn(async move { ("stopped", connection_error_of_send(far.tx.stopped().await.err())) });

    // One stream without an answer, one that keeps its place, one that waits for a place.
    let (opener, acceptor) = world.opener_first();
    let near = Arc::clone(opener);
    pending.spawn(async move {
        let opened = near.open(head("unanswered")).await;
        ("open without an answer", connection_error_of_open(opened.err()))
    });
    let inbound = within(world.prompt, "a stream", acceptor.accept()).await?;
    let mut inbound = inbound.or_seen("accepting a stream")?;
    let far = Arc::clone(acceptor);
    pending.spawn(async move {
        inbound.cancelled().await;
        // It does not say why, so the connection has to.
        ("cancelled", Some(far.closed().await))
    });
    let (kept_near, kept_far) = stream(opener, acceptor).await?;
    let near = Arc::clone(opener);
    pending.spawn(async move {
        let opened = near.open(head("waiting")).await;
        drop(kept_near);
        ("open beyond the limit", connection_error_of_open(opened.err()))
    });
    // Kept until this end has noticed, which may be later: its place would go to the one that waits.
    let far = Arc::clone(acceptor);
    pending.spawn(async move {
        let closed = far.closed().await;
        drop(kept_far);
        ("closed", Some(closed))
    });
    for end in [&world.near, &world.far] {
        for _ in 0..2 {
            let end = Arc::clone(end);
            pending.spawn(async move { ("accept", end.accept().await.err()) });
        }
        let (closing, draining) = (Arc::clone(end), Arc::clone(end));
        pending.spawn(async move { ("closed", Some(closing.closed().await)) });
        pending.spawn(async move {
            draining.draining().await;
            ("draining", Some(draining.closed().await))
        });
    }
    // Everything is to have begun.
    sleep(world.prompt).await;
    Ok((pending, unread))
}

fn connection_error_of_open(error: Option<OpenError>) -> Option<ConnectionError> {
    match error {
        Some(OpenError::Connection(error)) => Some(error),
        _ => None,
    }
}

fn connection_error_of_send(error: Option<SendError>) -> Option<ConnectionError> {
    match error {
        Some(SendError::Connection(error)) => Some(error),
        _ => None,
    }
}

fn connection_error_of_recv(error: Option<RecvError>) -> Option<ConnectionError> {
    match error {
        Some(RecvError::Connection(error)) => Some(error),
        _ => None,
    }
}

fn expect_network(what: &str, error: Option<&ConnectionError>) -> Verdict {
    match error {
        Some(error) if error.initiator() == Initiator::Network => Ok(()),
        Some(error) => Err(Seen(format!("{what} blames {}: {error}", error.initiator()))),
        None => Err(Seen(format!("{what} did not end with the connection's error"))),
    }
}

pub(super) async fn law_12_keepalive(harness: &dyn Harness, first: Side) -> Verdict {
    let world = World::new(harness, first).await?;
    let while_ = 4 * world.setup.keepalive.bound();
    stays(&world, "that was idle", sleep(while_)).await?;
    world.works().await?;

    // The sender waits for credit all the while.
    let (mut near, far) = world.stream().await?;
    fill(&mut *near.tx, 0, 2 * harness.bound() + CHUNK, CHUNK, world.prompt).await?;
    stays(&world, "whose one reader stalled", sleep(while_)).await?;
    drop((near, far));

    busy(&world, while_).await?;
    world.works().await?;
    let limit = world.setup.keepalive.bound() + world.prompt;
    world.network.silence();
    let silence = Instant::now();
    let (near, far) = join!(
        within(
            limit,
            "the end of a silent connection at the near end",
            world.near.closed()
        ),
        within(
            limit,
            "the end of a silent connection at the far end",
            world.far.closed()
        ),
    );
    for error in [near?, far?] {
        expect_network("a silent connection's end", Some(&error))?;
    }
    ensure!(
        silence.elapsed() <= limit,
        "the silence was noticed after {:?}",
        silence.elapsed()
    );
    Ok(())
}

/// Sends now and then, in one direction only.
async fn busy(world: &World, while_: Duration) -> Verdict {
    let (mut near, mut far) = world.stream().await?;
    let (pause, times) = (
        world.setup.keepalive.interval / 4,
        1 + while_.as_millis() / (world.setup.keepalive.interval / 4).as_millis(),
    );
    let mut count = 0;
    let talk = async {
        for _ in 0..times {
            near.tx.send_all(pattern(count, 100)).await.or_seen("sending")?;
            recv_pattern(&mut *far.rx, count, count + 100, || CHUNK).await?;
            count += 100;
            sleep(pause).await;
        }
        Ok(())
    };
    stays(world, "on which one end talked", talk).await?
}

/// Does something for a while, during which the connection must not end.
async fn stays<T>(world: &World, what: &str, during: impl Future<Output = T>) -> Verdict<T> {
    let ended = |end: &str, error| Err(Seen(format!("a connection {what} ended at the {end} end: {error}")));
    tokio::select! {
        biased;
        error = world.near.closed() => ended("near", error),
        error = world.far.closed() => ended("far", error),
        done = during => Ok(done),
    }
}

pub(super) async fn law_13_drain(harness: &dyn Harness, first: Side) -> Verdict {
    let setup = Setup {
        max_streams: 1,
        ..Setup::default()
    };
    let world = World::with(harness, first, setup).await?;
    with_a_stream(&world, harness).await?;
    // Without streams it is over at once.
    let world = World::new(harness, first).await?;
    world.near.drain();
    drained(&world).await
}

async fn with_a_stream(world: &World, harness: &dyn Harness) -> Verdict {
    let (mut near, mut far) = world.stream().await?;
    let waiting = {
        let opener = Arc::clone(world.opener_first().0);
        tokio::spawn(async move { opener.open(head("waiting")).await })
    };
    ensure!(
        is_pending(world.near.draining()).await && is_pending(world.far.draining()).await,
        "the connection drains though nobody asked"
    );
    sleep(world.prompt).await;

    world.near.drain();
    let (near_knows, far_knows) = (world.near.draining(), world.far.draining());
    // A foreign protocol need not tell an end that opens nothing.
    let is_told = world.is_own() || can_open(&*world.far);
    within(world.prompt, "the drain at both ends", async {
        near_knows.await;
        if is_told {
            far_knows.await;
        }
    })
    .await?;
    let waited = within(world.prompt, "the end of an open that waited for a place", waiting).await?;
    expect_undelivered("an open that waited for a place", waited.or_seen("opening")?.err())?;
    for (name, end) in [("near", &world.near), ("far", &world.far)] {
        let what = format!("an open at the {name} end");
        let opened = within(world.prompt, &what, end.open(head("late"))).await?;
        expect_undelivered(&what, opened.err())?;
    }

    // The old stream goes on, with more bytes than could have been under way.
    let size = 2 * harness.bound();
    for (from, to) in [(&mut near.tx, &mut far.rx), (&mut far.tx, &mut near.rx)] {
        let send = send_pattern(&mut **from, size, || CHUNK);
        let recv = recv_pattern(&mut **to, 0, size, || CHUNK);
        let limit = harness.patience() / 4;
        within(limit, "a transfer while draining", async { try_join!(send, recv) }).await??;
    }
    sleep(world.prompt).await;
    ensure!(
        is_pending(world.near.closed()).await && is_pending(world.far.closed()).await,
        "a draining connection was closed while a stream was open"
    );
    near.tx.finish().await.or_seen("finishing")?;
    expect_end(&mut *far.rx).await?;
    far.tx.finish().await.or_seen("finishing")?;
    expect_end(&mut *near.rx).await?;
    drop((near, far));
    drained(world).await
}

fn expect_undelivered(what: &str, error: Option<OpenError>) -> Verdict {
    match error {
        Some(error) if error.is_undelivered() => Ok(()),
        Some(error) => Err(Seen(format!("{what} of a draining connection gave: {error}"))),
        None => Err(Seen(format!("{what} of a draining connection succeeded"))),
    }
}

/// Expects both ends to close a drained connection.
async fn drained(world: &World) -> Verdict {
    for (name, end) in [("near", &world.near), ("far", &world.far)] {
        let what = format!("the end of a drained connection at the {name} end");
        let error = within(world.prompt, &what, end.closed()).await?;
        let is_done = error.code() == Some(CloseCode::DONE) && error.initiator() == Initiator::Remote;
        let expected = error.code() == Some(CloseCode::DRAINED) || (is_done && !world.is_own());
        ensure!(expected, "{what} is: {error}");
    }
    Ok(())
}
