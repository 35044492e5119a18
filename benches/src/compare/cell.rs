//! What is measured, by name.

use std::{fmt, str::FromStr};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::carrier::load::Direction;

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Cell {
    /// `up-N`, `down-N`: so many streams of bulk.
    Bulk(Direction, usize),
    /// `connect`: new connections with a request and its response, 16 at a time.
    Connect,
    /// `connect-early`: the same, and the client sends the request together with its CONNECT.
    ConnectEarly,
    /// `rr`: requests at a fixed rate and nothing beside them; `rr-beside-N`: beside so many downloads.
    Requests(usize),
    /// `stalled-N`: downloads and requests beside so many downloads that nobody reads for a while.
    Stalled(usize),
    /// `streams-N`: the memory of so many streams that do nothing.
    Streams(usize),
    /// `agents-N`: the memory of so many agents that do nothing.
    Agents(usize),
    /// `integrity`: streams of all kinds, byte by byte.
    Integrity,
}

/// A figure of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its key in the JSON.
    pub key: &'static str,
    /// What the table calls it.
    pub title: &'static str,
    /// How repetitions become one.
    pub shown: Shown,
}

/// How a table shows several repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The median, with the smallest and the largest.
    Spread,
    /// All of them together: what is counted.
    Sum,
    /// The same of what is to be zero.
    Faults,
}

const fn figure(key: &'static str, title: &'static str) -> Figure {
    Figure {
        key,
        title,
        shown: Shown::Spread,
    }
}

const fn count(key: &'static str, title: &'static str) -> Figure {
    Figure {
        key,
        title,
        shown: Shown::Sum,
    }
}

const fn faults(key: &'static str, title: &'static str) -> Figure {
    Figure {
        key,
        title,
        shown: Shown::Faults,
    }
}

const FAILED: Figure = faults("failed", "failed");

impl Cell {
    /// A full run.
    pub const FULL: [&str; 17] = [
        "up-1",
        "down-1",
        "up-16",
        "down-16",
        "up-100",
        "down-100",
        "up-1000",
        "down-1000",
        "connect",
        "connect-early",
        "rr",
        "rr-beside-16",
        "stalled-8",
        "stalled-100",
        "streams-1000",
        "agents-1000",
        "integrity",
    ];

    /// A look at each kind of thing.
    pub const QUICK: [&str; 8] = [
        "up-1",
        "down-1",
        "down-16",
        "connect",
        "rr",
        "rr-beside-16",
        "stalled-8",
        "integrity",
    ];

    /// Whether it measures memory. That takes programs that have done nothing yet, and hardly varies: once is enough.
    #[must_use]
    pub fn measures_memory(self) -> bool {
        matches!(self, Self::Streams(_) | Self::Agents(_))
    }

    /// Its figures, in the order of the table; the first is what is drawn.
    #[must_use]
    pub fn figures(self) -> &'static [Figure] {
        const BULK: &[Figure] = &[
            figure("gb_per_second", "GB/s"),
            figure("jain", "Jain"),
            figure("server_cpu_per_gb", "server CPU s/GB"),
            figure("agent_cpu_per_gb", "agent CPU s/GB"),
            figure("client_cpu_per_gb", "client CPU s/GB"),
            FAILED,
        ];
        const CONNECT: &[Figure] = &[
            figure("per_second", "connections/s"),
            figure("p50_us", "p50 µs"),
            figure("p99_us", "p99 µs"),
            figure("max_us", "max µs"),
            figure("cpu_us_each", "server + agent CPU µs each"),
            FAILED,
        ];
        const REQUESTS: &[Figure] = &[
            figure("p50_us", "p50 µs"),
            figure("p90_us", "p90 µs"),
            figure("p99_us", "p99 µs"),
            figure("p999_us", "p99.9 µs"),
            figure("max_us", "max µs"),
            faults("unanswered", "unanswered"),
        ];
        const BESIDE: &[Figure] = &[
            figure("p50_us", "p50 µs"),
            figure("p90_us", "p90 µs"),
            figure("p99_us", "p99 µs"),
            figure("p999_us", "p99.9 µs"),
            figure("max_us", "max µs"),
            figure("gb_per_second", "bulk GB/s"),
            figure("share", "of alone"),
            faults("unanswered", "unanswered"),
            FAILED,
        ];
        const STALLED: &[Figure] = &[
            figure("gb_per_second", "others GB/s"),
            figure("share", "of before"),
            figure("p50_us", "p50 µs"),
            figure("p99_us", "p99 µs"),
            faults("unanswered", "unanswered"),
            count("intact", "stalled ones intact"),
            faults("lost", "lost"),
            FAILED,
        ];
        const MEMORY: &[Figure] = &[
            figure("server_kib", "server KiB each"),
            figure("agent_kib", "agent KiB each"),
            figure("seconds", "s to open all"),
            FAILED,
        ];
        const INTEGRITY: &[Figure] = &[
            faults("mismatches", "mismatches"),
            count("rounds", "rounds"),
            count("mb", "MB"),
            FAILED,
        ];
        match self {
            Self::Bulk(..) => BULK,
            Self::Connect | Self::ConnectEarly => CONNECT,
            Self::Requests(0) => REQUESTS,
            Self::Requests(_) => BESIDE,
            Self::Stalled(_) => STALLED,
            Self::Streams(_) | Self::Agents(_) => MEMORY,
            Self::Integrity => INTEGRITY,
        }
    }

    /// What it is, for people.
    #[must_use]
    pub fn title(self) -> String {
        match self {
            Self::Bulk(Direction::Up, streams) => format!("Upload, streams: {streams}"),
            Self::Bulk(Direction::Down, streams) => format!("Download, streams: {streams}"),
            Self::Connect => "New connections, 16 at a time: connect, one request and its response, close".to_owned(),
            Self::ConnectEarly => {
                "New connections, 16 at a time: connect together with one request, its response, close".to_owned()
            }
            Self::Requests(0) => "Requests of 100 bytes, 8 streams, 100/s each, nothing beside them".to_owned(),
            Self::Requests(beside) => {
                format!("Requests of 100 bytes, 8 streams, 100/s each, beside saturating downloads: {beside}")
            }
            Self::Stalled(stalled) => {
                format!(
                    "4 downloads, and requests of 100 bytes (8 streams, 100/s each), beside stalled readers: {stalled}"
                )
            }
            Self::Streams(streams) => format!("Memory of idle streams: {streams}"),
            Self::Agents(agents) => format!("Memory of idle agents: {agents}"),
            Self::Integrity => {
                "Integrity: echo, upload, download, half-close by either end, in random pieces".to_owned()
            }
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bulk(Direction::Up, streams) => write!(f, "up-{streams}"),
            Self::Bulk(Direction::Down, streams) => write!(f, "down-{streams}"),
            Self::Connect => f.write_str("connect"),
            Self::ConnectEarly => f.write_str("connect-early"),
            Self::Requests(0) => f.write_str("rr"),
            Self::Requests(beside) => write!(f, "rr-beside-{beside}"),
            Self::Stalled(stalled) => write!(f, "stalled-{stalled}"),
            Self::Streams(streams) => write!(f, "streams-{streams}"),
            Self::Agents(agents) => write!(f, "agents-{agents}"),
            Self::Integrity => f.write_str("integrity"),
        }
    }
}

impl FromStr for Cell {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        match name {
            "connect" => return Ok(Self::Connect),
            "connect-early" => return Ok(Self::ConnectEarly),
            "rr" => return Ok(Self::Requests(0)),
            "integrity" => return Ok(Self::Integrity),
            _ => {}
        }
        let (what, number) = name
            .rsplit_once('-')
            .with_context(|| format!("{name} is no measurement"))?;
        let number = number
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .with_context(|| format!("{number} in {name} is no number of streams"))?;
        Ok(match what {
            "up" => Self::Bulk(Direction::Up, number),
            "down" => Self::Bulk(Direction::Down, number),
            "rr-beside" => Self::Requests(number),
            "stalled" => Self::Stalled(number),
            "streams" => Self::Streams(number),
            "agents" => Self::Agents(number),
            _ => bail!("{name} is no measurement"),
        })
    }
}

impl From<Cell> for String {
    fn from(cell: Cell) -> Self {
        cell.to_string()
    }
}

impl TryFrom<String> for Cell {
    type Error = anyhow::Error;

    fn try_from(name: String) -> anyhow::Result<Self> {
        name.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_printed() {
        for name in Cell::FULL.into_iter().chain(Cell::QUICK) {
            assert_eq!(name.parse::<Cell>().unwrap().to_string(), name);
        }
        for name in ["down", "down-", "down-0", "down-x", "sideways-1", "rr-beside-0", ""] {
            assert!(name.parse::<Cell>().is_err(), "{name}");
        }
    }

    #[test]
    fn every_figure_of_a_cell_has_a_key_of_its_own() {
        for name in Cell::FULL {
            let figures = name.parse::<Cell>().unwrap().figures();
            let mut keys: Vec<_> = figures.iter().map(|figure| figure.key).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), figures.len(), "{name}");
        }
    }
}
