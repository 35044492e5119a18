//! The command line.

use std::{collections::HashSet, path::PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::{
    cell::Cell,
    link::Link,
    peers::{Custom, Peer, Tunnel},
};

/// What to compare, how, and where the result goes.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Peers to compare: direct, relay-tls, relay-h2, relay-quinn, quic, h2, ws, grpc, or the name of a --variant or a --peer;
    /// repeatable. All by default
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,

    /// Measurements: up-N, down-N (so many streams of bulk), connect, rr, rr-beside-N (beside so many downloads), stalled-N
    /// (beside so many stalled readers), streams-N, agents-N (memory of so many idle ones), integrity; repeatable
    #[arg(long, value_name = "CELL", value_delimiter = ',')]
    cell: Vec<Cell>,

    /// How often each measurement is repeated; medians are shown with the smallest and the largest [default: 3, quick: 1]
    #[arg(long, value_name = "N")]
    repetitions: Option<usize>,

    /// How long each measurement takes, in seconds, without warming up and settling [default: 0.4, quick: 0.3]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,

    /// A look at each kind of measurement, once: about a minute instead of ten
    #[arg(long)]
    quick: bool,

    /// A carrier with settings of its own, as a peer of its own: flags of tunnel-server and tunnel-agent, behind `server:` of
    /// the server alone, behind `agent:` of the agent alone. For example 'bbr=quic --quic-congestion bbr' or
    /// 'threads=h2 server: --threads 2 agent: --threads 1'; repeatable
    #[arg(long, value_name = "NAME=CARRIER FLAGS")]
    variant: Vec<Tunnel>,

    /// Another tunnel: `sh -c COMMAND` starts its processes and stays until all are killed. It is told in the environment:
    /// BENCH_LISTEN is where clients are to connect (the port leads to the target; with NAME+connect=COMMAND it takes HTTP
    /// CONNECT), BENCH_TARGET where the target is, as its agent sees it; docs/performance.md has an example; repeatable
    #[arg(long, value_name = "NAME=COMMAND")]
    peer: Vec<Custom>,

    /// Measures over an impaired link: server and client in one network namespace, agent and target in another, and between
    /// them a link such as rtt=20ms,loss=1%,rate=500mbit,queue=100ms (each part may be left out). Needs the rights of root
    #[arg(long, value_name = "LINK")]
    pub link: Option<Link>,

    /// Peers, the link, and whatever sends and answers the requests of `rr` get real-time priority (SCHED_RR), so that latency is
    /// that of the tunnel: the clients and the target of bulk, which fill the same processors, get what is left. Needs the
    /// rights of root (CAP_SYS_NICE)
    #[arg(long)]
    pub realtime: bool,

    /// What random choices begin with
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Where `tunnel-server` and `tunnel-agent` are [default: the directory of this program]
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,

    /// Writes every run to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Writes the tables to this file, too
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,

    /// Draws each measurement into an SVG file in this directory
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,
}

impl Options {
    /// The measurements, in their order.
    pub fn cells(&self) -> anyhow::Result<Vec<Cell>> {
        if !self.cell.is_empty() {
            return Ok(self.cell.clone());
        }
        let names: &[&str] = if self.quick { &Cell::QUICK } else { &Cell::FULL };
        names.iter().map(|name| name.parse()).collect()
    }

    /// The peers, in their order.
    pub fn peers(&self) -> anyhow::Result<Vec<Peer>> {
        let variants = self.variant.iter().cloned().map(Peer::Tunnel);
        let custom = self.peer.iter().cloned().map(Peer::Custom);
        let all: Vec<Peer> = Peer::built_in().into_iter().chain(variants).chain(custom).collect();
        let mut names = HashSet::new();
        if let Some(twice) = all.iter().map(Peer::to_string).find(|name| !names.insert(name.clone())) {
            bail!("two peers are called {twice}");
        }
        if self.only.is_empty() {
            return Ok(all);
        }
        let named = |name: &String| {
            let peer = all.iter().find(|peer| peer.to_string() == *name).cloned();
            peer.with_context(|| format!("there is no peer {name}"))
        };
        self.only.iter().map(named).collect()
    }

    /// The variants that take part.
    pub fn variants(&self) -> anyhow::Result<Vec<Tunnel>> {
        let variants = self.peers()?.into_iter().filter_map(|peer| match peer {
            Peer::Tunnel(tunnel) if self.variant.contains(&tunnel) => Some(tunnel),
            _ => None,
        });
        Ok(variants.collect())
    }

    /// How often each measurement is made.
    #[must_use]
    pub fn repetitions(&self) -> usize {
        self.repetitions.unwrap_or(if self.quick { 1 } else { 3 }).max(1)
    }

    /// How long each takes.
    pub fn seconds(&self) -> anyhow::Result<f64> {
        let seconds = self.seconds.unwrap_or(if self.quick { 0.3 } else { 0.4 });
        ensure!((0.1..=60.0).contains(&seconds), "--seconds is between 0.1 and 60");
        Ok(seconds)
    }

    /// Where the programs are.
    pub fn programs(&self) -> anyhow::Result<PathBuf> {
        match &self.programs {
            Some(dir) => Ok(dir
                .canonicalize()
                .with_context(|| format!("there is no {}", dir.display()))?),
            None => {
                let me = std::env::current_exe()?;
                Ok(me.parent().context("this program is nowhere")?.to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn options(words: &[&str]) -> Options {
        let words = ["carrier-bench"].iter().chain(words);
        Command::try_parse_from(words).unwrap().options
    }

    #[test]
    fn variants_are_chosen_by_name_like_any_peer() {
        let bbr = "--variant=quic+bbr=quic --quic-congestion bbr";
        let all = options(&[bbr]);
        assert_eq!(all.peers().unwrap().len(), Peer::built_in().len() + 1);
        assert_eq!(all.variants().unwrap().len(), 1);
        let some = options(&[bbr, "--only=quic+bbr,quic"]);
        let names: Vec<_> = some.peers().unwrap().iter().map(Peer::to_string).collect();
        assert_eq!(names, ["quic+bbr", "quic"]);
        assert!(options(&[bbr, "--only=quic"]).variants().unwrap().is_empty());
    }

    #[test]
    fn no_two_peers_have_one_name() {
        assert!(options(&["--variant=quic=quic --threads 2"]).peers().is_err());
        assert!(options(&["--variant=x=h2 --threads 2", "--peer=x=y"]).peers().is_err());
    }
}
