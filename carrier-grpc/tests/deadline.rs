//! Calls that come with a deadline.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::time::Duration;

use common::{
    World,
    raw::{self, Call, Raw, RawEnd, claim_headers},
};
use http::{HeaderMap, HeaderValue};
use tokio::time::{Instant, sleep};
use tunnel_core::{Listener, proto::mux::Side};
use tunnel_testkit::ends::{Ends, claim, echo};

const DEADLINE_EXCEEDED: &str = "4";

fn headers(timeout: &'static str) -> HeaderMap {
    let mut headers = claim_headers(&claim());
    headers.insert("grpc-timeout", HeaderValue::from_static(timeout));
    headers
}

async fn watch(raw: &mut Raw, timeout: &'static str) -> Call {
    let mut request = raw::request("POST", "/grpc.health.v1.Health/Watch", "application/grpc");
    request
        .headers_mut()
        .insert("grpc-timeout", HeaderValue::from_static(timeout));
    let mut call = raw.send(request).await;
    call.tx.send_data(raw::message(0, b""), true).unwrap();
    call
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_ends_at_its_deadline_and_not_before() {
    let mut world = World::plain();
    let mut raw = Raw::new(&world.net, &world.address).await;
    let since = Instant::now();
    let (call, server) = tokio::join!(raw.call(headers("30S")), world.accept());
    let response = call.response.await.unwrap();
    let mut end = RawEnd::new(Side::Agent, call.tx, response.into_body());
    end.speak();
    while end.listen().await.unwrap() {
        // The keepalive goes on.
        end.speak();
    }
    let took = since.elapsed();
    assert!(
        took >= Duration::from_secs(30) && took < Duration::from_secs(31),
        "{took:?}"
    );
    let trailers = end.reader.trailers().await.unwrap();
    assert_eq!(trailers["grpc-status"], DEADLINE_EXCEEDED);
    assert!(end.mux.closed().is_none(), "a deadline is no close of the connection");
    // The client gives the rest of it up, as gRPC has it.
    drop(end);
    server.closed().await;
    assert!(since.elapsed() < Duration::from_secs(32));
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_nobody_accepts_is_refused_at_its_deadline() {
    let mut world = World::plain();
    let mut raw = Raw::new(&world.net, &world.address).await;
    let since = Instant::now();
    let answered = async { raw.call(headers("500m")).await.status().await };
    let waiting = async {
        let incoming = world.listener.accept().await.unwrap();
        sleep(Duration::from_secs(1)).await;
        drop(incoming);
    };
    let ((status, headers), ()) = tokio::join!(
        async {
            let answer = answered.await;
            assert!(since.elapsed() < Duration::from_millis(600), "{:?}", since.elapsed());
            answer
        },
        waiting
    );
    assert_eq!(status, DEADLINE_EXCEEDED);
    assert!(headers.contains_key("tunnel-rejection-bin"));
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_at_its_deadline() {
    let mut world = World::plain();
    let (net, address) = (world.net.clone(), world.address.clone());
    let watched = async {
        let mut raw = Raw::new(&net, &address).await;
        let since = Instant::now();
        let (_, messages, trailers) = watch(&mut raw, "5S").await.whole().await;
        assert_eq!(messages.len(), 1);
        assert_eq!(trailers["grpc-status"], DEADLINE_EXCEEDED);
        assert_eq!(since.elapsed().as_secs(), 5);
    };
    world.serving(watched).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_timeout_is_refused() {
    let mut world = World::plain();
    let (net, address) = (world.net.clone(), world.address.clone());
    let refused = async {
        let mut raw = Raw::new(&net, &address).await;
        let (status, headers) = raw.call(headers("1.5S")).await.status().await;
        assert_eq!(status, "3");
        assert!(headers.contains_key("tunnel-rejection-bin"));
        let (status, headers) = watch(&mut raw, "soon").await.status().await;
        assert_eq!(status, "3");
        assert!(!headers.contains_key("tunnel-rejection-bin"));
    };
    world.serving(refused).await;
    let (agent, server) = world.connect().await;
    echo(&agent, &server, 1000).await;
}
