//! What a run was made with and on.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use serde::Serialize;

/// The machine and the versions of everything.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The version of this program, by git if there is a checkout.
    pub version: String,
    /// The version of `tunnel-server`.
    pub programs: String,
    /// The compiler.
    pub rustc: String,
    /// The kernel.
    pub kernel: String,
    /// The processor.
    pub cpu: String,
    /// How many of them.
    pub cpus: usize,
    /// The congestion control of TCP.
    pub congestion: String,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn this(programs: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let here = env!("CARGO_MANIFEST_DIR");
        Self {
            version: said("git", &["-C", here, "describe", "--always", "--dirty"])
                .unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
            programs: said(&programs.join("tunnel-server").to_string_lossy(), &["--version"]).unwrap_or_default(),
            rustc: said("rustc", &["--version"]).unwrap_or_default(),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease")),
            cpu: model
                .and_then(|line| line.split_once(": "))
                .map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned()),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            congestion: read("/proc/sys/net/ipv4/tcp_congestion_control"),
        }
    }
}

/// How long before this program another was built, if that was long before: then it may be of other sources.
#[must_use]
pub fn older(program: &Path) -> Option<Duration> {
    let built = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    let mine = built(&std::env::current_exe().ok()?)?;
    let age = mine.duration_since(built(program)?).ok()?;
    (age > Duration::from_secs(3600)).then_some(age)
}

/// How often the kernel has run short of memory for TCP. Then it drops segments of all connections, and what is measured
/// is how they recover.
#[must_use]
pub fn tcp_shortages() -> u64 {
    let netstat = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    counter(&netstat, "TcpExt:", "TCPMemoryPressures").unwrap_or_default()
}

/// A counter of `/proc/net/netstat`, where each group has a line of names and one of values.
fn counter(netstat: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter(|line| line.starts_with(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|known| known == name)?;
    values.split(' ').nth(at)?.parse().ok()
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_names() {
        let netstat = "TcpExt: SyncookiesSent TCPMemoryPressures TCPMemoryPressuresChrono\nTcpExt: 0 3 1500\n\
                       IpExt: InNoRoutes TCPMemoryPressures\nIpExt: 1 2\n";
        assert_eq!(counter(netstat, "TcpExt:", "TCPMemoryPressures"), Some(3));
        assert_eq!(counter(netstat, "IpExt:", "TCPMemoryPressures"), Some(2));
        assert_eq!(counter(netstat, "TcpExt:", "Other"), None);
        assert_eq!(counter("", "TcpExt:", "TCPMemoryPressures"), None);
    }
}
