//! Programs as processes, with what they say.

use std::{
    ffi::OsStr,
    process::{Command as StdCommand, ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
};

use super::soon;

/// A running program. Dropping it kills it and, when the test is failing, prints what it said.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    pid: u32,
    /// What it writes on standard error: the log.
    pub(crate) log: Lines,
    /// What it writes on standard output.
    pub(crate) out: Lines,
}

impl Process {
    pub(crate) fn server<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tunnel-server"));
        command.args(args);
        Self::start("tunnel-server", command)
    }

    pub(crate) fn agent<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tunnel-agent"));
        command.args(args);
        Self::start("tunnel-agent", command)
    }

    /// Starts a command, without this process's environment but with what the command sets.
    pub(crate) fn start(name: &'static str, mut command: Command) -> Self {
        let set: Vec<_> = command
            .as_std()
            .get_envs()
            .map(|(k, v)| (k.to_owned(), v.map(OsStr::to_owned)))
            .collect();
        command.env_clear();
        command.envs(set.into_iter().filter_map(|(name, value)| Some((name, value?))));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        Self {
            name,
            pid: child.id().unwrap(),
            log: Lines::of(child.stderr.take().unwrap()),
            out: Lines::of(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = StdCommand::new("kill")
            .args([&format!("-{signal}"), &self.pid.to_string()])
            .status();
        assert!(sent.unwrap().success(), "kill -{signal} {}", self.name);
    }

    /// Waits until it has ended by itself or by a signal.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = soon("the program's end", self.child.wait()).await.unwrap();
        self.log.resume();
        soon("the end of what the program says", async {
            tokio::join!(self.log.end(), self.out.end())
        })
        .await;
        status
    }

    /// The memory that it occupies at the moment, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap().count()
    }

    /// How many files and sockets it has open.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap().count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- {} {} said:\n{}\n{}",
                self.name,
                self.pid,
                self.out.text(),
                self.log.text()
            );
        }
    }
}

/// The lines that a program has written so far, and a way to wait for more.
pub(crate) struct Lines {
    said: watch::Receiver<Said>,
    is_read: watch::Sender<bool>,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn of(pipe: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let (told, said) = watch::channel(Said::default());
        let (is_read, mut may_read) = watch::channel(true);
        tokio::spawn(async move {
            let mut lines = BufReader::new(pipe).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                told.send_modify(|said| said.lines.push(line));
                // Whoever could stop it has gone.
                let _ = may_read.wait_for(|may| *may).await;
            }
            told.send_modify(|said| said.ended = true);
        });
        Self { said, is_read }
    }

    /// Reads no more for now, so that the program finds its pipe full.
    pub(crate) fn pause(&self) {
        self.is_read.send_replace(false);
    }

    /// Reads on.
    pub(crate) fn resume(&self) {
        self.is_read.send_replace(true);
    }

    /// Waits for a line that contains `part`, and gives it.
    pub(crate) async fn line(&self, part: &str) -> String {
        self.line_after(0, part).await
    }

    /// Where the next line will be.
    pub(crate) fn here(&self) -> usize {
        self.said.borrow().lines.len()
    }

    /// Waits for a line at `from` or later that contains `part`, and gives it.
    pub(crate) async fn line_after(&self, from: usize, part: &str) -> String {
        let find = |said: &Said| said.lines.iter().skip(from).find(|line| line.contains(part)).cloned();
        let mut said = self.said.clone();
        let what = format!("a line with {part:?}");
        let waited = soon(&what, said.wait_for(|said| said.ended || find(said).is_some()))
            .await
            .unwrap();
        find(&waited).unwrap_or_else(|| panic!("the program ended without {what}"))
    }

    /// Everything so far.
    pub(crate) fn text(&self) -> String {
        self.said.borrow().lines.join("\n")
    }

    async fn end(&self) {
        self.said.clone().wait_for(|said| said.ended).await.unwrap();
    }
}
