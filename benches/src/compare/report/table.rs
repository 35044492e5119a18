//! Tables in Markdown, which people can read as they are.

use std::fmt::Write as _;

use super::{Measured, Report, Row};
use crate::{compare::cell::Shown, stats::Spread};

impl Report {
    /// Everything, for people.
    #[must_use]
    pub fn markdown(&self) -> String {
        let Self {
            machine,
            settings,
            took,
            cells,
            ..
        } = self;
        let mut text = format!(
            "Version {} ({}), {}, {}, {} × {}, TCP {}. {}, {} repetitions of {} s, peers in turn, seed {}; {:.0} s in all.\n\
             Median (smallest–largest); what is counted is the sum of all repetitions.\n",
            machine.version,
            machine.programs,
            machine.rustc,
            machine.kernel,
            machine.cpus,
            machine.cpu,
            machine.congestion,
            settings
                .link
                .map_or("Loopback".to_owned(), |link| format!("Link {link}")),
            settings.repetitions,
            settings.seconds,
            settings.seed,
            took.as_secs_f64(),
        );
        if settings.realtime {
            text.push_str("Peers, and what sends and answers requests, with real-time priority.\n");
        }
        for variant in &settings.variants {
            let of_end = [("server", &variant.server), ("agent", &variant.agent)];
            let flags = of_end.map(|(end, flags)| match &flags[..] {
                [] => format!("no flags for the {end}"),
                flags => format!("`{}` for the {end}", flags.join(" ")),
            });
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "`{}` is `{}` with {}.",
                variant.name,
                variant.carrier,
                flags.join(" and ")
            );
        }
        if let Some((made, wanted)) = self.unfinished() {
            let _ = writeln!(text, "Interrupted: {made} of {wanted} measurements were made.");
        }
        for measured in cells {
            measured.write(&mut text);
        }
        text
    }
}

impl Measured {
    fn write(&self, text: &mut String) {
        let figures = self.cell.figures();
        let header = ["peer"].into_iter().map(str::to_owned);
        let titles = figures.iter().map(|figure| figure.title.to_owned());
        let mut rows = vec![header.chain(titles).chain(["runs".to_owned()]).collect::<Vec<_>>()];
        for row in &self.peers {
            let values = figures.iter().map(|figure| row.show(figure.key, figure.shown));
            let all = row.runs.len() + row.failed.len();
            let runs = format!("{}/{all}", row.runs.len());
            rows.push([row.peer.clone()].into_iter().chain(values).chain([runs]).collect());
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n### `{}`: {}\n", self.cell, self.cell.title());
        write_table(text, &rows);
        if let (Some(arithmetic), Some(memory)) = (Spread::of(&self.calibration), Spread::of(&self.memory)) {
            let (arithmetic, memory) = (show(Some(arithmetic)), show(Some(memory)));
            let _ = writeln!(
                text,
                "\nFixed work before each repetition: {arithmetic} ms; a step through 4 MiB of memory: {memory} ns."
            );
        }
        for row in &self.peers {
            for (error, count) in row.errors() {
                let _ = writeln!(text, "- {}: {error} ({count}×)", row.peer);
            }
        }
    }
}

impl Row {
    fn show(&self, key: &str, shown: Shown) -> String {
        match shown {
            Shown::Spread => show(self.spread(key)),
            Shown::Sum | Shown::Faults => {
                let values = self.values(key);
                if values.is_empty() {
                    "–".to_owned()
                } else {
                    short(values.iter().sum())
                }
            }
        }
    }
}

fn show(spread: Option<Spread>) -> String {
    match spread {
        None => "–".to_owned(),
        Some(Spread { min, median, max }) if min == max => short(median),
        Some(Spread { min, median, max }) => format!("{} ({}–{})", short(median), short(min), short(max)),
    }
}

/// Three digits that say something, at most.
pub(super) fn short(value: f64) -> String {
    #[allow(clippy::cast_possible_truncation)] // of a number below 400
    let before = if value == 0.0 {
        0
    } else {
        value.abs().log10().floor() as i32
    };
    let digits = usize::try_from(2 - before).unwrap_or(0);
    let text = format!("{value:.digits$}");
    match text.split_once('.') {
        Some((whole, part)) if part.bytes().all(|digit| digit == b'0') => whole.to_owned(),
        _ => text,
    }
}

/// Columns as wide as what they hold; the first one to the left, figures to the right.
fn write_table(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (index, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = match column {
                0 => write!(text, "| {cell:<width$} |"),
                _ => write!(text, " {cell:>width$} |"),
            };
        }
        text.push('\n');
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let line = "-".repeat(*width);
                let _ = match column {
                    0 => write!(text, "|-{line}-|"),
                    _ => write!(text, "-{line}:|"),
                };
            }
            text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::report, *};

    #[test]
    fn figures_have_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.012_345, "0.0123"),
            (0.123_456, "0.123"),
            (1.0, "1"),
            (12.34, "12.3"),
            (123.4, "123"),
            (12_345.6, "12346"),
            (-0.5, "-0.500"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn a_row_has_medians_sums_and_how_many_runs_count() {
        let text = report().markdown();
        let row = text.lines().find(|line| line.starts_with("| quic")).unwrap();
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[2], "0.123 (0.123–0.300)", "{text}");
        assert_eq!(cells[7..9], ["4", "2/3"], "{text}");
        assert!(text.contains("| h2 "), "{text}");
        assert!(text.contains("4 of 5 measurements"), "{text}");
        let variant = "`bbr` is `quic` with `--quic-congestion bbr --threads 2` for the server and `--quic-congestion bbr` for the agent.";
        assert!(text.contains(variant), "{text}");
        assert!(text.contains("- quic: connecting failed (2×)"), "{text}");
        assert!(text.contains("- h2: it has ended (1×)"), "{text}");
    }
}
