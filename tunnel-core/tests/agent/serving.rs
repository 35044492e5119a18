//! Streams that servers open, and what becomes of them.

use crate::support::{Site, echo_target, id, metric, round_trip, soon, tcp};

#[tokio::test]
async fn a_stream_reaches_its_target() {
    let site = Site::new("a");
    let agent = site.agent(|builder| builder).await;
    let target = tcp(echo_target().await);
    for size in [0, 1, 300_000] {
        let io = soon(site.server.dial(id(), target.clone())).await.unwrap();
        round_trip(io, &vec![7; size]).await;
    }
    assert_eq!(metric(&agent, "streams_total{opener=\"server\"}"), 3.0);
    assert_eq!(
        metric(&agent, "stream_bytes_total{direction=\"from_server\"}"),
        300_001.0
    );
    assert_eq!(metric(&agent, "stream_bytes_total{direction=\"to_server\"}"), 300_001.0);
    assert_eq!(metric(&agent, "dial_duration_seconds_count{result=\"reached\"}"), 3.0);
}
