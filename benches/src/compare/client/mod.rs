//! The client's process: makes one measurement through one tunnel.

mod bulk;
mod connect;
mod integrity;
mod reading;
mod requests;
mod stalled;
mod streams;

use std::{collections::BTreeMap, future::Future, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::cell::Cell;
use crate::{client::Path, target::Command};

/// How long anything may take that is not itself what is measured.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that are being made at once.
const DIALS: usize = 16;

/// Errors of a measurement that are told; all are counted.
const ERRORS: usize = 3;

/// What to measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The measurement.
    pub cell: Cell,
    /// The way to the target.
    pub path: Path,
    /// The target, as the agent sees it.
    pub target: SocketAddr,
    /// Where the target tells what it has taken.
    pub control: PathBuf,
    /// The processes of the server; empty if there is none.
    pub server: Vec<u32>,
    /// The processes of the agent; empty if there is none.
    pub agent: Vec<u32>,
    /// How long to measure.
    pub seconds: f64,
    /// What random choices begin with.
    pub seed: u64,
    /// Whether requests are sent with real-time priority.
    pub realtime: bool,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Figures by their key.
    pub figures: BTreeMap<String, f64>,
    /// The first few things that went wrong; `failed` in the figures counts all.
    pub errors: Vec<String>,
}

impl Outcome {
    pub(super) fn set(&mut self, key: &str, value: f64) {
        self.figures.insert(key.to_owned(), value);
    }

    /// Adds the failures of a part.
    fn merge(&mut self, part: Self) {
        if let Some(failed) = part.figures.get("failed") {
            *self.figures.entry("failed".to_owned()).or_default() += failed;
        }
        self.errors.extend(part.errors);
        self.errors.truncate(ERRORS);
    }

    /// Counts a failure.
    pub(super) fn fail(&mut self, error: &anyhow::Error) {
        *self.figures.entry("failed".to_owned()).or_default() += 1.0;
        self.doubt(error);
    }

    /// Notes why the figures may not be those of the peer.
    pub(super) fn doubt(&mut self, error: &anyhow::Error) {
        if self.errors.len() < ERRORS {
            self.errors.push(format!("{error:#}"));
        }
    }
}

impl Job {
    /// Makes the measurement.
    pub async fn run(&self) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        outcome.set("failed", 0.0);
        match self.cell {
            Cell::Bulk(direction, streams) => bulk::measure(self, direction, streams, &mut outcome).await?,
            Cell::Connect => connect::measure(self, false, &mut outcome).await?,
            Cell::ConnectEarly => connect::measure(self, true, &mut outcome).await?,
            Cell::Requests(0) => requests::alone(self, &mut outcome).await?,
            Cell::Requests(beside) => requests::beside(self, beside, &mut outcome).await?,
            Cell::Stalled(stalled) => stalled::measure(self, stalled, &mut outcome).await?,
            Cell::Streams(streams) => streams::measure(self, streams, &mut outcome).await?,
            Cell::Integrity => integrity::measure(self, &mut outcome).await?,
            Cell::Agents(_) => anyhow::bail!("no client takes part in {}", self.cell),
        }
        Ok(outcome)
    }

    /// Waits until a stream gets through.
    pub async fn reach(&self) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            match connect::one(self, false).await {
                Err(_) if Instant::now() < end => sleep(Duration::from_millis(50)).await,
                reached => return reached.context("no stream gets through"),
            }
        }
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Connects, and says what is wanted.
    async fn open(&self, command: Command) -> anyhow::Result<TcpStream> {
        within("connecting", async {
            let mut socket = self.path.connect(self.target).await?;
            command.send(&mut socket).await?;
            Ok(socket)
        })
        .await
    }

    /// Makes so many connections, some at once. Those that fail are counted.
    async fn open_all(
        &self,
        commands: Vec<Command>,
        outcome: &mut Outcome,
    ) -> anyhow::Result<Vec<(Command, TcpStream)>> {
        let wanted = commands.len();
        let mut commands = commands.into_iter();
        let dial = |command: Command| async move { (command, self.open(command).await) };
        let mut dials: FuturesUnordered<_> = commands.by_ref().take(DIALS).map(dial).collect();
        let mut open = Vec::with_capacity(wanted);
        let mut last = None;
        while let Some((command, socket)) = dials.next().await {
            match socket {
                Ok(socket) => open.push((command, socket)),
                Err(error) => {
                    outcome.fail(&error);
                    last = Some(error);
                }
            }
            dials.extend(commands.next().map(dial));
        }
        match last {
            Some(error) if open.is_empty() => Err(error.context("no connection was made")),
            _ => Ok(open),
        }
    }
}

/// Gives up after [`PATIENCE`].
async fn within<T>(what: &str, future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    timeout(PATIENCE, future)
        .await
        .with_context(|| format!("{what} took more than {PATIENCE:?}"))?
        .with_context(|| format!("{what} failed"))
}
