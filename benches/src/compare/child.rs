//! Programs that end with this one, and what they say.

use std::{
    collections::VecDeque,
    ffi::OsString,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child as Process, Command},
    sync::mpsc,
    time::timeout,
};

use crate::realtime::{self, Rank};

/// How long a program may take until it says what is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// Lines of a program that are kept, to be shown when it fails.
const KEPT: usize = 20;

/// A program that runs, with those that it has started. Dropping it kills all of them.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: Process,
    lines: mpsc::Receiver<String>,
    said: Said,
}

type Said = Arc<Mutex<VecDeque<String>>>;

/// Where and how programs run.
#[derive(Clone, Debug)]
pub struct Site {
    /// Their network namespace; `None` is this process's.
    pub namespace: Option<String>,
    /// Whether they have real-time priority.
    pub realtime: bool,
}

impl Site {
    /// The same without real-time priority.
    #[must_use]
    pub fn usual(&self) -> Self {
        Self {
            namespace: self.namespace.clone(),
            realtime: false,
        }
    }
}

impl Child {
    /// Starts a program without this one's environment.
    ///
    /// The kernel kills it when this process ends in whatever way: [`guard`] asks for that. It leads a process group, by
    /// which those are found that it starts.
    pub fn start(
        name: &str,
        site: &Site,
        words: &[OsString],
        environment: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let me = std::env::current_exe()?;
        let mut command = match &site.namespace {
            None => Command::new(&me),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(&me);
                command
            }
        };
        command
            .args(["guard", &std::process::id().to_string()])
            .args(site.realtime.then_some("--realtime"))
            .arg("--")
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut process = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let (tx, lines) = mpsc::channel(64);
        let said = Said::default();
        let out = process.stdout.take().context("no stdout")?;
        let err = process.stderr.take().context("no stderr")?;
        tokio::spawn(listen(out, tx.clone(), Arc::clone(&said)));
        tokio::spawn(listen(err, tx, Arc::clone(&said)));
        Ok(Self {
            name: name.to_owned(),
            process,
            lines,
            said,
        })
    }

    /// Its process; 0 if it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id().unwrap_or_default()
    }

    /// Waits for a line with `part`, and gives what comes behind it.
    pub async fn line(&mut self, part: &str) -> anyhow::Result<String> {
        self.line_within(PATIENCE, part).await
    }

    /// The same with a time of one's own.
    pub async fn line_within(&mut self, time: Duration, part: &str) -> anyhow::Result<String> {
        let found = timeout(time, async {
            while let Some(line) = self.lines.recv().await {
                if let Some((_, rest)) = line.split_once(part) {
                    return Some(rest.trim().to_owned());
                }
            }
            None
        });
        match found.await {
            Ok(Some(rest)) => Ok(rest),
            Ok(None) => bail!("{} has ended; it said:\n{}", self.name, self.said()),
            Err(_) => bail!(
                "{} does not say {part:?} within {time:?}; it said:\n{}",
                self.name,
                self.said()
            ),
        }
    }

    /// Whether it has ended, which no program does by itself here.
    pub fn ended(&mut self) -> bool {
        let group = self.group();
        let has_ended = !matches!(self.process.try_wait(), Ok(None));
        if has_ended {
            kill_all(group);
        }
        has_ended
    }

    /// Waits until it has ended; cancel safe.
    pub async fn over(&mut self) {
        let group = self.group();
        // It fails only for what was never started.
        let _ = self.process.wait().await;
        kill_all(group);
    }

    /// Its last lines.
    #[must_use]
    pub fn said(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().map(|line| format!("  {}: {line}\n", self.name)).collect()
    }

    /// Ends it, and waits until it has.
    pub async fn stop(mut self) {
        kill_all(self.group());
        // It may have ended already.
        let _ = self.process.kill().await;
    }

    /// Its process group, until it was noticed that it has ended: another one may have the number then.
    fn group(&self) -> Option<Pid> {
        let pid = self.process.id()?.try_into().ok()?;
        Some(Pid::from_raw(pid))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        kill_all(self.group());
    }
}

fn kill_all(group: Option<Pid>) {
    if let Some(group) = group {
        // They may have ended already.
        let _ = killpg(group, Signal::SIGKILL);
    }
}

/// Notes what a program says, and hands it on to whoever waits for a line. What nobody waits for is not kept for long.
async fn listen(pipe: impl AsyncRead + Unpin, lines: mpsc::Sender<String>, said: Said) {
    let mut pipe = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = pipe.next_line().await {
        {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.push_back(line.clone());
            if said.len() > KEPT {
                said.pop_front();
            }
        }
        // Nobody waits if it is full.
        let _ = lines.try_send(line);
    }
}

/// Becomes another program that the kernel kills when process `parent` ends, with real-time priority if that is wanted.
/// Returns only if that fails.
pub fn guard(parent: u32, is_realtime: bool, words: &[OsString]) -> anyhow::Result<()> {
    use std::os::unix::process::{CommandExt as _, parent_id};

    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // It may have ended before.
    anyhow::ensure!(parent_id() == parent, "the program that started this one is gone");
    if is_realtime {
        realtime::enter(Rank::Measured)?;
    }
    let (program, arguments) = words.split_first().context("no program")?;
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}
