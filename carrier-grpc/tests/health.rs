//! The health service, as a client with the official description sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use common::{
    World,
    raw::{self, Call, Raw, RawReader},
};
use prost::Message as _;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tunnel_testkit::ends::Ends;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;
const SERVICE_UNKNOWN: i32 = 3;

async fn ask(raw: &mut Raw, method: &str, service: &str) -> Call {
    let path = format!("/grpc.health.v1.Health/{method}");
    let mut call = raw.send(raw::request("POST", &path, "application/grpc")).await;
    let request = Request {
        service: service.to_owned(),
    };
    let message = raw::message(0, &request.encode_to_vec());
    call.tx.send_data(message, true).unwrap();
    call
}

#[tokio::test(start_paused = true)]
async fn a_check_says_whether_calls_are_taken() {
    let mut world = World::plain();
    let (net, address) = (world.net.clone(), world.address.clone());
    let checks = async {
        let mut raw = Raw::new(&net, &address).await;
        for service in ["", "tunnel.v1.Tunnel"] {
            let (head, messages, trailers) = ask(&mut raw, "Check", service).await.whole().await;
            assert_eq!(
                (head.status().as_u16(), trailers["grpc-status"].as_bytes()),
                (200, &b"0"[..])
            );
            assert_eq!(head.headers()["content-type"], "application/grpc");
            let [message] = &messages[..] else {
                panic!("{messages:?}")
            };
            assert_eq!(Response::decode(message.clone()).unwrap().status, SERVING);
        }
        let (status, _) = ask(&mut raw, "Check", "other.Service").await.status().await;
        assert_eq!(status, "5");
    };
    world.serving(checks).await;
}

#[tokio::test(start_paused = true)]
async fn a_watcher_is_told_when_the_listener_goes() {
    let mut world = World::plain();
    let (net, address) = (world.net.clone(), world.address.clone());
    let watch = async {
        let mut raw = Raw::new(&net, &address).await;
        let known = ask(&mut raw, "Watch", "").await;
        let unknown = ask(&mut raw, "Watch", "other.Service").await;
        let mut watchers = Vec::new();
        for (call, status) in [(known, SERVING), (unknown, SERVICE_UNKNOWN)] {
            let mut reader = RawReader::new(call.response.await.unwrap().into_body());
            let first = reader.next().await.unwrap().expect("at once");
            assert_eq!(Response::decode(first).unwrap().status, status);
            assert!(timeout(Duration::from_secs(3600), reader.next()).await.is_err());
            watchers.push((reader, call.tx));
        }
        (raw, watchers)
    };
    let (_raw, mut watchers) = world.serving(watch).await;
    drop(world.listener);
    for ((reader, _), status) in watchers.iter_mut().zip([NOT_SERVING, SERVICE_UNKNOWN]) {
        let last = reader.next().await.unwrap().expect("a change");
        assert_eq!(Response::decode(last).unwrap().status, status);
        assert!(reader.next().await.unwrap().is_none(), "it ends then");
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_is_no_request_is_refused_in_time() {
    let mut world = World::plain();
    let (net, address) = (world.net.clone(), world.address.clone());
    let checks = async {
        let mut raw = Raw::new(&net, &address).await;
        let path = "/grpc.health.v1.Health/Check";
        for (data, is_last, status) in [
            (raw::message(1, b""), true, "3"),
            (raw::message(0, b"\x08\x01"), true, "3"),
            (raw::message(0, b"")[..4].to_vec().into(), true, "3"),
            (bytes::Bytes::new(), true, "3"),
            (bytes::Bytes::new(), false, "4"),
        ] {
            let mut call = raw.send(raw::request("POST", path, "application/grpc")).await;
            call.tx.send_data(data.clone(), is_last).unwrap();
            let since = Instant::now();
            let Call { tx: _open, response } = call;
            let headers = response.await.unwrap().headers().clone();
            assert_eq!(headers["grpc-status"], status, "{data:?}");
            assert!(since.elapsed() <= Duration::from_secs(11));
        }
    };
    world.serving(checks).await;
}
