//! Laws 5 and 6: ends that are not clean.

use std::{
    future::{Future, poll_fn},
    task::Poll,
};

use bytes::Bytes;
use tokio::task::{JoinHandle, yield_now};
use tunnel_core::{
    CloseCode, ConnectionError, Duplex, Initiator, RecvError, Refusal, RefusalKind, SendError, StreamCode,
    proto::VarInt,
};

use super::{
    harness::Harness,
    opening::refused,
    seen::{OrSeen, Seen, Verdict, ensure, within},
    traffic::{CHUNK, fill, pattern, read_out, send_pattern},
    world::World,
};
use crate::Side;

/// What a stream does when it is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was sent.
    Idle,
    /// Some bytes were sent, and nobody reads.
    Unread,
    /// The sender waits for credit, and nobody reads.
    Blocked,
}

impl State {
    const ALL: [Self; 3] = [Self::Idle, Self::Unread, Self::Blocked];
}

/// Codes with a name, the largest included, and one without.
fn codes() -> [StreamCode; 4] {
    let unknown = StreamCode::new(VarInt::from_u32(0x4242));
    [
        StreamCode::CANCELLED,
        StreamCode::TARGET_RESET,
        StreamCode::INTERNAL,
        unknown,
    ]
}

/// A stream in this state, as its sender and its receiver see it.
async fn stream_in(world: &World, harness: &dyn Harness, state: State) -> Verdict<(Duplex, Duplex)> {
    let (mut near, far) = world.stream().await?;
    match state {
        State::Idle => {}
        State::Unread => send_pattern(&mut *near.tx, harness.window() / 2, || CHUNK).await?,
        State::Blocked => {
            let cap = 2 * harness.bound() + CHUNK;
            fill(&mut *near.tx, 0, cap, CHUNK, world.prompt).await?;
        }
    }
    Ok((near, far))
}

pub(super) async fn law_05_reset_and_stop(harness: &dyn Harness, first: Side) -> Verdict {
    let world = World::new(harness, first).await?;
    for state in State::ALL {
        for code in codes() {
            reset(&world, harness, state, code).await?;
            stop(&world, harness, state, code).await?;
        }
    }
    world.no_streams().await
}

async fn reset(world: &World, harness: &dyn Harness, state: State, code: StreamCode) -> Verdict {
    let (mut near, far) = stream_in(world, harness, state).await?;
    let Duplex {
        tx: mut far_tx,
        rx: mut far_rx,
    } = far;
    let what = format!("a reset with {code} of a stream that is {state:?}");
    match state {
        // The receiver waits, and has to be woken.
        State::Idle => {
            let receiver = waiting(async move { (read_out(&mut *far_rx).await, far_rx) }).await;
            near.tx.reset(code);
            let (seen, _rx) = woken(world, &what, receiver).await?;
            expect_reset(world, seen, code, &what)?;
        }
        State::Unread => {
            near.tx.reset(code);
            let seen = within(world.prompt, &what, read_out(&mut *far_rx)).await?;
            expect_reset(world, seen, code, &what)?;
        }
        // The receiver has no room for what came before the reset, and has to be woken all the same.
        State::Blocked => {
            let what = format!("{what}, for a receiver without room");
            let receiver = waiting(async move { (poll_fn(|cx| far_rx.poll_reset(cx)).await, far_rx) }).await;
            near.tx.reset(code);
            let (seen, mut rx) = woken(world, &what, receiver).await?;
            expect_reset(world, Err(seen), code, &what)?;
            let seen = within(world.prompt, &what, read_out(&mut *rx)).await?;
            expect_reset(world, seen, code, &what)?;
        }
    }
    let after = near.tx.send_all(Bytes::from_static(b"more")).await;
    ensure!(
        matches!(after, Err(SendError::Reset(own)) if own == code),
        "{what}: sending afterwards gives {after:?}"
    );
    if !world.near.capabilities().half_reset {
        let own = within(world.prompt, &what, near.rx.recv(CHUNK)).await?;
        ensure!(
            matches!(own, Err(RecvError::Stopped(own)) if own == code),
            "{what}, which ends both halves: receiving at the end that did it gives {own:?}"
        );
        let others = within(world.prompt, &what, far_tx.stopped()).await?;
        ensure!(
            others.is_ok(),
            "{what}, which ends both halves, left the other direction: {others:?}"
        );
    } else if world.near.capabilities().half_close {
        // The other direction is none of its business.
        far_tx
            .send_all("still here".into())
            .await
            .or_seen("answering a reset")?;
        let received = within(world.prompt, "bytes against a reset", near.rx.recv(CHUNK)).await?;
        let received = received.or_seen("receiving against a reset")?;
        ensure!(received.is_some(), "{what}: the other direction ended, too");
    }
    Ok(())
}

async fn stop(world: &World, harness: &dyn Harness, state: State, code: StreamCode) -> Verdict {
    let (near, mut far) = stream_in(world, harness, state).await?;
    let Duplex {
        tx: mut near_tx,
        rx: mut near_rx,
    } = near;
    let what = format!("a stop with {code} of a stream that is {state:?}");
    let mut data = if state == State::Blocked {
        pattern(0, CHUNK)
    } else {
        Bytes::new()
    };
    // Both ways to notice wait at once, as in a relay, and neither may take the other's wake-up.
    let sender = waiting(async move {
        let (mut sent, mut stopped) = (None, None);
        poll_fn(|cx| {
            if sent.is_none()
                && !data.is_empty()
                && let Poll::Ready(result) = near_tx.poll_send(cx, &mut data)
            {
                sent = Some(result);
            }
            if stopped.is_none()
                && let Poll::Ready(result) = near_tx.poll_stopped(cx)
            {
                stopped = Some(result);
            }
            let waits = stopped.is_none() || (sent.is_none() && !data.is_empty());
            if waits { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        (sent, stopped, near_tx)
    })
    .await;
    far.rx.stop(code);
    let (sent, stopped, mut near_tx) = woken(world, &what, sender).await?;
    let expected = |seen: StreamCode| seen == code || !world.near.capabilities().reset_codes;
    ensure!(
        matches!(&stopped, Some(Ok(seen)) if expected(*seen)),
        "{what}: poll_stopped gave {stopped:?}"
    );
    if state == State::Blocked {
        ensure!(
            matches!(&sent, Some(Err(SendError::Stopped(seen))) if expected(*seen)),
            "{what}: the blocked poll_send gave {sent:?}"
        );
    }
    let after = near_tx.send_all(Bytes::from_static(b"more")).await;
    ensure!(
        matches!(&after, Err(SendError::Stopped(seen)) if expected(*seen)),
        "{what}: sending afterwards gives {after:?}"
    );
    let after = far.rx.recv(CHUNK).await;
    ensure!(
        matches!(&after, Err(RecvError::Stopped(own)) if *own == code),
        "{what}: receiving afterwards gives {after:?}"
    );
    if !world.near.capabilities().half_reset {
        let own = far.tx.send_all(Bytes::from_static(b"more")).await;
        ensure!(
            matches!(own, Err(SendError::Reset(own)) if own == code),
            "{what}, which ends both halves: sending at the end that did it gives {own:?}"
        );
        let seen = within(world.prompt, &what, read_out(&mut *near_rx)).await?;
        expect_reset(world, seen, code, &what)?;
    }
    Ok(())
}

/// Lets a future wait in a task of its own, which polls it again only when it is woken.
async fn waiting<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let task = tokio::spawn(future);
    yield_now().await;
    task
}

/// What the task of [`waiting`] gives.
async fn woken<T>(world: &World, what: &str, task: JoinHandle<T>) -> Verdict<T> {
    within(world.prompt, what, task).await?.or_seen(what)
}

fn expect_reset(world: &World, seen: Result<usize, RecvError>, code: StreamCode, what: &str) -> Verdict {
    match seen {
        Err(RecvError::Reset(seen)) if seen == code || !world.far.capabilities().reset_codes => Ok(()),
        Ok(received) => Err(Seen(format!("{what} was seen as a clean end after {received} bytes"))),
        Err(other) => Err(Seen(format!("{what} was seen as: {other}"))),
    }
}

pub(super) async fn law_06_drop(harness: &dyn Harness, first: Side) -> Verdict {
    let world = World::new(harness, first).await?;
    for state in State::ALL {
        let (near, mut far) = stream_in(&world, harness, state).await?;
        drop(near.tx);
        let what = format!("the drop of a sender that is {state:?}");
        let seen = within(world.prompt, &what, read_out(&mut *far.rx)).await?;
        expect_reset(&world, seen, StreamCode::CANCELLED, &what)?;

        let (mut near, far) = stream_in(&world, harness, state).await?;
        drop(far.rx);
        let what = format!("the drop of a receiver of a stream that is {state:?}");
        let code = within(world.prompt, &what, near.tx.stopped()).await?.or_seen(&what)?;
        let expected = code == StreamCode::CANCELLED || !world.near.capabilities().reset_codes;
        ensure!(expected, "{what} was seen as a stop with {code}");

        // Both halves of the side that accepted, which has sent nothing.
        let (mut near, far) = stream_in(&world, harness, state).await?;
        drop(far);
        let what = format!("the drop of a stream that is {state:?}");
        let seen = within(world.prompt, &what, read_out(&mut *near.rx)).await?;
        expect_reset(&world, seen, StreamCode::CANCELLED, &what)?;
    }
    if world.can_open() {
        unanswered(&world).await?;
    }
    world.no_streams().await?;
    last_handle(world).await
}

/// A stream that is dropped without an answer is refused.
async fn unanswered(world: &World) -> Verdict {
    refused(world, Refusal::new(RefusalKind::ProxyInternalError, ""), drop).await
}

/// A connection whose last handle is dropped is closed, even if a stream is still held.
async fn last_handle(world: World) -> Verdict {
    let is_own = world.is_own();
    let (mut held, _far) = world.stream().await?;
    let World { near, far, prompt, .. } = world;
    drop(near);
    let error = within(
        prompt,
        "the end of a connection whose last handle was dropped",
        far.closed(),
    )
    .await?;
    ensure!(
        matches!(
            &error,
            ConnectionError::Closed {
                initiator: Initiator::Remote,
                code,
                ..
            } if *code == CloseCode::DONE || (*code == CloseCode::DRAINED && !is_own)
        ),
        "the drop of the last handle was seen as: {error}"
    );
    let after = within(prompt, "receiving on a connection that is closed", held.rx.recv(CHUNK)).await?;
    ensure!(
        matches!(after, Err(RecvError::Connection(_))),
        "a stream outlived its connection: {after:?}"
    );
    Ok(())
}
