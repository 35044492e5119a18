//! What is compared: the tunnels, and what bounds them.

mod accept;
mod command;
mod relay_h2;
mod relay_quinn;
mod relay_tls;
mod tunnel;

use std::{fmt, future::pending, net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use futures_util::{StreamExt as _, stream::FuturesUnordered};

pub use self::{command::Custom, tunnel::Tunnel};
use super::child::{Child, Site};
use crate::{carrier::Kind, client::Path, process};

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP connection from the client to the target.
    Direct,
    /// A bare relay of two hops.
    Relay(Relay),
    /// `tunnel-server` and `tunnel-agent`.
    Tunnel(Tunnel),
    /// What the user names.
    Custom(Custom),
}

/// A relay of two hops that does nothing but relay: what a tunnel of the same protocol is bounded by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Relay {
    /// One TLS connection for each stream.
    Tls,
    /// One HTTP/2 connection over TLS, one stream each.
    H2,
    /// One QUIC connection, one stream each.
    Quinn,
}

/// Where the processes of a peer are, and what they need.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where `tunnel-server` and `tunnel-agent` are.
    pub programs: PathBuf,
    /// A development CA for both ends.
    pub credentials: PathBuf,
    /// The target, as the agent sees it.
    pub target: SocketAddr,
    /// The end of the clients and the server.
    pub near: Site,
    /// The end of the agent and the target.
    pub far: Site,
    /// The server's address, as the agent sees it.
    pub near_ip: std::net::IpAddr,
    /// The agent's address, as the server sees it.
    pub far_ip: std::net::IpAddr,
}

/// A peer whose processes run.
#[derive(Debug)]
pub struct Running {
    children: Vec<Child>,
    /// The way to the target through it.
    pub path: Path,
    /// The processes of the server; empty if there is none.
    pub server: Vec<u32>,
    /// The processes of the agent; empty if there is none.
    pub agent: Vec<u32>,
    /// Where agents connect, if they do.
    pub agents: Option<SocketAddr>,
}

impl Peer {
    /// The carriers of the programs, in the order of the table.
    pub const CARRIERS: [Kind; 4] = [Kind::Quic, Kind::H2, Kind::Ws, Kind::Grpc];

    /// All that are built in, in the order of the table.
    #[must_use]
    pub fn built_in() -> Vec<Self> {
        let relays = [Relay::Tls, Relay::H2, Relay::Quinn].map(Self::Relay);
        let tunnels = Self::CARRIERS.map(|kind| Self::Tunnel(kind.into()));
        [Self::Direct].into_iter().chain(relays).chain(tunnels).collect()
    }

    /// Starts its processes.
    pub async fn start(&self, place: &Place) -> anyhow::Result<Running> {
        match self {
            Self::Direct => Ok(Running {
                children: Vec::new(),
                path: Path::Direct,
                server: Vec::new(),
                agent: Vec::new(),
                agents: None,
            }),
            Self::Relay(relay) => relay.start(place).await,
            Self::Tunnel(tunnel) => tunnel.start(place).await,
            Self::Custom(custom) => custom.start(place).await,
        }
        .with_context(|| format!("{self} does not start"))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Relay(Relay::Tls) => "relay-tls",
            Self::Relay(Relay::H2) => "relay-h2",
            Self::Relay(Relay::Quinn) => "relay-quinn",
            Self::Tunnel(tunnel) => &tunnel.name,
            Self::Custom(custom) => &custom.name,
        })
    }
}

impl Relay {
    const fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::H2 => "h2",
            Self::Quinn => "quinn",
        }
    }

    async fn start(self, place: &Place) -> anyhow::Result<Running> {
        let me = std::env::current_exe()?;
        let words = |hop: [&str; 5]| {
            let hop = hop.map(Into::into);
            [me.clone().into()]
                .into_iter()
                .chain(hop)
                .chain(["--credentials".into(), place.credentials.clone().into()])
                .collect::<Vec<_>>()
        };
        let far_ip = place.far_ip.to_string();
        let target = place.target.to_string();
        let mut far = Child::start(
            "the second hop",
            &place.far,
            &words(["far", self.name(), &far_ip, "--target", &target]),
            &[],
        )?;
        let link = far.line("listening on ").await?;
        let mut near = Child::start(
            "the first hop",
            &place.near,
            &words(["near", self.name(), "127.0.0.1", "--far", &link]),
            &[],
        )?;
        let proxy = near.line("listening on ").await?.parse()?;
        Ok(Running {
            path: Path::Proxy(proxy),
            server: vec![near.pid()],
            agent: vec![far.pid()],
            agents: None,
            children: vec![near, far],
        })
    }

    /// Is the first hop: takes CONNECT, and opens a stream to the second one for each.
    pub async fn near(self, listen: SocketAddr, far: SocketAddr, credentials: &std::path::Path) -> anyhow::Result<()> {
        match self {
            Self::Tls => relay_tls::near(listen, far, credentials).await,
            Self::H2 => relay_h2::near(listen, far, credentials).await,
            Self::Quinn => relay_quinn::near(listen, far, credentials).await,
        }
    }

    /// Is the second hop: connects to the target for each stream.
    pub async fn far(
        self,
        listen: SocketAddr,
        target: SocketAddr,
        credentials: &std::path::Path,
    ) -> anyhow::Result<()> {
        match self {
            Self::Tls => relay_tls::far(listen, target, credentials).await,
            Self::H2 => relay_h2::far(listen, target, credentials).await,
            Self::Quinn => relay_quinn::far(listen, target, credentials).await,
        }
    }
}

impl Running {
    /// Its processes.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        [&self.server[..], &self.agent[..]].concat()
    }

    /// The CPU time that it has used.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        self.pids().into_iter().filter_map(process::cpu_seconds).sum()
    }

    /// Fails if a process has ended, and finds those that were started since.
    pub fn check(&mut self) -> anyhow::Result<()> {
        for child in &mut self.children {
            if child.ended() {
                bail!("a process has ended; it said:\n{}", child.said());
            }
        }
        if let (Path::Forward(_), [child]) | (Path::Proxy(_), [child]) = (self.path, &self.children[..]) {
            self.server = process::family(child.pid());
        }
        Ok(())
    }

    /// Waits until one of its processes has ended, if it has any; cancel safe.
    pub async fn over(&mut self) {
        let mut ends: FuturesUnordered<_> = self.children.iter_mut().map(Child::over).collect();
        if ends.next().await.is_none() {
            pending().await
        }
    }

    /// What its processes said last.
    #[must_use]
    pub fn said(&self) -> String {
        self.children.iter().map(Child::said).collect()
    }

    /// Ends its processes.
    pub async fn stop(self) {
        for child in self.children {
            child.stop().await;
        }
    }
}
