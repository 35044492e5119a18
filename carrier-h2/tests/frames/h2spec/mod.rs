//! h2spec, a program of others that tests servers of HTTP/2, with our ends that are such servers: the listener for plain
//! CONNECT, and the agent behind the upgrade.

mod ends;
mod relay;
mod report;

use tunnel_testkit::pki::Pki;

use self::{
    ends::{agent, listener, listener_with_tls, plain_h2},
    report::{End, judge},
};

/// About what there is of them, so that a report of nothing is none.
const CASES: usize = 130;

/// How often a case may fail again: it is a matter of time how much of a fault an end sees before it answers.
const ATTEMPTS: usize = 3;

/// Says which cases the `h2` crate passes by itself and an end of ours does not.
async fn compare(bare: End, ours: End) {
    let Some(expected) = judge(&bare, &[]).await else {
        return;
    };
    assert!(expected.passed.len() > CASES, "{}: {expected}", bare.what);
    let seen = judge(&ours, &[]).await.expect("it was there");
    let mut lost: Vec<_> = expected
        .passed
        .iter()
        .filter(|case| !seen.clears(case))
        .cloned()
        .collect();
    for _ in 0..ATTEMPTS {
        if !lost.is_empty() {
            let again = judge(&ours, &lost).await.expect("it was there");
            lost.retain(|case| !again.clears(case));
        }
    }
    assert!(
        lost.is_empty(),
        "{}, but not {}, fails: {lost:#?}\n{seen}",
        ours.what,
        bare.what
    );
}

#[tokio::test]
async fn a_listener_passes_what_a_server_of_h2_passes() {
    compare(
        plain_h2(405, "this port serves CONNECT, not GET\n").await,
        listener().await,
    )
    .await;
}

#[tokio::test]
async fn a_listener_with_tls_passes_what_a_server_of_h2_passes() {
    let pki = Pki::new();
    compare(
        plain_h2(405, "this port serves CONNECT, not GET\n").await,
        listener_with_tls(&pki),
    )
    .await;
}

#[tokio::test]
async fn an_agent_behind_the_upgrade_passes_what_a_server_of_h2_passes() {
    compare(plain_h2(400, "").await, agent().await).await;
}
