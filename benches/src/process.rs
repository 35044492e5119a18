//! What processes use, from `/proc` (proc(5)).

use std::fs;

/// Figures of one process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time so far, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory in KiB.
    pub resident_kib: u64,
    /// Open file descriptors.
    pub descriptors: usize,
}

/// The usage of a process, or `None` if it is gone or not ours to look at.
#[must_use]
pub fn usage(pid: u32) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage {
        cpu_seconds: cpu_seconds(pid)?,
        resident_kib: kib(&status, "VmRSS:")?,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
    })
}

/// User and system time of a process so far, in steps of 10 ms.
#[must_use]
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    // Linux reports times in ticks of 1/100 s to user space on every architecture that we run on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let fields = stat(pid)?;
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / TICKS_PER_SECOND)
}

/// The memory that a process has, in KiB: all of its own and its share of what it has in common with others (PSS).
#[must_use]
pub fn memory_kib(pid: u32) -> Option<u64> {
    kib(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:")
}

/// A process with everything that it started, directly or not.
#[must_use]
pub fn family(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let parents: Vec<(u32, u32)> = processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, stat(pid)?.get(1)?.parse().ok()?))
        })
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| child));
        next += 1;
    }
    family
}

/// The fields of `/proc/PID/stat` behind the name, which is in parentheses and may hold anything.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let pid = std::process::id();
        let usage = usage(pid).unwrap();
        assert!(usage.resident_kib > 0 && usage.descriptors > 2, "{usage:?}");
        assert!(memory_kib(pid).unwrap() > 0);
        assert_eq!(super::usage(u32::MAX), None);
    }

    #[test]
    fn a_child_is_of_the_family() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let family = family(std::process::id());
        assert!(family.contains(&child.id()) && family.contains(&std::process::id()));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
