//! Network namespaces, made with `ip` (iproute2) and removed in the end.

use std::{net::Ipv4Addr, path::Path, process::Command};

use anyhow::{Context as _, ensure};

const PREFIX: &str = "carrier-bench";

/// Two namespaces. Dropping it removes them.
#[derive(Debug)]
pub struct Namespaces {
    /// The clients' and the server's.
    pub near: String,
    /// The agent's and the target's.
    pub far: String,
}

impl Namespaces {
    /// The server's address.
    pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
    /// The agent's and the target's.
    pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

    /// Makes them, and removes what a run has left behind that was killed.
    pub fn make() -> anyhow::Result<Self> {
        remove_stale();
        let name = |end| format!("{PREFIX}-{}-{end}", std::process::id());
        let namespaces = Self {
            near: name("near"),
            far: name("far"),
        };
        for name in [&namespaces.near, &namespaces.far] {
            ip(&["netns", "add", name])
                .context("--link needs network namespaces: the program ip of iproute2, and the rights of root (CAP_SYS_ADMIN, CAP_NET_ADMIN)")?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(namespaces)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [&self.near, &self.far] {
            // It may not have been made.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn remove_stale() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(words).output().context("cannot run ip")?;
    ensure!(
        output.status.success(),
        "`ip {}` fails: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
