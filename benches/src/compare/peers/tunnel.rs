//! `tunnel-server` and `tunnel-agent`.

use std::{ffi::OsString, net::SocketAddr};

use anyhow::{Context as _, ensure};

use super::{Child, Place, Running};
use crate::{carrier::Kind, client::Path, credentials::Credentials};

pub(super) async fn start(kind: Kind, place: &Place) -> anyhow::Result<Running> {
    let credentials = Credentials::in_dir(&place.credentials)?;
    let scheme = match kind {
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
        .chain(flag("--agent-ca", credentials.ca_file()));
    let mut server = Child::start("tunnel-server", place.near.as_deref(), &words.collect::<Vec<_>>(), &[])?;
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
        .chain(flag("--ca", credentials.ca_file()));
    let mut agent = Child::start("tunnel-agent", place.far.as_deref(), &words.collect::<Vec<_>>(), &[])?;
    agent.line("connected with server").await?;
    Ok(Running {
        path: Path::Proxy(proxy),
        server: vec![server.pid()],
        agent: vec![agent.pid()],
        agents: Some(agents),
        children: vec![server, agent],
    })
}

/// The address behind `before` in a line of the log.
fn address(line: &str, before: &str) -> anyhow::Result<SocketAddr> {
    let (_, rest) = line
        .split_once(before)
        .with_context(|| format!("no {before} in {line:?}"))?;
    let end = rest.find([' ', '/']).unwrap_or(rest.len());
    rest[..end].parse().with_context(|| format!("no address in {line:?}"))
}
