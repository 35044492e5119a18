//! Streams that this end opens.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use tokio::{task::yield_now, time::timeout};
use tunnel_proto::{Refusal, RefusalKind};

use super::{PROMPT, World, head, settle};
use crate::error::OpenError;

/// Polls a future so many times at most, whether it was woken or not, and drops it.
async fn poll_at_most<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(out) = polled {
            return Some(out);
        }
        yield_now().await;
    }
    None
}

#[tokio::test(start_paused = true)]
async fn an_open_dropped_at_any_poll_leaves_nothing_behind() {
    let world = World::with(|config| config.max_streams(1));
    let server = Arc::clone(&world.server);
    let acceptor = tokio::spawn(async move {
        while let Ok(inbound) = server.accept().await {
            // An answer that takes a while.
            settle().await;
            let accepted = inbound.accept().await;
            tokio::spawn(async move {
                let _ = accepted?.rx.recv(1).await;
                Ok::<_, OpenError>(())
            });
        }
    });
    let mut completed = false;
    for polls in 0..100 {
        let opened = poll_at_most(polls, world.agent.open(head("dropped"))).await;
        completed = opened.is_some();
        drop(opened);
        tokio::time::sleep(4 * PROMPT).await;
        assert_eq!(world.agent.stats().streams_open, 0, "after {polls} polls");
        assert_eq!(world.server.stats().streams_open, 0, "after {polls} polls");
        // The only place is free again.
        let again = timeout(4 * PROMPT, world.agent.open(head("again"))).await;
        drop(
            again
                .unwrap_or_else(|_| panic!("no place after {polls} polls"))
                .unwrap(),
        );
        tokio::time::sleep(4 * PROMPT).await;
        if completed {
            break;
        }
    }
    acceptor.abort();
    assert!(completed || poll_at_most(1, world.agent.draining()).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_place_get_it_in_order() {
    let world = World::with(|config| config.max_streams(1));
    let first = world.stream().await;
    let mut opening = Vec::new();
    for index in 0..6 {
        let agent = Arc::clone(&world.agent);
        let name = format!("waits-{index}");
        opening.push(tokio::spawn(async move { agent.open(head(&name)).await }));
        yield_now().await;
    }
    // Two that have gone away hold nobody up: one that has the turn, and one in the middle.
    opening.remove(3).abort();
    opening.remove(0).abort();
    drop(first);
    for expected in [1, 2, 4, 5] {
        let inbound = timeout(PROMPT, world.server.accept()).await.unwrap().unwrap();
        assert_eq!(inbound.head(), &head(&format!("waits-{expected}")));
        let far = inbound.accept().await.unwrap();
        let near = timeout(PROMPT, opening.remove(0)).await.unwrap().unwrap().unwrap();
        assert_eq!(world.agent.stats().streams_open, 1);
        drop((near, far));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_reaches_the_opener() {
    let world = World::new();
    for refusal in [
        Refusal::new(RefusalKind::ConnectionRefused, "connect to 192.0.2.7:80"),
        Refusal::new(
            RefusalKind::ProxyInternalError,
            "the stream was given up without an answer",
        ),
    ] {
        let (opened, ()) = tokio::join!(world.agent.open(head("refused")), async {
            let inbound = world.server.accept().await.unwrap();
            if refusal.kind == RefusalKind::ProxyInternalError {
                drop(inbound);
            } else {
                inbound.refuse(refusal.clone());
            }
        });
        match opened {
            Err(OpenError::Refused(seen)) => assert_eq!(seen, refusal),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.agent.stats().streams_open, 0);
    assert_eq!(world.server.stats().streams_open, 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_who_waits_for_a_place_outlives_a_drain() {
    let world = World::with(|config| config.max_streams(1));
    let _held = world.stream().await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let agent = Arc::clone(&world.agent);
            tokio::spawn(async move { agent.open(head("waits")).await })
        })
        .collect();
    settle().await;
    world.server.drain();
    timeout(PROMPT, world.agent.draining()).await.unwrap();
    for open in waiting {
        let opened = timeout(PROMPT, open).await.unwrap().unwrap();
        assert!(matches!(opened, Err(OpenError::Draining)), "{opened:?}");
    }
}
