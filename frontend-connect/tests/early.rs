//! Clients that do not wait for the 200 before they speak.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use frontend_connect::Metrics;
use prometheus_client::{encoding::text, registry::Registry};
use support::{REQUEST, Running, config, read_200, read_to_end, soon, status};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tunnel_core::RefusalKind;

/// Longer than any test takes.
const FOREVER: Duration = Duration::from_secs(3600);

/// A client that sends these bytes with its request.
async fn pipelines(frontend: &Running, early: &[u8]) -> TcpStream {
    let mut client = frontend.connect().await;
    client.write_all(&[REQUEST, early].concat()).await.unwrap();
    client
}

#[tokio::test]
async fn what_comes_with_the_request_goes_with_the_open_and_the_rest_behind_it() {
    let mut frontend = Running::tcp(config()).await;
    for most in 0..=5 {
        let mut client = pipelines(&frontend, b"early").await;
        let dial = frontend.dial().await;
        assert_eq!(dial.request.early, "early");
        client.write_all(b", and more").await.unwrap();
        let mut far = dial.accept_with(most).into_io();
        read_200(&mut client).await;
        client.write_all(b", and the rest").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut far).await, "early, and more, and the rest");
    }
}

#[tokio::test]
async fn a_client_that_has_spoken_need_not_speak_again_to_hear_the_target() {
    let mut config = config();
    config.hold = FOREVER;
    let mut frontend = Running::tcp(config).await;
    for most in [0, 5] {
        let mut client = pipelines(&frontend, b"early").await;
        let mut far = frontend.dial().await.accept_with(most).into_io();
        let mut early = [0; 5];
        soon(far.read_exact(&mut early)).await.unwrap();
        assert_eq!(&early, b"early");
        far.write_all(b"answer").await.unwrap();
        far.shutdown().await.unwrap();
        read_200(&mut client).await;
        assert_eq!(read_to_end(&mut client).await, "answer");
    }
}

#[tokio::test]
async fn a_client_that_speaks_with_its_request_can_read_why_it_is_refused() {
    let mut frontend = Running::tcp(config()).await;
    // Read with the request; held until the answer; more than that, and on its way when the answer comes.
    for size in [100, 20_000, 1_000_000] {
        let (mut read, mut write) = frontend.connect().await.into_split();
        let sender = tokio::spawn(async move { write.write_all(&[REQUEST, &vec![7; size]].concat()).await });
        frontend.dial().await.refuse(RefusalKind::ConnectionRefused, "no");
        let response = read_to_end(&mut read).await;
        assert_eq!(status(&response), 502, "{response}");
        soon(sender).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn bytes_that_went_with_the_open_are_counted_once() {
    let metrics = Metrics::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut frontend = Running::with_metrics(config(), metrics).await;
    for most in [0, 3, 5] {
        let mut client = pipelines(&frontend, b"early").await;
        let mut far = frontend.dial().await.accept_with(most).into_io();
        read_200(&mut client).await;
        client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut far).await, "early");
        far.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut client).await, "");
    }
    frontend.shutdown.drain.cancel();
    soon(frontend.task).await.unwrap();
    let mut all = String::new();
    text::encode(&mut all, &registry).unwrap();
    let line = r#"frontend_bytes_total{frontend="connect",direction="to_target"} 15"#;
    assert!(all.contains(line), "{line} is not in {all}");
}
