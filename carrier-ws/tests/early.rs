//! Bytes that go with an open save the round trip of its answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::time::Duration;

use carrier_ws::WsConfig;
use common::World;
use tunnel_testkit::{
    ends::{Ends, round_trips},
    sim::{Net, Profile},
};

const LATENCY: Duration = Duration::from_millis(10);

#[tokio::test(start_paused = true)]
async fn a_round_trip_is_saved() {
    let net = Net::new(Profile::new(LATENCY, 20_000_000));
    let mut world = World::on(&net, None, WsConfig::default());
    let (agent, server) = world.connect().await;
    assert_eq!(round_trips(&server, &agent, 2 * LATENCY).await, [2, 1]);
    assert_eq!(round_trips(&agent, &server, 2 * LATENCY).await, [2, 1]);
}
