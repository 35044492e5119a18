//! How an agent connects, and connects again.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use tokio::time::{Instant, advance, sleep};
use tunnel_core::{
    Agent, AgentBuilder, AgentConfig, AgentOpenError, Carrier, CloseCode, CredentialSource, Generation, OpenError,
    RunningAgent, Secret, StreamHead, agent::ServerState,
};

use crate::{
    scripted::{
        Outcome::{self, Connected, Hangs, Refused, Rejected},
        Scripted,
    },
    support::{Site, id, metric, soon},
};

const SECOND: Duration = Duration::from_secs(1);

fn agent(servers: &[&[&Arc<Scripted>]], change: impl FnOnce(AgentBuilder) -> AgentBuilder) -> RunningAgent {
    let builder = servers.iter().fold(Agent::builder(id()), |builder, carriers| {
        let carriers = carriers.iter().map(|&carrier| Arc::clone(carrier) as Arc<dyn Carrier>);
        builder.server(carriers.collect())
    });
    change(builder).build().unwrap().start()
}

fn one(carrier: &Arc<Scripted>) -> RunningAgent {
    agent(&[&[carrier]], |builder| builder)
}

fn state(agent: &RunningAgent) -> ServerState {
    agent.status().servers.swap_remove(0).state
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_soon_has_its_agent_within_a_second() {
    for refusals in 1..12 {
        let start = Instant::now();
        let carrier = Scripted::new("quic", (0..refusals).map(|_| Refused));
        let agent = one(&carrier);
        soon(agent.connected()).await;
        let dialled = carrier.dialled(start);
        assert_eq!(dialled.len(), refusals + 1);
        assert!(dialled[1] <= Duration::from_millis(200), "{dialled:?}");
        let gaps = dialled.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.into_iter().all(|gap| gap <= SECOND), "{dialled:?}");
        let failures = "connect_failures_total{carrier=\"quic\",cause=\"unreachable\"}";
        assert_eq!(metric(&agent, failures), refusals as f64);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_server_shows_in_the_status() {
    let carrier = Scripted::new("quic", [Rejected(CloseCode::UNAUTHORIZED, None)]);
    let agent = one(&carrier);
    sleep(SECOND).await;
    let status = agent.status();
    let server = &status.servers[0];
    assert_eq!(server.remotes, ["quic://gw.example"]);
    let error = server.last_error.as_ref().unwrap();
    assert_eq!(
        error.text,
        "quic://gw.example rejected this agent: no (unauthorized (0x6))"
    );
    assert!((SECOND / 2..=SECOND).contains(&error.ago));
    match server.state {
        ServerState::Waiting { next_try, .. } => {
            assert!((9 * SECOND..=30 * SECOND).contains(&next_try), "{next_try:?}")
        }
        ref other => panic!("{other:?}"),
    }
    assert!(!agent.is_connected());
}

#[tokio::test(start_paused = true)]
async fn what_needs_a_change_is_retried_slowly_until_somebody_says_that_it_has_changed() {
    let rejections = [CloseCode::UNAUTHORIZED, CloseCode::FORBIDDEN, CloseCode::VERSION];
    let start = Instant::now();
    let carrier = Scripted::new("quic", rejections.map(|code| Rejected(code, None)));
    let agent = one(&carrier);
    sleep(70 * SECOND).await;
    let dialled = carrier.dialled(start);
    assert!((3..=4).contains(&dialled.len()), "{dialled:?}");
    assert!(
        dialled.windows(2).all(|pair| pair[1] - pair[0] >= 10 * SECOND),
        "{dialled:?}"
    );
    drop(agent);

    let carrier = Scripted::new("quic", [Rejected(CloseCode::UNAUTHORIZED, None)]);
    let agent = one(&carrier);
    sleep(SECOND).await;
    agent.redial();
    sleep(Duration::from_millis(1)).await;
    assert!(agent.is_connected());
}

#[tokio::test(start_paused = true)]
async fn what_changes_during_an_attempt_spares_the_wait_after_it() {
    let start = Instant::now();
    let carrier = Scripted::new("quic", [Refused, Refused, Refused, Refused, Hangs, Refused, Refused]);
    let agent = one(&carrier);
    while carrier.dialled(start).len() < 5 {
        sleep(SECOND / 1000).await;
    }
    agent.redial();
    while carrier.dialled(start).len() < 6 {
        sleep(SECOND / 1000).await;
    }
    let dialled = carrier.dialled(start);
    // The limit of the attempt, and no wait.
    let gap = dialled[5] - dialled[4];
    assert!((10 * SECOND..10 * SECOND + SECOND / 100).contains(&gap), "{dialled:?}");
}

#[tokio::test(start_paused = true)]
async fn connecting_may_take_all_the_time_there_is() {
    let mut config = AgentConfig::default();
    (config.connect_timeout, config.fallback_after) = (Duration::MAX, Duration::MAX);
    let carrier = Scripted::new("quic", []);
    let agent = agent(&[&[&carrier]], |builder| builder.config(config));
    soon(agent.connected()).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_can_keep_its_agents_away() {
    let start = Instant::now();
    let away = Some(60 * SECOND);
    let carrier = Scripted::new("quic", [Rejected(CloseCode::OVERLOADED, away)]);
    let other = Scripted::new("h2", []);
    let agent = agent(&[&[&carrier, &other]], |builder| builder);
    agent.connected().await;
    let dialled = carrier.dialled(start);
    assert!((60 * SECOND..=75 * SECOND).contains(&dialled[1]), "{dialled:?}");
    // The server has said no; it would not say yes by another carrier.
    assert!(other.dialled(start).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_healthy_connection_that_is_lost_is_replaced_at_once() {
    let carrier = Scripted::new("quic", []);
    let agent = one(&carrier);
    for number in 0..5 {
        let connection = soon(carrier.connection(number)).await;
        sleep(11 * SECOND).await;
        let lost = Instant::now();
        connection.lose();
        soon(carrier.connection(number + 1)).await;
        assert!(lost.elapsed() <= Duration::from_millis(60), "{:?}", lost.elapsed());
    }
    sleep(SECOND).await;
    assert!(agent.is_connected());
    let ended = "connections_ended_total{carrier=\"quic\",by=\"network\",reason=\"transport\"}";
    assert_eq!(metric(&agent, ended), 5.0);
    assert_eq!(metric(&agent, "connections{carrier=\"quic\"}"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn connections_that_do_not_last_are_backed_off_from() {
    let start = Instant::now();
    let carrier = Scripted::new("quic", []);
    let _agent = one(&carrier);
    let mut number = 0;
    while start.elapsed() < 600 * SECOND {
        carrier.connection(number).await.lose();
        number += 1;
    }
    // About twenty in the first ten seconds, then one every fifteen.
    assert!((30..=100).contains(&carrier.connections()), "{}", carrier.connections());
}

#[tokio::test(start_paused = true)]
async fn the_next_connection_comes_before_a_draining_one_has_ended() {
    let carrier = Scripted::new("quic", []);
    let agent = one(&carrier);
    let old = soon(carrier.connection(0)).await;
    sleep(20 * SECOND).await;
    let asked = Instant::now();
    old.drain_by_server();
    soon(carrier.connection(1)).await;
    sleep(Duration::from_millis(1)).await;
    assert!(asked.elapsed() <= Duration::from_millis(60));
    assert!(old.end().is_none(), "it goes on serving its streams");
    let server = agent.status().servers.swap_remove(0);
    assert!(matches!(server.state, ServerState::Connected { since, .. } if since < SECOND));
    assert_eq!(server.draining_connections, 1);
    assert_eq!(metric(&agent, "connections{carrier=\"quic\"}"), 2.0);
    old.lose();
    sleep(SECOND).await;
    assert_eq!(agent.status().servers[0].draining_connections, 0);
    assert_eq!(carrier.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_end_was_announced_is_drained_when_the_next_one_is_up() {
    let carrier = Scripted::new("grpc", [Connected, Refused, Outcome::Slow(2 * SECOND)]);
    let _agent = one(&carrier);
    let old = soon(carrier.connection(0)).await;
    sleep(20 * SECOND).await;
    old.announce_its_end();
    sleep(SECOND).await;
    assert!(!old.is_drained_by_agent(), "it serves what comes meanwhile");
    let new = carrier.connection(1).await;
    sleep(Duration::from_millis(1)).await;
    assert!(old.is_drained_by_agent());
    assert!(!new.is_drained_by_agent());
    assert!(old.end().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_next_carrier_is_tried_when_one_fails_or_is_slow() {
    for (first, within) in [(Refused, 0), (Hangs, 4), (Rejected(CloseCode::UNAUTHORIZED, None), 0)] {
        let start = Instant::now();
        let (best, other) = (Scripted::new("quic", [first]), Scripted::new("h2", []));
        let agent = agent(&[&[&best, &other]], |builder| builder);
        soon(agent.connected()).await;
        assert_eq!(start.elapsed().as_secs(), within);
        match state(&agent) {
            ServerState::Connected { carrier, remote, .. } => {
                assert_eq!((carrier, &*remote), ("h2", "h2://gw.example"))
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_carrier_s_failure_is_told() {
    let (best, other) = (Scripted::new("quic", [Hangs]), Scripted::new("h2", [Hangs]));
    let agent = agent(&[&[&best, &other]], |builder| builder);
    sleep(14 * SECOND + Duration::from_millis(1)).await;
    let error = agent.status().servers.swap_remove(0).last_error.unwrap();
    assert_eq!(
        error.text,
        "quic://gw.example did not answer in time; h2://gw.example did not answer in time"
    );
}

#[tokio::test(start_paused = true)]
async fn one_server_met_twice_is_told_and_kept() {
    let (one, two) = (Scripted::new("quic", []), Scripted::new("quic", []));
    let agent = agent(&[&[&one], &[&two]], |builder| builder);
    sleep(SECOND).await;
    let same: Vec<_> = agent.status().servers.iter().map(|server| server.same_as).collect();
    assert_eq!(same, [None, Some(0)]);
    assert_eq!(agent.connections().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_unreachable_server_does_not_hold_up_another() {
    let (dead, alive) = (Scripted::new("quic", (0..9).map(|_| Hangs)), Scripted::new("quic", []));
    let agent = agent(&[&[&dead], &[&alive]], |builder| builder);
    soon(agent.connected()).await;
    assert_eq!(state(&agent), ServerState::Connecting);
    assert_eq!(agent.connections().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_credential_is_asked_for_before_every_dial() {
    let carrier = Scripted::new("quic", [Refused, Refused]);
    let count = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&count);
    let source = CredentialSource::new(move || match asked.fetch_add(1, Ordering::SeqCst) {
        1 => Err(io::Error::from(io::ErrorKind::NotFound)),
        n => Secret::new(format!("token {n}")).map_err(io::Error::other),
    });
    let agent = agent(&[&[&carrier]], |builder| {
        builder.credential(source).generation(Generation(7))
    });
    soon(agent.connected()).await;
    let claims = carrier.claims();
    let shown = claims.iter().map(|claim| claim.credential.as_ref().unwrap().expose());
    assert_eq!(shown.collect::<Vec<_>>(), [b"token 0", b"token 2", b"token 3"]);
    assert!(
        claims
            .iter()
            .all(|claim| claim.generation == Generation(7) && claim.agent == id())
    );
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_does_not_come_fails_the_attempt_and_no_other() {
    let start = Instant::now();
    let carrier = Scripted::new("quic", []);
    let (release, hangs) = mpsc::sync_channel::<()>(0);
    let (hangs, count) = (Mutex::new(hangs), AtomicUsize::new(0));
    let source = CredentialSource::new(move || {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            let _ = hangs.lock().unwrap().recv();
        }
        Secret::new("token").map_err(io::Error::other)
    });
    let agent = agent(&[&[&carrier]], |builder| builder.credential(source));
    let error = || agent.status().servers.swap_remove(0).last_error;
    // Time does not pass by itself while a thread blocks.
    while error().is_none() {
        assert!(start.elapsed() < 60 * SECOND);
        advance(SECOND / 10).await;
    }
    let waited = start.elapsed();
    assert!(10 * SECOND <= waited && waited < 11 * SECOND, "{waited:?}");
    assert_eq!(
        error().unwrap().text,
        "the source of the credential did not give it within 10s"
    );
    // It is dialled again, and another thread gives the credential in its own time.
    while !matches!(state(&agent), ServerState::Connected { .. }) {
        assert!(start.elapsed() < 60 * SECOND);
        tokio::task::spawn_blocking(|| {}).await.unwrap();
        advance(SECOND / 100).await;
    }
    drop(release);
    assert_eq!(carrier.claims()[0].credential.as_ref().unwrap().expose(), b"token");
}

#[tokio::test(start_paused = true)]
async fn a_drained_agent_connects_no_more() {
    let start = Instant::now();
    let lost: [Outcome; 1] = [Connected];
    let carrier = Scripted::new("quic", lost);
    let agent = one(&carrier);
    let connection = soon(carrier.connection(0)).await;
    agent.drain();
    sleep(SECOND).await;
    assert!(connection.is_drained_by_agent() && agent.is_draining());
    assert!(connection.end().is_none());
    assert_eq!(state(&agent), ServerState::Ended);
    connection.lose();
    sleep(100 * SECOND).await;
    assert_eq!(carrier.dialled(start).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_everything() {
    let carrier = Scripted::new("quic", []);
    let agent = one(&carrier);
    let connection = soon(carrier.connection(0)).await;
    sleep(SECOND).await;
    let other = agent.clone();
    drop(agent);
    sleep(SECOND).await;
    assert!(connection.end().is_none());
    drop(other);
    sleep(SECOND).await;
    assert_eq!(connection.end().unwrap().code(), Some(CloseCode::SHUTDOWN));
    assert_eq!(
        Arc::strong_count(&connection),
        2,
        "the test and its carrier alone hold it"
    );
}

#[tokio::test(start_paused = true)]
async fn opening_a_stream_needs_a_connection() {
    let carrier = Scripted::new("quic", [Refused]);
    let agent = one(&carrier);
    let head = StreamHead::new("tcp://x:1".parse().unwrap());
    assert!(matches!(
        agent.open(head.clone()).await,
        Err(AgentOpenError::NotConnected)
    ));
    soon(agent.connected()).await;
    assert!(matches!(
        agent.open(head).await,
        Err(AgentOpenError::Open(OpenError::Draining))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_cut_wire_is_mended_within_a_second_of_its_return() {
    let site = Site::new("a");
    let agent = site.agent(|builder| builder).await;
    sleep(20 * SECOND).await;
    for outage in [0, 1, 3, 8] {
        site.carrier.wire().cut();
        sleep(outage * SECOND).await;
        let returned = Instant::now();
        site.carrier.wire().restore();
        soon(agent.connected()).await;
        soon(site.server.wait_for(&id())).await;
        assert!(
            returned.elapsed() <= SECOND,
            "{:?} after {outage} s",
            returned.elapsed()
        );
        sleep(20 * SECOND).await;
    }
}
