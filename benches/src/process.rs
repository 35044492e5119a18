//! What a process uses, from `/proc` (proc(5)).

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
    // Linux reports times in ticks of 1/100 s to user space on every architecture that we run on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(Usage {
        cpu_seconds: ticks as f64 / TICKS_PER_SECOND,
        resident_kib: resident.split_whitespace().next()?.parse().ok()?,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.resident_kib > 0 && usage.descriptors > 2, "{usage:?}");
        assert_eq!(super::usage(u32::MAX), None);
    }
}
