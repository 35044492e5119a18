//! Everything, for programs.

use serde_json::{Map, Value, json};

use super::{Measured, Report, Row};

impl Report {
    /// The machine, the settings, and for each measurement and peer the median, the smallest, the largest and every run.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "format": 1,
            "machine": self.machine,
            "settings": self.settings,
            "unfinished": self.unfinished().is_some(),
            "took_seconds": self.took.as_secs_f64(),
            "cells": self.cells.iter().map(Measured::json).collect::<Vec<_>>(),
        })
    }
}

impl Measured {
    fn json(&self) -> Value {
        let keys: Vec<_> = self.cell.figures().iter().map(|figure| figure.key).collect();
        json!({
            "cell": self.cell,
            "title": self.cell.title(),
            "calibration_ms": self.calibration,
            "memory_ns": self.memory,
            "peers": self.peers.iter().map(|row| row.json(&keys)).collect::<Vec<_>>(),
        })
    }
}

impl Row {
    fn json(&self, keys: &[&str]) -> Value {
        let figures: Map<String, Value> = keys
            .iter()
            .filter_map(|key| {
                let spread = self.spread(key)?;
                let value = json!({
                    "median": spread.median,
                    "min": spread.min,
                    "max": spread.max,
                    "runs": self.values(key),
                });
                Some(((*key).to_owned(), value))
            })
            .collect();
        let errors = self
            .errors()
            .into_iter()
            .map(|(error, count)| json!({ "error": error, "count": count }));
        json!({
            "peer": self.peer,
            "figures": figures,
            "runs": self.runs.len(),
            "failed_runs": self.failed.len(),
            "errors": errors.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;

    #[test]
    fn every_run_can_be_found() {
        let json = report().json();
        assert_eq!(json["settings"]["variants"][0]["agent"][1], "bbr");
        assert_eq!(json["unfinished"], true);
        let cell = &json["cells"][0];
        assert_eq!((&json["format"], &cell["cell"]), (&1.into(), &"up-16".into()));
        assert_eq!(
            (&cell["calibration_ms"][0], &cell["memory_ns"][0]),
            (&30.0.into(), &12.0.into())
        );
        let quic = &cell["peers"][0];
        assert_eq!(quic["peer"], "quic");
        assert_eq!(
            quic["figures"]["gb_per_second"]["runs"],
            serde_json::json!([0.3, 0.123_456])
        );
        assert_eq!(quic["figures"]["gb_per_second"]["median"], 0.123_456);
        assert_eq!((&quic["runs"], &quic["failed_runs"]), (&2.into(), &1.into()));
        assert_eq!(quic["errors"][1]["count"], 2);
        assert_eq!(cell["peers"][1]["figures"], serde_json::json!({}));
    }
}
