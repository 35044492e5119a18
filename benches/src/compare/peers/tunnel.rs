//! `tunnel-server` and `tunnel-agent`.

use std::{ffi::OsString, net::SocketAddr, str::FromStr};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::{Child, Peer, Place, Running};
use crate::{carrier::Kind, client::Path, credentials::Credentials};

/// The programs with one carrier, and what they are told beyond what every run needs.
///
/// Written `NAME=CARRIER WORD…`: the words are flags of both programs, those behind `server:` are the server's alone and
/// those behind `agent:` the agent's. Words are split as a shell splits them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tunnel {
    /// What the table calls it.
    pub name: String,
    /// What carries it.
    pub carrier: Kind,
    /// Flags of the server.
    pub server: Vec<String>,
    /// Flags of the agent.
    pub agent: Vec<String>,
}

impl From<Kind> for Tunnel {
    /// The defaults, named after the carrier.
    fn from(carrier: Kind) -> Self {
        Self {
            name: carrier.to_string(),
            carrier,
            server: Vec::new(),
            agent: Vec::new(),
        }
    }
}

impl FromStr for Tunnel {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, settings) = text.split_once('=').context("a variant is NAME=CARRIER FLAGS")?;
        ensure!(
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-+._".contains(&byte)),
            "the name of a variant has letters, digits and -+._"
        );
        let words = shlex::split(settings).with_context(|| format!("a quote of {name} does not end"))?;
        let (carrier, words) = words.split_first().with_context(|| format!("{name} has no carrier"))?;
        let known = |kind: &Kind| kind.name() == carrier && Peer::CARRIERS.contains(kind);
        let carrier = Kind::ALL.into_iter().find(known);
        let mut tunnel = Self {
            name: name.to_owned(),
            ..Self::from(carrier.with_context(|| format!("{name} begins with no carrier: quic, h2, ws or grpc"))?)
        };
        let (mut server, mut agent) = (true, true);
        for word in words {
            match &**word {
                "server:" => (server, agent) = (true, false),
                "agent:" => (server, agent) = (false, true),
                _ => {
                    let of = [(server, &mut tunnel.server), (agent, &mut tunnel.agent)];
                    for (_, flags) in of.into_iter().filter(|(its, _)| *its) {
                        flags.push(word.clone());
                    }
                }
            }
        }
        ensure!(
            !(tunnel.server.is_empty() && tunnel.agent.is_empty()),
            "{name} has no flags, so it is the carrier itself"
        );
        Ok(tunnel)
    }
}

impl Tunnel {
    pub(super) async fn start(&self, place: &Place) -> anyhow::Result<Running> {
        let credentials = Credentials::in_dir(&place.credentials)?;
        let scheme = match self.carrier {
            Kind::Ws => "wss".to_owned(),
            kind => kind.to_string(),
        };
        let [server_words, agent_words] = ["tunnel-server", "tunnel-agent"].map(|name| place.programs.join(name));
        for program in [&server_words, &agent_words] {
            ensure!(
                program.is_file(),
                "there is no {}: build the programs with `cargo build --release -p bins`, or say where they are with --programs",
                program.display()
            );
        }

        let flag = |name: &str, value: &std::path::Path| [OsString::from(name), value.into()];
        let (chain, key) = credentials.server_files();
        let words = [server_words.into()]
            .into_iter()
            .chain([
                format!("--carrier={scheme}://{}", SocketAddr::new(place.near_ip, 0)).into(),
                "--frontend=connect://127.0.0.1:0".into(),
                "--admin=off".into(),
                "--id=carrier-bench".into(),
            ])
            .chain(flag("--tls-cert", chain))
            .chain(flag("--tls-key", key))
            .chain(flag("--agent-ca", credentials.ca_file()))
            .chain(self.server.iter().map(Into::into));
        let mut server = Child::start("tunnel-server", &place.near, &words.collect::<Vec<_>>(), &[])?;
        let agents = address(&server.line("listening for agents").await?, "addr=")?;
        let proxy = address(&server.line("listening for clients").await?, "connect://")?;

        let (chain, key) = credentials.agent_files();
        let words = [agent_words.into()]
            .into_iter()
            .chain([
                format!("--server={scheme}://{agents}").into(),
                "--server-name=server.test".into(),
                "--admin=off".into(),
                "--proxy=off".into(),
                "--id=carrier-bench".into(),
            ])
            .chain(flag("--cert", chain))
            .chain(flag("--key", key))
            .chain(flag("--ca", credentials.ca_file()))
            .chain(self.agent.iter().map(Into::into));
        let mut agent = Child::start("tunnel-agent", &place.far, &words.collect::<Vec<_>>(), &[])?;
        agent.line("connected with server").await?;
        Ok(Running {
            path: Path::Proxy(proxy),
            server: vec![server.pid()],
            agent: vec![agent.pid()],
            agents: Some(agents),
            children: vec![server, agent],
        })
    }
}

/// The address behind `before` in a line of the log.
fn address(line: &str, before: &str) -> anyhow::Result<SocketAddr> {
    let (_, rest) = line
        .split_once(before)
        .with_context(|| format!("no {before} in {line:?}"))?;
    let end = rest.find([' ', '/']).unwrap_or(rest.len());
    rest[..end].parse().with_context(|| format!("no address in {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_of_both_ends_until_one_is_named() {
        let tunnel: Tunnel = "q+2=quic --quic-congestion bbr agent: --threads 2 server: --id='a b'"
            .parse()
            .unwrap();
        assert_eq!((&*tunnel.name, tunnel.carrier), ("q+2", Kind::Quic));
        assert_eq!(tunnel.server, ["--quic-congestion", "bbr", "--id=a b"]);
        assert_eq!(tunnel.agent, ["--quic-congestion", "bbr", "--threads", "2"]);
    }

    #[test]
    fn what_is_no_variant_is_refused() {
        for wrong in [
            "quic",
            "=quic --a",
            "a b=quic --a",
            "x=",
            "x=quic",
            "x=quic server:",
            "x=bare-tls --a",
            "x=tcp --a",
            "x=quic --a 'b",
        ] {
            assert!(wrong.parse::<Tunnel>().is_err(), "{wrong}");
        }
    }
}
