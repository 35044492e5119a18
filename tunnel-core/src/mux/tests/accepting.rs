//! Streams that the peer opens.

use std::{future::Future, pin::pin, sync::Arc, task::Context};

use tokio::time::timeout;

use super::{PROMPT, World, head, settle};
use crate::error::OpenError;

#[tokio::test(start_paused = true)]
async fn an_accept_that_goes_away_leaves_the_stream_to_another() {
    let world = World::new();
    let opening = {
        let agent = Arc::clone(&world.agent);
        tokio::spawn(async move { agent.open(head("stream")).await })
    };
    let inbound = {
        let mut first = Box::pin(world.server.accept());
        let mut second = pin!(world.server.accept());
        // Both wait; the stream is the first's when it comes.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(first.as_mut().poll(&mut cx).is_pending());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        settle().await;
        drop(first);
        timeout(PROMPT, second).await.unwrap().unwrap()
    };
    assert_eq!(inbound.head(), &head("stream"));
    inbound.accept().await.unwrap();
    opening.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_place_comes_back_only_when_accept_has_seen_the_stream() {
    let world = World::with(|config| config.max_streams(2));
    for _ in 0..2 {
        let given_up = timeout(PROMPT, world.agent.open(head("given-up"))).await;
        assert!(given_up.is_err(), "nobody has answered");
    }
    settle().await;
    assert_eq!(world.server.stats().streams_open, 0);
    let opening = {
        let agent = Arc::clone(&world.agent);
        tokio::spawn(async move { agent.open(head("late")).await })
    };
    settle().await;
    assert_eq!(world.agent.stats().streams_open, 0, "the places are taken still");

    // Those that were given up are not worth an answer, but they have been seen.
    let inbound = timeout(PROMPT, world.server.accept()).await.unwrap().unwrap();
    assert_eq!(inbound.head(), &head("late"));
    inbound.accept().await.unwrap();
    opening.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_holds_a_stream_learns_that_it_was_given_up() {
    let world = World::new();
    let opening = {
        let agent = Arc::clone(&world.agent);
        tokio::spawn(async move { agent.open(head("given-up")).await })
    };
    let mut inbound = world.server.accept().await.unwrap();
    assert!(timeout(PROMPT, inbound.cancelled()).await.is_err());
    opening.abort();
    timeout(PROMPT, inbound.cancelled()).await.unwrap();
    let accepted = inbound.accept().await;
    assert!(matches!(accepted, Err(OpenError::Reset(_))), "{accepted:?}");
    assert_eq!(world.server.stats().streams_open, 0);
}
