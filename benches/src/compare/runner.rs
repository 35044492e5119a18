//! Makes every measurement with every peer, in turn.

use std::{
    collections::HashSet,
    ffi::OsString,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use serde::Serialize;
use tempfile::TempDir;
use tokio::time::sleep;

use super::{
    agents::AgentsJob,
    calibration::Calibration,
    cell::Cell,
    child::{Child, Site},
    client::{Job, Outcome},
    link::{Link, Namespaces},
    machine::{Machine, older, tcp_shortages},
    options::Options,
    peers::{Peer, Place, Running},
    progress::{clear, note, progress},
    report::{Report, Settings},
};
use crate::{credentials::Credentials, realtime, target::control::Control};

/// The most that a measurement may take beyond its time, with everything that belongs to it.
const PATIENCE: Duration = Duration::from_secs(45);

/// How long a tunnel may go on with what its clients have left behind.
const SETTLING: Duration = Duration::from_secs(5);

/// A peer, its processes, and how often it did not start.
struct Contender {
    peer: Peer,
    running: Option<Running>,
    failed_starts: u32,
}

/// The comparison under way.
pub struct Runner {
    place: Place,
    control: Control,
    contenders: Vec<Contender>,
    report: Report,
    options: Options,
    target: Child,
    dir: TempDir,
    // In this order: a device goes before its namespace.
    link: Option<Child>,
    namespaces: Option<Namespaces>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Runner {
    /// Starts the target. Peers are started when they are needed.
    pub async fn new(options: Options) -> anyhow::Result<Self> {
        let programs = options.programs()?;
        let dir = tempfile::tempdir()?;
        let credentials = dir.path().join("ca");
        // Once, so that processes only read it.
        Credentials::in_dir(&credentials)?;
        let peers = options.peers()?;
        if options.realtime {
            realtime::check()?;
        }
        let (link, namespaces) = match options.link {
            Some(link) => {
                let (child, namespaces) = connect(link, &options).await?;
                (Some(child), Some(namespaces))
            }
            None => (None, None),
        };
        let (near, far) = match &namespaces {
            Some(namespaces) => (Some(namespaces.near.clone()), Some(namespaces.far.clone())),
            None => (None, None),
        };
        let [near, far] = [near, far].map(|namespace| Site {
            namespace,
            realtime: options.realtime,
        });
        let (near_ip, far_ip) = match &namespaces {
            Some(_) => (Namespaces::NEAR, Namespaces::FAR),
            None => (Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST),
        };
        if let Some(age) = older(&programs.join("tunnel-server")) {
            let hours = age.as_secs() / 3600;
            note(&format!(
                "tunnel-server was built {hours} h before this program: is it of the same sources?"
            ));
        }
        let socket = dir.path().join("control");
        let mut words = vec![me()?, "target".into(), far_ip.to_string().into(), socket.clone().into()];
        words.extend(options.realtime.then(|| "--realtime".into()));
        let mut target = Child::start("the target", &far.usual(), &words, &[])?;
        let addr = target.line("listening on ").await?.parse()?;
        let settings = Settings {
            link: options.link,
            realtime: options.realtime,
            repetitions: options.repetitions(),
            seconds: options.seconds()?,
            seed: options.seed,
            variants: options.variants()?,
            measurements: planned(&options, &peers)?,
        };
        Ok(Self {
            place: Place {
                credentials,
                target: addr,
                near,
                far,
                near_ip: near_ip.into(),
                far_ip: far_ip.into(),
                programs: programs.clone(),
            },
            control: Control::connect(&socket).await?,
            contenders: peers
                .into_iter()
                .map(|peer| Contender {
                    peer,
                    running: None,
                    failed_starts: 0,
                })
                .collect(),
            report: Report::new(Machine::this(&programs), settings),
            options,
            target,
            dir,
            link,
            namespaces,
        })
    }

    /// Makes all measurements, or as many as there are until it is interrupted.
    pub async fn run(mut self, interrupted: impl Future<Output = ()>) -> anyhow::Result<Report> {
        let start = Instant::now();
        tokio::select! {
            made = self.measure_all(start) => made?,
            () = interrupted => {}
        }
        clear();
        self.report.took = start.elapsed();
        for contender in self.contenders {
            if let Some(running) = contender.running {
                running.stop().await;
            }
        }
        self.target.stop().await;
        if let Some(link) = self.link {
            link.stop().await;
        }
        drop(self.namespaces);
        drop(self.dir);
        Ok(self.report)
    }

    async fn measure_all(&mut self, start: Instant) -> anyhow::Result<()> {
        let cells = self.options.cells()?;
        for (index, cell) in cells.iter().enumerate() {
            let repetitions = repetitions(&self.options, *cell);
            // Peers that are not measured again: what hangs would do so each time, and others would wait.
            let mut given_up = HashSet::new();
            for repetition in 0..repetitions {
                let calibration = Calibration::now(self.report.machine.cpus);
                self.report.calibrated(*cell, calibration);
                for contender in 0..self.contenders.len() {
                    if !applies(*cell, &self.contenders[contender].peer) {
                        continue;
                    }
                    progress(&format!(
                        "{:4.0} s  {}/{} {cell}, {}/{repetitions}: {}",
                        start.elapsed().as_secs_f64(),
                        index + 1,
                        cells.len(),
                        repetition + 1,
                        self.contenders[contender].peer,
                    ));
                    let outcome = if given_up.contains(&contender) {
                        Err(anyhow!("it is not measured again here after that"))
                    } else {
                        self.measure(contender, *cell, repetition).await
                    };
                    if let Err(error) = &outcome
                        && given_up.insert(contender)
                    {
                        note(&format!("{} in {cell}: {error:#}", self.contenders[contender].peer));
                    }
                    let name = self.contenders[contender].peer.to_string();
                    self.report.add(*cell, &name, outcome);
                }
            }
        }
        Ok(())
    }

    /// One measurement, and what it takes to make the next one.
    async fn measure(&mut self, contender: usize, cell: Cell, repetition: usize) -> anyhow::Result<Outcome> {
        if cell.measures_memory() {
            self.stop(contender).await;
        }
        let shortages = tcp_shortages();
        let outcome = self.attempt(contender, cell, repetition).await;
        let is_short = tcp_shortages() > shortages;
        let settled = self.settle(contender).await;
        if outcome.is_err() || !settled || cell.measures_memory() {
            // Nobody else is to be measured beside what is left of it.
            self.stop(contender).await;
        }
        let mut outcome = outcome?;
        if !settled {
            outcome.fail(&anyhow::anyhow!(
                "still busy {SETTLING:?} after its clients had gone; it was started anew"
            ));
        }
        if is_short {
            outcome.doubt(&anyhow::anyhow!(
                "the kernel ran short of memory for TCP (net.ipv4.tcp_mem) and drops segments then: the figures may be its, not the peer's"
            ));
        }
        Ok(outcome)
    }

    async fn attempt(&mut self, contender: usize, cell: Cell, repetition: usize) -> anyhow::Result<Outcome> {
        let job = self.prepare(contender, cell, repetition).await?;
        if let Cell::Agents(agents) = cell {
            return self.agents(contender, agents).await;
        }
        let patience = PATIENCE + Duration::from_secs_f64(job.seconds);
        let outcome = self.client("client", &job, patience).await;
        match outcome {
            Ok(outcome) => Ok(outcome),
            Err(error) => {
                let said = self.contenders[contender].running.as_ref().map(Running::said);
                Err(error.context(format!(
                    "it failed; its processes said last:\n{}",
                    said.unwrap_or_default()
                )))
            }
        }
    }

    /// Sees to it that a peer runs and that streams get through.
    async fn prepare(&mut self, contender: usize, cell: Cell, repetition: usize) -> anyhow::Result<Job> {
        let mut job = Job {
            cell,
            path: crate::client::Path::Direct,
            target: self.place.target,
            control: self.dir.path().join("control"),
            server: Vec::new(),
            agent: Vec::new(),
            seconds: self.options.seconds()?,
            seed: self.options.seed.wrapping_add(repetition as u64),
            realtime: self.options.realtime,
        };
        let Contender {
            peer,
            running,
            failed_starts,
        } = &mut self.contenders[contender];
        let mut known = match running.take() {
            Some(known) => known,
            None => {
                if *failed_starts >= 2 {
                    bail!("it did not start twice, and is not tried again");
                }
                *failed_starts += 1;
                let mut fresh = peer.start(&self.place).await?;
                job.path = fresh.path;
                tokio::select! {
                    reached = self.client("reach", &job, PATIENCE) => reached.map(drop)?,
                    () = fresh.over() => {}
                }
                fresh
            }
        };
        known.check()?;
        job.path = known.path;
        (job.server, job.agent) = (known.server.clone(), known.agent.clone());
        let contender = &mut self.contenders[contender];
        contender.failed_starts = 0;
        contender.running = Some(known);
        Ok(job)
    }

    async fn client(&self, mode: &str, job: &Job, patience: Duration) -> anyhow::Result<Outcome> {
        let words = [me()?, mode.into(), serde_json::to_string(job)?.into()];
        outcome(
            Child::start("the client", &self.place.near.usual(), &words, &[])?,
            patience,
        )
        .await
    }

    async fn agents(&self, contender: usize, agents: usize) -> anyhow::Result<Outcome> {
        let Contender { peer, running, .. } = &self.contenders[contender];
        let running = running.as_ref().context("it does not run")?;
        let Peer::Tunnel(tunnel) = peer else {
            bail!("it has no agents");
        };
        let job = AgentsJob {
            carrier: tunnel.carrier.to_string(),
            server: running.agents.context("it has no agents")?,
            pid: running.server.first().copied().unwrap_or_default(),
            credentials: self.place.credentials.clone(),
            agents,
        };
        let words = [me()?, "agents".into(), serde_json::to_string(&job)?.into()];
        outcome(
            Child::start("the agents", &self.place.far.usual(), &words, &[])?,
            PATIENCE,
        )
        .await
    }

    /// Waits until a peer has let go of what its clients left behind; gives whether it has.
    async fn settle(&mut self, contender: usize) -> bool {
        let end = Instant::now() + SETTLING;
        let mut idle = 0;
        let mut cpu = f64::NAN;
        while Instant::now() < end {
            sleep(Duration::from_millis(20)).await;
            let open = self.control.account().await.map_or(usize::MAX, |account| account.open);
            let before = std::mem::replace(&mut cpu, self.cpu(contender));
            // Up to a tick of the clock that counts it.
            idle = if open == 0 && cpu - before < 0.015 { idle + 1 } else { 0 };
            if idle >= 3 {
                return true;
            }
        }
        false
    }

    fn cpu(&self, contender: usize) -> f64 {
        let running = self.contenders[contender].running.as_ref();
        running.map_or(0.0, Running::cpu_seconds)
    }

    async fn stop(&mut self, contender: usize) {
        if let Some(running) = self.contenders[contender].running.take() {
            running.stop().await;
        }
    }
}

/// Makes the namespaces and what connects them.
async fn connect(link: Link, options: &Options) -> anyhow::Result<(Child, Namespaces)> {
    let namespaces = Namespaces::make()?;
    let words = [
        me()?,
        "link".into(),
        link.to_string().into(),
        (&namespaces.near).into(),
        (&namespaces.far).into(),
        options.seed.to_string().into(),
    ];
    let site = Site {
        namespace: None,
        realtime: options.realtime,
    };
    let mut child = Child::start("the link", &site, &words, &[])?;
    child.line("link is ready").await?;
    Ok((child, namespaces))
}

/// How often a measurement is made.
fn repetitions(options: &Options, cell: Cell) -> usize {
    if cell.measures_memory() {
        1
    } else {
        options.repetitions()
    }
}

/// How many measurements there are to be.
fn planned(options: &Options, peers: &[Peer]) -> anyhow::Result<usize> {
    let of_cell = |cell: Cell| repetitions(options, cell) * peers.iter().filter(|peer| applies(cell, peer)).count();
    Ok(options.cells()?.into_iter().map(of_cell).sum())
}

/// Whether there is such a measurement of a peer.
fn applies(cell: Cell, peer: &Peer) -> bool {
    match cell {
        Cell::Streams(_) => *peer != Peer::Direct,
        Cell::Agents(_) => matches!(peer, Peer::Tunnel(_)),
        _ => true,
    }
}

fn me() -> anyhow::Result<OsString> {
    Ok(std::env::current_exe()?.into())
}

/// What a process that measures has to say; it has ended then.
async fn outcome(mut child: Child, patience: Duration) -> anyhow::Result<Outcome> {
    let line = child.line_within(patience, "outcome ").await;
    child.stop().await;
    Ok(serde_json::from_str(&line?)?)
}

/// Prints the outcome of a process that measures, for the one that started it.
pub fn tell(outcome: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(outcome)?;
    #[allow(clippy::print_stdout)] // it is read from there
    {
        println!("outcome {text}");
    }
    Ok(())
}
