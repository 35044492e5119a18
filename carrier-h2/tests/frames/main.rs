//! Frames that break HTTP/2 (RFC 9113), sent to both ends of a connection and to bare ends of the `h2` crate: what is
//! built on it may be stricter, and never laxer. The cases are our own, and those of h2spec.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

#[path = "../common/mod.rs"]
mod common;

mod bare;
mod cases;
#[cfg(feature = "forward")]
mod h2spec;
mod outcome;

use carrier_h2::H2Config;
use common::{World, raw};

use self::{
    cases::{Case, begin_as_client, begin_as_server, of_clients, of_either, of_servers},
    outcome::{Outcome, provoke},
};

/// What breaks a rule, and h2 does not mind.
const BORNE: [&str; 3] = [
    "trailers with a pseudo-header (§8.1)",
    "CONNECT to nowhere (§8.5)",
    "SETTINGS: a server that wants pushes (§6.5.2)",
];

/// Says in which cases an end of ours is laxer than a bare one.
fn compare(results: Vec<(Case, Outcome, Outcome)>) {
    let lax: Vec<_> = results
        .iter()
        .filter(|(_, bare, ours)| !ours.is_as_strict_as(bare))
        .map(|(case, bare, ours)| format!("{}: {ours:?}, and h2 by itself: {bare:?}", case.what))
        .collect();
    assert!(lax.is_empty(), "{}", lax.join("\n"));
    // Nothing above would mean anything if all were borne, or nothing.
    for (case, bare, ours) in &results {
        let fine = case.is_fine();
        let borne = fine || BORNE.contains(&case.what);
        assert_eq!(bare.is_fine(), borne, "{}, h2 by itself: {bare:?}", case.what);
        assert!(!fine || ours.is_fine(), "{}: {ours:?}", case.what);
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_bears_no_more_than_a_server_of_h2() {
    let mut results = Vec::new();
    for case in of_either().into_iter().chain(of_clients()) {
        let bare = provoke(bare::server(&begin_as_client()).await, &case.bytes).await;
        let (io, agent) = raw::server(&begin_as_client()).await;
        let agent = agent.unwrap();
        let ours = provoke(io, &case.bytes).await;
        drop(agent);
        results.push((case, bare, ours));
    }
    compare(results);
}

#[tokio::test(start_paused = true)]
async fn a_server_bears_no_more_than_a_client_of_h2() {
    let mut results = Vec::new();
    for case in of_either().into_iter().chain(of_servers()) {
        let bytes = [begin_as_server(), case.bytes.clone()].concat();
        let bare = provoke(bare::client().await, &bytes).await;
        let mut world = World::plain(H2Config::default());
        let (io, server) = raw::agent(&mut world).await;
        let ours = provoke(io, &bytes).await;
        drop(server);
        results.push((case, bare, ours));
    }
    compare(results);
}
