//! Tunnels that the user names.

use std::{net::TcpListener, str::FromStr};

use anyhow::{Context as _, ensure};

use super::{Child, Place, Running, Site};
use crate::client::Path;

/// A command that starts all processes of a tunnel and stays until they are killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Custom {
    /// What the table calls it.
    pub name: String,
    /// For `sh -c`.
    pub command: String,
    /// Whether clients ask it for the target by CONNECT; otherwise its port leads there.
    pub connect: bool,
}

impl FromStr for Custom {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, command) = text.split_once('=').context("a peer is NAME=COMMAND")?;
        let (name, connect) = match name.strip_suffix("+connect") {
            Some(name) => (name, true),
            None => (name, false),
        };
        ensure!(
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
            "the name of a peer has letters, digits and hyphens"
        );
        ensure!(!command.trim().is_empty(), "the peer {name} has no command");
        Ok(Self {
            name: name.to_owned(),
            command: command.to_owned(),
            connect,
        })
    }
}

impl Custom {
    pub(super) async fn start(&self, place: &Place) -> anyhow::Result<Running> {
        // Free at the moment; the command is told, for it cannot tell.
        let entry = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let exec = |site: &Site| match &site.namespace {
            Some(namespace) => format!("ip netns exec {namespace}"),
            None => String::new(),
        };
        let environment = [
            ("BENCH_LISTEN", entry.to_string()),
            ("BENCH_TARGET", place.target.to_string()),
            ("BENCH_SERVER_IP", place.near_ip.to_string()),
            ("BENCH_AGENT_IP", place.far_ip.to_string()),
            ("BENCH_ON_SERVER", exec(&place.near)),
            ("BENCH_ON_AGENT", exec(&place.far)),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let words = ["sh", "-c", &self.command].map(Into::into);
        let site = Site {
            namespace: None,
            ..place.near.clone()
        };
        let child = Child::start(&self.name, &site, &words, &environment)?;
        let path = if self.connect {
            Path::Proxy(entry)
        } else {
            Path::Forward(entry)
        };
        Ok(Running {
            path,
            // Found when it is used, for the command starts them.
            server: Vec::new(),
            agent: Vec::new(),
            agents: None,
            children: vec![child],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_name_and_a_command() {
        let peer: Custom = "bore=bore local --port $A=1".parse().unwrap();
        assert_eq!(
            (&*peer.name, &*peer.command, peer.connect),
            ("bore", "bore local --port $A=1", false)
        );
        assert!("squid+connect=squid -N".parse::<Custom>().unwrap().connect);
        for wrong in ["bore", "=x", "bore=", "b re=x", "+connect=x"] {
            assert!(wrong.parse::<Custom>().is_err(), "{wrong}");
        }
    }
}
