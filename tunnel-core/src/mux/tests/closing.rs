//! How a connection ends.

use std::{error::Error, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tunnel_proto::{CloseCode, Keepalive};

use super::{
    PROMPT, World, head, settle,
    wire::{DOWN, End, UP},
};
use crate::{
    error::{ConnectionError, Initiator, OpenError, RecvError, SendError},
    stream::Duplex,
};

/// Everything that can wait on an agent's end, each in a task that is polled only when it is woken.
async fn everything_waits(world: &World) -> JoinSet<ConnectionError> {
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        let Duplex { mut tx, mut rx } = {
            let (near, far) = world.stream().await;
            // Held to the end: only the connection is to end the stream.
            tasks.spawn(async move {
                let Duplex { tx: _tx, mut rx } = far;
                std::future::poll_fn(|cx| rx.poll_reset(cx).map(drop)).await;
                unreachable!("nobody resets it")
            });
            near
        };
        tasks.spawn(async move {
            match rx.recv(1).await {
                Err(RecvError::Connection(error)) => error,
                other => panic!("{other:?}"),
            }
        });
        tasks.spawn(async move {
            loop {
                match tx.send_all(vec![0; 1 << 20].into()).await {
                    Ok(()) => {}
                    Err(SendError::Connection(error)) => return error,
                    other => panic!("{other:?}"),
                }
            }
        });
        let agent = Arc::clone(&world.agent);
        tasks.spawn(async move { agent.accept().await.unwrap_err() });
        let agent = Arc::clone(&world.agent);
        tasks.spawn(async move {
            match agent.open(head("waits")).await {
                Err(OpenError::Connection(error)) => error,
                other => panic!("{other:?}"),
            }
        });
        let agent = Arc::clone(&world.agent);
        tasks.spawn(async move { agent.closed().await });
    }
    let agent = Arc::clone(&world.agent);
    tasks.spawn(async move {
        agent.draining().await;
        agent.closed().await
    });
    settle().await;
    tasks
}

/// How many of the tasks wait for the end.
const WAITING: usize = 11;

async fn expect_all(mut tasks: JoinSet<ConnectionError>, expected: impl Fn(&ConnectionError) -> bool) {
    for _ in 0..WAITING {
        let error = timeout(PROMPT, tasks.join_next()).await.unwrap().unwrap().unwrap();
        assert!(expected(&error), "{error:?}");
    }
}

fn limited() -> World {
    World::with(|config| config.max_streams(2))
}

#[tokio::test(start_paused = true)]
async fn a_close_fails_everything_that_waits() {
    let world = limited();
    let tasks = everything_waits(&world).await;
    world.agent.close(CloseCode::SHUTDOWN, "over");
    world.agent.close(CloseCode::DONE, "too late");
    let is_close = |error: &ConnectionError, initiator| {
        let code = error.code() == Some(CloseCode::SHUTDOWN);
        code && error.initiator() == initiator && error.to_string().ends_with("over")
    };
    expect_all(tasks, |error| is_close(error, Initiator::Local)).await;
    let error = timeout(PROMPT, world.server.closed()).await.unwrap();
    assert!(is_close(&error, Initiator::Remote), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_close_by_the_peer_fails_everything_that_waits() {
    let world = limited();
    let tasks = everything_waits(&world).await;
    world.server.close(CloseCode::REPLACED, "");
    let is_close =
        |error: &ConnectionError| error.code() == Some(CloseCode::REPLACED) && error.initiator() == Initiator::Remote;
    expect_all(tasks, is_close).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_fails_everything_that_waits_with_its_cause() {
    let world = limited();
    let tasks = everything_waits(&world).await;
    world.wire.end(DOWN, End::Cut);
    let is_cut = |error: &ConnectionError| {
        matches!(error, ConnectionError::Transport(_)) && error.source().is_some_and(|cause| cause.source().is_some())
    };
    expect_all(tasks, is_cut).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_ends_without_a_word_is_no_close() {
    let world = limited();
    let tasks = everything_waits(&world).await;
    world.wire.end(DOWN, End::Closed);
    expect_all(tasks, |error| matches!(error, ConnectionError::Transport(_))).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_noticed() {
    let keepalive = Keepalive {
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
    };
    let world = World::with(|config| config.max_streams(2).keepalive(keepalive));
    let tasks = everything_waits(&world).await;
    world.wire.stick(UP, true);
    world.wire.stick(DOWN, true);
    let start = Instant::now();
    let error = world.agent.closed().await;
    assert!(start.elapsed() <= keepalive.bound() + PROMPT, "{:?}", start.elapsed());
    assert!(matches!(error, ConnectionError::TimedOut { .. }), "{error:?}");
    expect_all(tasks, |error| matches!(error, ConnectionError::TimedOut { .. })).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_breaks_the_links_protocol_is_told() {
    let world = World::new();
    settle().await;
    world.wire.end(DOWN, End::Broken);
    let error = timeout(PROMPT, world.agent.closed()).await.unwrap();
    assert_eq!(
        (error.code(), error.initiator()),
        (Some(CloseCode::PROTOCOL), Initiator::Local)
    );
    let error = timeout(PROMPT, world.server.closed()).await.unwrap();
    assert_eq!(
        (error.code(), error.initiator()),
        (Some(CloseCode::PROTOCOL), Initiator::Remote)
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_closed_when_its_close_is_on_the_wire() {
    let world = World::new();
    settle().await;
    let sent = |world: &World| {
        let lane = &world.wire.lanes()[UP];
        lane.flushed.len() + lane.received
    };
    let before = sent(&world);
    world.wire.stick(UP, true);
    world.agent.close(CloseCode::DONE, "");
    assert!(timeout(Duration::from_millis(900), world.agent.closed()).await.is_err());
    world.wire.stick(UP, false);
    world.agent.closed().await;
    assert_eq!(sent(&world), before + 1);
    let error = timeout(PROMPT, world.server.closed()).await.unwrap();
    assert_eq!(error.code(), Some(CloseCode::DONE));
}

#[tokio::test(start_paused = true)]
async fn a_stuck_link_holds_a_close_up_for_a_second() {
    let world = World::new();
    settle().await;
    world.wire.stick(UP, true);
    let start = Instant::now();
    world.agent.close(CloseCode::DONE, "");
    // Whoever waits for a drain must not take this for one.
    tokio::select! {
        biased;
        _ = world.agent.closed() => {}
        () = world.agent.draining() => panic!("it seems to drain"),
    }
    assert_eq!(start.elapsed().as_secs(), 1);
    settle().await;
    assert_eq!(world.wire.ended(UP), Some(End::Dropped), "the task has ended");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_ends_the_link_keeps_the_task_for_a_second() {
    let world = World::new();
    settle().await;
    world.wire.stick(DOWN, true);
    world.agent.close(CloseCode::DONE, "");
    timeout(PROMPT, world.agent.closed()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(world.wire.links(), 0, "both tasks have let go of the link");
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_the_connection_but_not_its_streams() {
    let world = World::new();
    let (mut near, mut far) = world.stream().await;
    far.tx.send_all("on its way".into()).await.unwrap();
    settle().await;
    let World { agent, server, wire } = world;
    drop(agent);
    let error = timeout(PROMPT, server.closed()).await.unwrap();
    assert_eq!(
        (error.code(), error.initiator()),
        (Some(CloseCode::DONE), Initiator::Remote)
    );
    settle().await;
    assert_eq!(wire.links(), 0, "the tasks have ended at both ends");

    assert_eq!(near.rx.recv(100).await.unwrap().unwrap(), "on its way");
    let read = near.rx.recv(100).await;
    assert!(
        matches!(&read, Err(RecvError::Connection(error)) if error.initiator() == Initiator::Local),
        "{read:?}"
    );
    let sent = near.tx.send_all("more".into()).await;
    assert!(matches!(sent, Err(SendError::Connection(_))), "{sent:?}");
    let stopped = near.tx.stopped().await;
    assert!(matches!(stopped, Err(SendError::Connection(_))), "{stopped:?}");
    let sent = far.tx.send_all("more".into()).await;
    assert!(
        matches!(&sent, Err(SendError::Connection(error)) if error.initiator() == Initiator::Remote),
        "{sent:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_said_last_counts_more_than_that_it_takes_no_more() {
    let world = World::new();
    let (near, _far) = world.stream().await;
    settle().await;
    world.server.close(CloseCode::OVERLOADED, "");
    // The close is on the wire, and the peer has gone: whatever is sent now fails.
    world.server.closed().await;
    world.wire.end(UP, End::Cut);
    drop(near);
    let error = timeout(PROMPT, world.agent.closed()).await.unwrap();
    assert_eq!(error.code(), Some(CloseCode::OVERLOADED));
}

#[tokio::test(start_paused = true)]
async fn a_drained_connection_ends_with_its_last_stream() {
    let world = World::new();
    let (near, far) = world.stream().await;
    world.server.drain();
    settle().await;
    assert!(timeout(PROMPT, world.agent.closed()).await.is_err());
    drop((near, far));
    for end in [&world.agent, &world.server] {
        let error = timeout(PROMPT, end.closed()).await.unwrap();
        assert_eq!(error.code(), Some(CloseCode::DRAINED));
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_will_end_is_said_to_drain_and_carries_streams_until_it_is_drained() {
    let world = World::new();
    settle().await;
    assert!(timeout(PROMPT, world.agent.draining()).await.is_err());
    world.wire.ending.cancel();
    timeout(PROMPT, world.agent.draining()).await.unwrap();
    let streams = world.stream().await;
    assert!(timeout(PROMPT, world.server.draining()).await.is_err());
    world.agent.drain();
    timeout(PROMPT, world.server.draining()).await.unwrap();
    drop(streams);
    let error = timeout(PROMPT, world.server.closed()).await.unwrap();
    assert_eq!(error.code(), Some(CloseCode::DRAINED));
}

#[test]
fn a_runtime_that_shuts_down_takes_the_connection_with_it() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
    };
    let (own, other) = (runtime(), runtime());
    let (world, mut near, _far) = own.block_on(async {
        let world = World::new();
        let (near, far) = world.stream().await;
        (world, near, far)
    });
    drop(own);
    other.block_on(async {
        let error = timeout(Duration::from_secs(10), world.agent.closed()).await.unwrap();
        assert!(matches!(error, ConnectionError::Transport(_)), "{error:?}");
        assert!(matches!(near.rx.recv(1).await, Err(RecvError::Connection(_))));
        let sent = near.tx.send_all("more".into()).await;
        assert!(matches!(sent, Err(SendError::Connection(_))));
    });
}
