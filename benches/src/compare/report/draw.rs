//! Bars with their spread, as SVG.

use std::{fmt::Write as _, fs, io, path::Path};

use super::{Measured, Report, table::short};
use crate::stats::Spread;

const WIDTH: f64 = 760.0;
const BAR: f64 = 18.0;
const STEP: f64 = 26.0;
const TOP: f64 = 54.0;
/// Where bars begin, and how long the longest is.
const LEFT: f64 = 120.0;
const LENGTH: f64 = 470.0;

impl Report {
    /// Writes `CELL.svg` for each measurement; makes the directory.
    pub fn draw(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        for measured in &self.cells {
            fs::write(dir.join(format!("{}.svg", measured.cell)), measured.svg())?;
        }
        Ok(())
    }
}

impl Measured {
    /// The first figure of the measurement, a bar for each peer.
    fn svg(&self) -> String {
        let Some(figure) = self.cell.figures().first() else {
            return String::new();
        };
        let rows: Vec<(&str, Option<Spread>)> = self
            .peers
            .iter()
            .map(|row| (&*row.peer, row.spread(figure.key)))
            .collect();
        let longest = rows
            .iter()
            .filter_map(|(_, spread)| Some((*spread)?.max))
            .fold(0.0, f64::max);
        let scale = if longest > 0.0 { LENGTH / longest } else { 0.0 };
        let height = TOP + STEP * rows.len() as f64 + 10.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"10\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{}</text>\n\
             <text x=\"10\" y=\"40\" fill=\"#555\">{}; median, and from the smallest to the largest run</text>\n",
            escaped(&self.cell.title()),
            escaped(figure.title),
        );
        for (index, (peer, spread)) in rows.iter().enumerate() {
            let y = TOP + STEP * index as f64;
            let base = y + BAR * 0.75;
            // Writing to a string cannot fail.
            let _ = writeln!(svg, "<text x=\"10\" y=\"{base}\">{}</text>", escaped(peer));
            let Some(Spread { min, median, max }) = *spread else {
                let _ = writeln!(
                    svg,
                    "<text x=\"{LEFT}\" y=\"{base}\" fill=\"#a00\">nothing measured</text>"
                );
                continue;
            };
            let (from, to, middle) = (LEFT + min * scale, LEFT + max * scale, y + BAR / 2.0);
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"#4a7ab5\"/>\n\
                 <path d=\"M{from:.1} {middle}H{to:.1}M{from:.1} {}v8M{to:.1} {}v8\" stroke=\"#222\"/>\n\
                 <text x=\"{:.1}\" y=\"{base}\">{}</text>",
                median * scale,
                middle - 4.0,
                middle - 4.0,
                to + 8.0,
                short(median),
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{super::tests::report, *};

    #[test]
    fn there_is_a_bar_for_each_peer_that_has_a_figure() {
        let report = report();
        let svg = report.cells[0].svg();
        assert_eq!(svg.matches("fill=\"#4a7ab5\"").count(), 1, "{svg}");
        assert!(
            svg.contains(">quic</text>") && svg.contains("nothing measured"),
            "{svg}"
        );
        let dir = tempfile::tempdir().unwrap();
        report.draw(&dir.path().join("new")).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("new/up-16.svg")).unwrap(), svg);
    }
}
