//! The comparison as a program, at its smallest.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_carrier-bench"))
}

/// Runs it for as short as it can be; gives its JSON and what it said. It has to end with `code`.
fn compare(code: i32, arguments: &[&str]) -> (Value, String) {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("runs.json");
    let output = command()
        .args(["--seconds=0.1", "--json"])
        .arg(&json)
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    (serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap(), said)
}

fn figure<'a>(json: &'a Value, cell: usize, peer: usize, key: &str) -> &'a Value {
    &json["cells"][cell]["peers"][peer]["figures"][key]["median"]
}

#[test]
fn bare_relays_carry_every_byte() {
    let arguments = [
        "--repetitions=1",
        "--only=relay-tls,relay-h2,relay-quinn",
        "--cell=integrity,up-2",
    ];
    let (json, said) = compare(0, &arguments);
    let told = said.lines().filter(|line| line.contains(": relay-")).count();
    assert_eq!(told, 6, "a line for each measurement: {said}");
    assert!(!said.contains(['\r', '\x1b']), "{said}");
    for peer in 0..3 {
        for (key, value) in [("rounds", 60.0), ("mismatches", 0.0), ("failed", 0.0)] {
            assert_eq!(*figure(&json, 0, peer, key), value, "{json:#}");
        }
        assert!(figure(&json, 1, peer, "gb_per_second").as_f64() > Some(0.0), "{json:#}");
    }
}

#[test]
fn a_peer_that_does_not_start_is_told_and_the_others_go_on() {
    let arguments = [
        "--repetitions=1",
        "--peer=broken=echo out of order >&2; exit 7",
        "--only=broken,direct",
        "--cell=rr",
    ];
    let (json, said) = compare(3, &arguments);
    assert!(said.contains("measurements that failed: 1"), "{said}");
    let peers = &json["cells"][0]["peers"];
    assert_eq!(
        (&peers[0]["runs"], &peers[0]["failed_runs"]),
        (&0.into(), &1.into()),
        "{json:#}"
    );
    assert!(!peers[0]["errors"].as_array().unwrap().is_empty(), "{json:#}");
    assert_eq!(*figure(&json, 0, 1, "unanswered"), 0.0, "{json:#}");
}

/// Waits for the number of a process that a peer has written to a file.
fn process_in(file: &Path) -> Pid {
    loop {
        if let Some(line) = std::fs::read_to_string(file).unwrap().lines().next() {
            return Pid::from_raw(line.parse().unwrap());
        }
        std::thread::yield_now();
    }
}

fn is_alive(process: Pid) -> bool {
    // Whoever inherits it may not have looked at it yet.
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !matches!(rest.trim().chars().next(), None | Some('Z' | 'X')))
}

/// Whether a process ends that was killed a moment ago.
fn ends(process: Pid) -> bool {
    let start = Instant::now();
    while is_alive(process) && start.elapsed() < Duration::from_secs(10) {
        std::thread::yield_now();
    }
    !is_alive(process)
}

#[test]
fn all_processes_of_a_peer_end_with_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let second = format!("sleep 600 & echo $! > {};", file.path().display());
    let peer = format!("--peer=two={second} exit 7");
    compare(3, &["--repetitions=1", &peer, "--only=two", "--cell=rr"]);
    assert!(ends(process_in(file.path())), "when it ends by itself");

    file.as_file().set_len(0).unwrap();
    let peer = format!("--peer=two={second} wait");
    let mut bench = command()
        .args([&peer, "--only=two", "--cell=rr"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let process = process_in(file.path());
    assert!(is_alive(process));
    kill(Pid::from_raw(bench.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    bench.wait().unwrap();
    assert!(ends(process), "when the run ends");
}

#[test]
fn peers_have_real_time_priority_if_that_is_wanted_and_can_be_had() {
    let policies = tempfile::NamedTempFile::new().unwrap();
    // The policy of the shell that starts it (proc_pid_stat(5)); 2 is SCHED_RR.
    let peer = format!(
        "--peer=spy=cut -d ' ' -f 41 /proc/$$/stat >> {}; exit 7",
        policies.path().display()
    );
    let arguments = ["--realtime", "--repetitions=1", &peer, "--only=spy,direct", "--cell=rr"];
    if benches::realtime::check().is_err() {
        let output = command().args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("real-time priority takes"), "{said}");
        return;
    }
    let (json, said) = compare(3, &arguments);
    assert_eq!(json["settings"]["realtime"], true, "{json:#}");
    assert_eq!(*figure(&json, 0, 1, "unanswered"), 0.0, "{said}");
    assert_eq!(std::fs::read_to_string(policies.path()).unwrap(), "2\n");
}

#[test]
fn a_peer_that_fails_is_not_tried_again_in_the_same_measurement() {
    let tries = tempfile::NamedTempFile::new().unwrap();
    let peer = format!("--peer=broken=echo tried >> {}; exit 7", tries.path().display());
    let arguments = ["--repetitions=3", &peer, "--only=broken,direct", "--cell=rr"];
    let (json, said) = compare(3, &arguments);
    assert!(said.contains("measurements that failed: 3"), "{said}");
    let peers = &json["cells"][0]["peers"];
    assert_eq!(
        (&peers[0]["failed_runs"], &peers[1]["runs"]),
        (&3.into(), &3.into()),
        "{json:#}"
    );
    assert_eq!(std::fs::read_to_string(tries.path()).unwrap(), "tried\n");
}
