//! Medians with their spread, as a table and as JSON.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{Kind, cell::Cell, cell::Figures};
use crate::stats::{median, percentile_of};

/// Everything that was measured, by kind and measurement.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<(Cell, Kind, Vec<Figures>)>,
}

impl Report {
    /// Adds one run.
    pub fn add(&mut self, cell: Cell, kind: Kind, figures: Figures) {
        let row = self.rows.iter_mut().find(|row| (row.0, row.1) == (cell, kind));
        match row {
            Some((.., runs)) => runs.push(figures),
            None => self.rows.push((cell, kind, vec![figures])),
        }
    }

    /// A Markdown table for each measurement, a kind a row: medians, and the smallest and largest run in brackets.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut last = None;
        for (cell, kind, runs) in &self.rows {
            let figures = by_name(runs);
            if last != Some(cell) {
                let names: Vec<_> = figures.keys().copied().collect();
                // Writing to a string cannot fail.
                let _ = writeln!(text, "\n| {cell} | {} |", names.join(" | "));
                let _ = writeln!(text, "|---|{}", "---:|".repeat(names.len()));
                last = Some(cell);
            }
            let _ = write!(text, "| {kind} |");
            for values in figures.values() {
                let range = (percentile_of(values, 0.0), percentile_of(values, 1.0));
                let digits = if range.1 < 100.0 { 2 } else { 0 };
                let _ = write!(
                    text,
                    " {:.digits$} ({:.digits$}-{:.digits$}) |",
                    median(values),
                    range.0,
                    range.1
                );
            }
            text.push('\n');
        }
        text
    }

    /// Every run of every kind.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let rows = self.rows.iter().map(|(cell, kind, runs)| {
            serde_json::json!({
                "measurement": cell.to_string(),
                "kind": kind.to_string(),
                "runs": runs,
            })
        });
        rows.collect()
    }
}

fn by_name(runs: &[Figures]) -> BTreeMap<&str, Vec<f64>> {
    let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, value) in runs.iter().flatten() {
        values.entry(name).or_default().push(*value);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_the_median_and_the_range() {
        let mut report = Report::default();
        let cell = "up-1".parse().unwrap();
        for value in [3.0, 1.0, 2.0] {
            report.add(cell, Kind::Ws, Figures::from([("gb".to_owned(), value)]));
        }
        assert!(
            report.table().contains("| ws | 2.00 (1.00-3.00) |"),
            "{}",
            report.table()
        );
        assert_eq!(report.json()[0]["runs"].as_array().unwrap().len(), 3);
    }
}
