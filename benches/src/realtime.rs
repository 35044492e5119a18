//! Real-time priority (sched(7)), so that a process does not wait for those that only fill the processors.

use std::{process::Command, thread};

use anyhow::{Context as _, anyhow, ensure};
use nix::unistd::gettid;

/// Who goes before whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// What is measured: it goes before whatever has the usual priority.
    Measured = 1,
    /// What measures: it goes before that, too.
    Measuring = 2,
}

/// Gives the calling thread, and what it starts from now on, the policy `SCHED_RR`.
pub fn enter(rank: Rank) -> anyhow::Result<()> {
    let words = [
        "-r".to_owned(),
        "-p".to_owned(),
        (rank as u8).to_string(),
        gettid().to_string(),
    ];
    let output = Command::new("chrt")
        .args(words)
        .output()
        .context("real-time priority takes `chrt` (of util-linux)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "real-time priority takes root or CAP_SYS_NICE: {}",
        said.trim()
    );
    Ok(())
}

/// Whether it can be had.
pub fn check() -> anyhow::Result<()> {
    let tried = thread::spawn(|| enter(Rank::Measuring)).join();
    tried.map_err(|_| anyhow!("the thread that tried it has panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the calling thread, by proc_pid_stat(5).
    fn policy() -> String {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(38).unwrap().to_owned()
    }

    #[test]
    fn threads_inherit_it_and_others_do_not_have_it() {
        const SCHED_RR: &str = "2";
        let usual = policy();
        let inherited = thread::spawn(|| {
            enter(Rank::Measured)?;
            thread::spawn(policy).join().map_err(|_| anyhow!("panicked"))
        });
        match inherited.join().unwrap() {
            Ok(policy) => assert_eq!(policy, SCHED_RR),
            // Then a comparison says so before it measures anything.
            Err(error) => {
                assert!(check().is_err());
                assert!(format!("{error:#}").contains("real-time priority takes"), "{error:#}");
            }
        }
        assert_eq!(policy(), usual);
    }
}
