//! The two ends of a carrier in one process, for the tests that a carrier has of its own.
//!
//! What fails here panics.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy exempts only functions marked as tests"
)]

mod traffic;
mod verdict;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tunnel_core::{
    Admission, Carrier, Claim, Connection, DialError, Generation, HandshakeError, Listener, Secret, StreamHead,
};

pub use self::{
    traffic::{echo, round_trips, stream},
    verdict::Verdict,
};

/// How long a dial may take.
const DIAL: Duration = Duration::from_secs(10);

/// What came of one attempt to connect: at the agent, at the server.
pub type Attempt = (
    Result<Arc<dyn Connection>, DialError>,
    Result<Arc<dyn Connection>, HandshakeError>,
);

/// The claim of the agent `node-7`, with a credential.
#[must_use]
pub fn claim() -> Claim {
    let mut claim = Claim::new("node-7".parse().expect("an id"), Generation(1));
    claim.credential = Some(Secret::new("s3cr3t").expect("a secret"));
    claim
}

/// What opens a stream to `tcp://target.test:80`.
#[must_use]
pub fn head() -> StreamHead {
    StreamHead::new("tcp://target.test:80".parse().expect("a target"))
}

/// An error with its causes.
#[must_use]
pub fn whole(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", whole(source)),
        None => error.to_string(),
    }
}

/// Both ends of one attempt to connect.
pub async fn meet(
    carrier: &dyn Carrier,
    listener: &mut dyn Listener,
    claim: &Claim,
    admission: &dyn Admission,
) -> Attempt {
    tokio::join!(
        carrier.dial(claim, Instant::now() + DIAL),
        handshake(listener, admission)
    )
}

/// Takes the next attempt and performs the server's part of its handshake.
pub async fn handshake(
    listener: &mut dyn Listener,
    admission: &dyn Admission,
) -> Result<Arc<dyn Connection>, HandshakeError> {
    let incoming = listener.accept().await.expect("an attempt");
    incoming.handshake(admission).await
}

/// Something that has both ends.
#[allow(async_fn_in_trait, reason = "tests call it on types that they know")]
pub trait Ends {
    /// The agent's end and the server's.
    fn ends(&mut self) -> (&dyn Carrier, &mut dyn Listener);

    /// Both ends of one attempt of an agent with the usual [`claim`].
    async fn attempt(&mut self, verdict: &Verdict) -> Attempt {
        self.attempt_with(&claim(), verdict).await
    }

    /// Both ends of one attempt of an agent with this claim.
    async fn attempt_with(&mut self, claim: &Claim, verdict: &Verdict) -> Attempt {
        let (carrier, listener) = self.ends();
        meet(carrier, listener, claim, verdict).await
    }

    /// The agent's and the server's handle of a new connection.
    async fn connect(&mut self) -> (Arc<dyn Connection>, Arc<dyn Connection>) {
        let (agent, server) = self.attempt(&Verdict::default()).await;
        (agent.expect("the agent connects"), server.expect("the server agrees"))
    }

    /// What an agent learns of a server that never gets to see it.
    async fn fail(&mut self) -> DialError {
        let (carrier, listener) = self.ends();
        let claim = claim();
        tokio::select! {
            dialled = carrier.dial(&claim, Instant::now() + DIAL) => dialled.expect_err("it fails"),
            incoming = listener.accept() => panic!("there is an attempt: {incoming:?}"),
        }
    }

    /// The server's handle of the next connection that somebody makes.
    async fn accept(&mut self) -> Arc<dyn Connection> {
        let accepted = handshake(self.ends().1, &Verdict::default()).await;
        accepted.expect("the server agrees")
    }

    /// Has the listener make progress, and see nobody, while something else goes on.
    async fn serving<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::select! {
            done = other => done,
            incoming = self.ends().1.accept() => panic!("there is an attempt: {incoming:?}"),
        }
    }
}
