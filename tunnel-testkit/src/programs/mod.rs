//! Programs of others that people put in the way of a tunnel, for tests against them as they are.
//!
//! A program that is not installed is said on standard error, and given as `None`: then a test shows nothing.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy exempts only functions marked as tests"
)]

mod certificate;
mod configured;
mod guide;

use std::{
    fs::{self, Permissions},
    io::{ErrorKind, Write as _},
    net::SocketAddr,
    ops::Range,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

pub use certificate::Certificate;
pub use configured::{PASSWORD, USER, envoy, haproxy, nghttpx, nginx, squid, tinyproxy};
pub use guide::documented;

/// How long a program may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a program may take that ends by itself.
const RUN: Duration = Duration::from_secs(120);
/// How often another port is tried: another process can take one before the program does.
const ATTEMPTS: usize = 3;
/// Where programs listen: below `ip_local_port_range` of Linux, and above what has a name.
const PORTS: Range<u16> = 12_000..32_000;
/// Where servers are that are not on the path of ordinary users.
const SBIN: &str = "/usr/sbin";

/// A running program, in a directory of its own. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    child: Child,
    addr: SocketAddr,
    directory: TempDir,
}

impl Program {
    /// Starts a program, and waits until it listens on a loopback port. `configure` is given a directory and the port,
    /// and gives the arguments. What it writes goes to a file.
    ///
    /// # Panics
    ///
    /// If the program does not come up.
    pub async fn start(name: &str, configure: impl Fn(&Path, u16) -> Vec<String>) -> Option<Self> {
        for _ in 0..ATTEMPTS {
            let directory = tempfile::tempdir().expect("a directory");
            // A program that is started by root becomes another user.
            fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("permissions");
            let addr = free_addr().await;
            let output = fs::File::create(output_file(&directory)).expect("a file");
            let child = Command::new(find(name))
                .args(configure(directory.path(), addr.port()))
                .stdin(Stdio::null())
                .stdout(output.try_clone().expect("a file"))
                .stderr(output)
                .spawn();
            let child = match child {
                Ok(child) => child,
                Err(error) => {
                    say(&format!("skipped: {name}: {error}"));
                    return None;
                }
            };
            let mut program = Self { child, addr, directory };
            if program.listens().await {
                return Some(program);
            }
            say(&format!("{name} did not come up: {}", program.output()));
        }
        panic!("{name} does not come up");
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it has written so far.
    #[must_use]
    pub fn output(&self) -> String {
        let output = fs::read(output_file(&self.directory)).unwrap_or_default();
        String::from_utf8_lossy(&output).into_owned()
    }

    /// Sends it a signal, such as `USR1`.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill");
        assert!(sent.success(), "no signal {name} for {pid}");
    }

    async fn listens(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            // It has ended, or cannot be asked.
            if !matches!(self.child.try_wait(), Ok(None)) {
                return false;
            }
            if TcpStream::connect(self.addr).await.is_ok() {
                return true;
            }
            sleep(Duration::from_millis(20)).await;
        }
        false
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end, however that is, without input.
///
/// # Panics
///
/// If it takes longer than two minutes.
pub async fn run(name: &str, args: &[&str]) -> Option<Output> {
    let mut command = tokio::process::Command::new(find(name));
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    match timeout(RUN, command.output()).await.expect("it ends by itself") {
        Ok(output) => Some(output),
        Err(error) => {
            say(&format!("skipped: {name}: {error}"));
            None
        }
    }
}

/// A loopback address that nobody has at the moment. Its port is none of those that the system gives whoever asks for any:
/// somebody else could get it until the program is up, and be taken for the program.
async fn free_addr() -> SocketAddr {
    loop {
        let addr = SocketAddr::from(([127, 0, 0, 1], fastrand::u16(PORTS)));
        match TcpListener::bind(addr).await {
            Ok(_) => return addr,
            Err(error) => assert_eq!(error.kind(), ErrorKind::AddrInUse, "no port: {error}"),
        }
    }
}

fn output_file(directory: &TempDir) -> PathBuf {
    directory.path().join("output")
}

fn find(name: &str) -> PathBuf {
    let server = Path::new(SBIN).join(name);
    if server.exists() { server } else { name.into() }
}

/// Says it even if the test passes, when its output is not shown.
fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
