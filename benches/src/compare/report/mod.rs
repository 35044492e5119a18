//! What came out: medians with their spread, as tables, JSON and drawings.

mod draw;
mod json;
mod table;

use std::time::Duration;

use serde::Serialize;

use super::{
    calibration::Calibration,
    cell::{Cell, Shown},
    client::Outcome,
    link::Link,
    machine::Machine,
    peers::Tunnel,
};
use crate::stats::Spread;

/// How it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// How often.
    pub repetitions: usize,
    /// For how long each time.
    pub seconds: f64,
    /// What random choices began with.
    pub seed: u64,
    /// Over what; `None` is loopback.
    pub link: Option<Link>,
    /// Whether peers, and what measures latency, had real-time priority.
    pub realtime: bool,
    /// Carriers with settings of their own.
    pub variants: Vec<Tunnel>,
    /// How many measurements there are to be, with their repetitions.
    pub measurements: usize,
}

/// All results.
#[derive(Debug)]
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// How.
    pub settings: Settings,
    /// How long it took.
    pub took: Duration,
    cells: Vec<Measured>,
}

/// The results of one measurement.
#[derive(Debug)]
struct Measured {
    cell: Cell,
    /// Of arithmetic before each repetition, in milliseconds.
    calibration: Vec<f64>,
    /// Of a step through memory then, in nanoseconds.
    memory: Vec<f64>,
    peers: Vec<Row>,
}

/// The results of one measurement of one peer.
#[derive(Debug)]
struct Row {
    peer: String,
    runs: Vec<Outcome>,
    /// Why runs gave nothing.
    failed: Vec<String>,
}

impl Report {
    /// An empty one.
    #[must_use]
    pub fn new(machine: Machine, settings: Settings) -> Self {
        Self {
            machine,
            settings,
            took: Duration::ZERO,
            cells: Vec::new(),
        }
    }

    /// Notes how long fixed work took before a repetition.
    pub fn calibrated(&mut self, cell: Cell, calibration: Calibration) {
        let measured = self.measured(cell);
        measured.calibration.push(calibration.arithmetic.as_secs_f64() * 1e3);
        measured.memory.push(calibration.memory.as_secs_f64() * 1e9);
    }

    /// Adds a run.
    pub fn add(&mut self, cell: Cell, peer: &str, outcome: anyhow::Result<Outcome>) {
        let measured = self.measured(cell);
        let known = measured.peers.iter().position(|row| row.peer == peer);
        let index = known.unwrap_or_else(|| {
            measured.peers.push(Row {
                peer: peer.to_owned(),
                runs: Vec::new(),
                failed: Vec::new(),
            });
            measured.peers.len() - 1
        });
        let row = &mut measured.peers[index];
        match outcome {
            Ok(outcome) => row.runs.push(outcome),
            Err(error) => row.failed.push(format!("{error:#}")),
        }
    }

    /// How many measurements were made and how many there were to be, if some are missing.
    fn unfinished(&self) -> Option<(usize, usize)> {
        let rows = self.cells.iter().flat_map(|measured| &measured.peers);
        let made = rows.map(|row| row.runs.len() + row.failed.len()).sum();
        let wanted = self.settings.measurements;
        (made < wanted).then_some((made, wanted))
    }

    /// What is wrong with it, in a sentence; `None` if nothing is.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let mut faults = Vec::new();
        if let Some((made, wanted)) = self.unfinished() {
            faults.push(format!("only {made} of {wanted} measurements were made"));
        }
        let rows = || self.cells.iter().flat_map(|measured| &measured.peers);
        match rows().map(|row| row.failed.len()).sum() {
            0 => {}
            failed => faults.push(format!("measurements that failed: {failed}")),
        }
        match self.cells.iter().map(Measured::faulty).sum() {
            0 => {}
            faulty => faults.push(format!(
                "measurements in which something failed, was lost or stayed unanswered: {faulty}"
            )),
        }
        (!faults.is_empty()).then(|| faults.join("; "))
    }

    fn measured(&mut self, cell: Cell) -> &mut Measured {
        let known = self.cells.iter().position(|measured| measured.cell == cell);
        let index = known.unwrap_or_else(|| {
            self.cells.push(Measured {
                cell,
                calibration: Vec::new(),
                memory: Vec::new(),
                peers: Vec::new(),
            });
            self.cells.len() - 1
        });
        &mut self.cells[index]
    }
}

impl Measured {
    /// How many runs gave figures that tell of faults.
    fn faulty(&self) -> usize {
        let figures = self.cell.figures().iter();
        let keys: Vec<_> = figures
            .filter(|figure| figure.shown == Shown::Faults)
            .map(|figure| figure.key)
            .collect();
        let is_faulty = |run: &&Outcome| {
            let counted = keys.iter().filter_map(|key| run.figures.get(*key));
            !run.errors.is_empty() || counted.copied().any(|count| count > 0.0)
        };
        self.peers.iter().flat_map(|row| &row.runs).filter(is_faulty).count()
    }
}

impl Row {
    /// A figure in every run that has it.
    fn values(&self, key: &str) -> Vec<f64> {
        let values = self.runs.iter().filter_map(|run| run.figures.get(key));
        values.copied().filter(|value| value.is_finite()).collect()
    }

    fn spread(&self, key: &str) -> Option<Spread> {
        Spread::of(&self.values(key))
    }

    /// What went wrong, each once, with how often it did: whole runs first.
    fn errors(&self) -> Vec<(String, usize)> {
        let mut errors: Vec<(String, usize)> = Vec::new();
        let within = self.runs.iter().flat_map(|run| &run.errors);
        for error in self.failed.iter().chain(within) {
            // The rest is what processes said.
            let line = error.lines().next().unwrap_or_default();
            match errors.iter_mut().find(|(known, _)| known == line) {
                Some((_, count)) => *count += 1,
                None => errors.push((line.to_owned(), 1)),
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One measurement of three runs, of which one failed.
    pub(super) fn report() -> Report {
        let machine = Machine {
            version: "v1".to_owned(),
            programs: "tunnel-server 0.1.0".to_owned(),
            rustc: "rustc 1".to_owned(),
            kernel: "Linux 6".to_owned(),
            cpu: "cpu".to_owned(),
            cpus: 2,
            congestion: "cubic".to_owned(),
        };
        let settings = Settings {
            repetitions: 3,
            seconds: 0.5,
            seed: 1,
            link: None,
            realtime: true,
            variants: vec!["bbr=quic --quic-congestion bbr server: --threads 2".parse().unwrap()],
            measurements: 5,
        };
        let mut report = Report::new(machine, settings);
        let cell = "up-16".parse().unwrap();
        let calibration = Calibration {
            arithmetic: Duration::from_millis(30),
            memory: Duration::from_nanos(12),
        };
        report.calibrated(cell, calibration);
        for speed in [0.3, 0.123_456] {
            let mut outcome = Outcome::default();
            for (key, value) in [("gb_per_second", speed), ("failed", 2.0), ("jain", 0.99)] {
                outcome.figures.insert(key.to_owned(), value);
            }
            outcome.errors.push("connecting failed".to_owned());
            report.add(cell, "quic", Ok(outcome));
        }
        report.add(cell, "quic", Err(anyhow::anyhow!("it has <ended>; it said:\nfire")));
        report.add(cell, "h2", Err(anyhow::anyhow!("it has ended")));
        report
    }

    #[test]
    fn faults_are_told() {
        let mut report = report();
        let fault = report.fault().unwrap();
        for part in ["only 4 of 5", "failed: 2", "unanswered: 2"] {
            assert!(fault.contains(part), "{fault}");
        }
        report.settings.measurements = 4;
        assert!(!report.fault().unwrap().contains("only"));
        for row in &mut report.cells[0].peers {
            row.failed.clear();
            row.runs.retain(|run| run.errors.is_empty());
        }
        report.settings.measurements = 0;
        assert_eq!(report.fault(), None);
    }

    #[test]
    fn errors_are_counted_once_each() {
        let report = report();
        let errors = report.cells[0].peers[0].errors();
        assert_eq!(
            errors,
            [
                ("it has <ended>; it said:".to_owned(), 1),
                ("connecting failed".to_owned(), 2)
            ]
        );
    }
}
