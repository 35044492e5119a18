//! A call is at home with its HTTP/2 connection.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::{sync::Arc, time::Duration};

use carrier_grpc::GrpcConfig;
use common::World;
use tokio::time::{Instant, timeout};
use tunnel_core::{Carrier as _, Claim, Generation, Listener as _};
use tunnel_testkit::{OtherThread, sim::Profile};

#[tokio::test]
async fn each_connection_gets_a_thread() {
    let (others, threads) = OtherThread::several::<2>();
    let World {
        mut listener, carrier, ..
    } = World::new(Profile::default(), GrpcConfig::default());
    listener.divide(&threads);
    let carrier = Arc::new(carrier);
    let mut calls = Vec::new();
    for name in ["a", "b", "c"] {
        let (carrier, claim) = (Arc::clone(&carrier), Claim::new(name.parse().unwrap(), Generation(1)));
        let deadline = Instant::now() + Duration::from_secs(60);
        tokio::spawn(async move { carrier.dial(&claim, deadline).await });
        let call = timeout(Duration::from_secs(20), listener.accept()).await;
        calls.push(call.unwrap().unwrap());
    }
    let homes: Vec<_> = calls.iter().map(|call| call.home().unwrap().id()).collect();
    let ids = others.each_ref().map(|other| other.runtime().id());
    assert_eq!(homes, [ids[0], ids[1], ids[0]]);
}
