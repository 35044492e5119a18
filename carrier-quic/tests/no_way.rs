//! Systems that take no packet: a dial says so, what is connected waits for better times.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{error::Error as _, io, sync::Arc, time::Duration};

use carrier_quic::QuicConfig;
use common::{AGENT, SERVER, World, net::Link};
use tokio::time::{Instant, sleep, timeout};
use tunnel_core::{Carrier, Connection, DialError};
use tunnel_testkit::ends::{Ends, Verdict, claim, stream};

/// Errors of Linux's sendmsg(2), which mean other things elsewhere; that makes no difference here. No permission is
/// what a firewall gives.
const EPERM: i32 = 1;
const ENETUNREACH: i32 = 101;
const EHOSTUNREACH: i32 = 113;

/// A bound that none of this may wait for.
const DIAL: Duration = Duration::from_secs(10);

fn world() -> World {
    World::new(QuicConfig::default(), Link::default())
}

async fn connects(world: &mut World) {
    let verdict = Verdict::default();
    let (agent, server) = timeout(DIAL, world.attempt(&verdict)).await.unwrap();
    let _ = stream(&(agent.unwrap() as Arc<dyn Connection>), &server.unwrap()).await;
}

fn assert_says(error: &DialError, errno: i32) {
    assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
    let said = error.source().unwrap().to_string();
    assert_eq!(said, io::Error::from_raw_os_error(errno).to_string());
    assert!(error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn a_dial_without_a_way_ends_soon_with_the_systems_words() {
    for errno in [EPERM, ENETUNREACH, EHOSTUNREACH] {
        let mut world = world();
        world.net.set_error(AGENT, Some(errno));
        let since = Instant::now();
        let error = world.carrier.dial(&claim(), since + DIAL).await.unwrap_err();
        assert!(since.elapsed() < Duration::from_millis(1_200), "{:?}", since.elapsed());
        assert_says(&error, errno);

        // The next one, with the same socket, has the same patience.
        let net = world.net.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(800)).await;
            net.set_error(AGENT, None);
        });
        connects(&mut world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_outlives_a_way_that_is_gone_for_most_of_a_second() {
    for gone in (0..950).step_by(50) {
        let mut world = world();
        world.net.set_error(AGENT, Some(ENETUNREACH));
        let net = world.net.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(gone)).await;
            net.set_error(AGENT, None);
        });
        connects(&mut world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_way_that_goes_while_the_server_is_silent_is_the_reason() {
    let world = world();
    world.net.set_silent(true);
    let net = world.net.clone();
    tokio::spawn(async move {
        sleep(Duration::from_millis(500)).await;
        net.set_error(AGENT, Some(ENETUNREACH));
    });
    let deadline = Instant::now() + DIAL;
    let error = world.carrier.dial(&claim(), deadline).await.unwrap_err();
    assert!(Instant::now() < deadline);
    assert_says(&error, ENETUNREACH);
}

#[tokio::test(start_paused = true)]
async fn a_connection_outlives_a_way_that_is_gone_for_a_while() {
    for end in [AGENT, SERVER] {
        let mut world = world();
        let (agent, server) = world.connect().await;
        world.net.set_error(end, Some(ENETUNREACH));
        sleep(Duration::from_secs(7)).await;
        world.net.set_error(end, None);
        let _ = stream(&server, &agent).await;
        let _ = stream(&agent, &server).await;
    }
}
