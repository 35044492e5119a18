//! Programs, certificates, targets and clients for the tests.

mod client;
mod curl;
mod libcurl;
mod pki;
mod process;
pub(crate) mod target;
mod tunnel;

use std::{future::Future, time::Duration};

pub(crate) use client::{Answer, ask, ask_with, end, fetch, get, read_to_end};
pub(crate) use curl::Curl;
pub(crate) use libcurl::Libcurl;
pub(crate) use pki::{AGENT, Pair, Pki};
pub(crate) use process::Process;
pub(crate) use tunnel::{Server, TOKEN, Tunnel, agent_args, agent_args_to};

/// How long anything may take on a busy machine that is not expected to take any time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time for a busy machine to notice what has ended, and far too little to wait for the default keepalive of 15 s.
pub(crate) const NOTICED: Duration = Duration::from_secs(6);

/// What must happen, and soon enough not to mind how soon.
pub(crate) async fn soon<T>(what: &str, happening: impl Future<Output = T>) -> T {
    within(PATIENCE, what, happening).await
}

/// What must happen within a bound that the test is about.
pub(crate) async fn within<T>(bound: Duration, what: &str, happening: impl Future<Output = T>) -> T {
    match tokio::time::timeout(bound, happening).await {
        Ok(happened) => happened,
        Err(_) => panic!("not within {bound:?}: {what}"),
    }
}
