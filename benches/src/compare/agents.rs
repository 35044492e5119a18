//! Memory of agents that do nothing: many in one process, each with a connection of its own to a real server.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures_util::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tunnel_core::{Carrier, Claim, Connection, Generation};

use super::client::Outcome;
use crate::{
    carrier::{Kind, seam},
    credentials::Credentials,
    process,
};

/// Agents that code is paged in by.
const FIRST: usize = 10;
/// Handshakes at once.
const AT_ONCE: usize = 16;
/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to connect with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentsJob {
    /// The name of the carrier.
    pub carrier: String,
    /// Where the server listens for agents.
    pub server: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// A development CA.
    pub credentials: PathBuf,
    /// How many agents.
    pub agents: usize,
}

impl AgentsJob {
    /// Connects as many agents, and compares the memory of both ends.
    pub async fn run(&self) -> anyhow::Result<Outcome> {
        let kind: Kind = self.carrier.parse()?;
        let carrier = seam::carrier(kind, self.server, &Credentials::in_dir(&self.credentials)?)?;
        let mut outcome = Outcome::default();
        outcome.set("failed", 0.0);
        let _first = connect(&*carrier, 0..FIRST, &mut outcome).await?;
        let before = [self.pid, std::process::id()].map(process::memory_kib);
        let start = Instant::now();
        let agents = connect(&*carrier, FIRST..FIRST + self.agents, &mut outcome).await?;
        outcome.set("seconds", start.elapsed().as_secs_f64());
        sleep(Duration::from_millis(500)).await;
        let after = [self.pid, std::process::id()].map(process::memory_kib);
        for (index, key) in ["server_kib", "agent_kib"].into_iter().enumerate() {
            if let (Some(before), Some(after)) = (before[index], after[index]) {
                outcome.set(key, (after as f64 - before as f64) / agents.len() as f64);
            }
        }
        Ok(outcome)
    }
}

async fn connect(
    carrier: &dyn Carrier,
    numbers: std::ops::Range<usize>,
    outcome: &mut Outcome,
) -> anyhow::Result<Vec<Arc<dyn Connection>>> {
    let dial = |number| async move {
        let claim = Claim::new(format!("idle-{number}").parse()?, Generation(1));
        anyhow::Ok(carrier.dial(&claim, tokio::time::Instant::now() + PATIENCE).await?)
    };
    let mut dials = stream::iter(numbers).map(dial).buffer_unordered(AT_ONCE);
    let mut connections = Vec::new();
    while let Some(dialled) = dials.next().await {
        match dialled {
            Ok(connection) => connections.push(connection),
            Err(error) => outcome.fail(&error),
        }
    }
    ensure!(
        !connections.is_empty(),
        "no agent connects: {}",
        outcome.errors.join("; ")
    );
    Ok(connections)
}
