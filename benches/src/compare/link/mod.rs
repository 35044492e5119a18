//! Two network namespaces and an impaired link between them.
//!
//! The [near](Namespaces::near) one has the clients and the server, the [far](Namespaces::far) one the agent and the target.
//! Between them are two TUN devices and a [process](carry) that hands packets over: late, not faster than a rate, and
//! not all of them. That needs no support for it in the kernel, but the rights to make namespaces.

mod carry;
mod namespaces;
mod shaper;

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Context as _, bail, ensure};
use serde::{Serialize, Serializer};

pub use self::{carry::carry, namespaces::Namespaces};

/// What is wrong with a link; each direction has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// There and back; each direction delays by half of it.
    pub rtt: Duration,
    /// Share of packets that is lost.
    pub loss: f64,
    /// Bytes a second; `None` is as fast as packets can be handed over.
    pub rate: Option<f64>,
    /// How long a packet may have to wait for the ones before it; more of them are dropped.
    pub queue: Duration,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            rtt: Duration::ZERO,
            loss: 0.0,
            rate: None,
            queue: Duration::from_millis(100),
        }
    }
}

impl FromStr for Link {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut link = Self::default();
        for part in text.split(',') {
            let (name, value) = part
                .split_once('=')
                .with_context(|| format!("{part} is not NAME=VALUE"))?;
            match name {
                "rtt" => link.rtt = duration(value)?,
                "queue" => link.queue = duration(value)?,
                "loss" => {
                    let percent = value.strip_suffix('%').context("a loss is a number with %")?;
                    link.loss = number(percent)? / 100.0;
                }
                "rate" => {
                    let (value, factor) = match (value.strip_suffix("mbit"), value.strip_suffix("gbit")) {
                        (Some(value), _) => (value, 1e6),
                        (_, Some(value)) => (value, 1e9),
                        _ => bail!("a rate is a number with mbit or gbit"),
                    };
                    link.rate = Some(number(value)? * factor / 8.0);
                }
                _ => bail!("a link has rtt, loss, rate and queue, but no {name}"),
            }
        }
        ensure!(link.loss < 1.0, "a link that loses everything is none");
        ensure!(link.rate != Some(0.0), "a link with a rate of 0 is none");
        ensure!(link.rtt <= Duration::from_secs(5), "an rtt is at most 5 s");
        ensure!(link.queue <= Duration::from_secs(5), "a queue is at most 5 s");
        Ok(link)
    }
}

fn number(text: &str) -> anyhow::Result<f64> {
    let number: f64 = text.parse().with_context(|| format!("{text} is no number"))?;
    ensure!((0.0..1e9).contains(&number), "{text} is out of range");
    Ok(number)
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    let millis = text
        .strip_suffix("ms")
        .with_context(|| format!("{text} is not a number with ms"))?;
    Ok(Duration::from_secs_f64(number(millis)? / 1e3))
}

/// As it is written on the command line.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
        write!(f, "rtt={}ms,loss={}%", millis(self.rtt), self.loss * 100.0)?;
        if let Some(rate) = self.rate {
            write!(f, ",rate={}mbit", rate * 8.0 / 1e6)?;
        }
        write!(f, ",queue={}ms", millis(self.queue))
    }
}

impl Serialize for Link {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_as_it_is_written() {
        let link: Link = "rtt=20ms,loss=1%,rate=500mbit".parse().unwrap();
        assert_eq!((link.rtt, link.loss), (Duration::from_millis(20), 0.01));
        assert_eq!((link.rate, link.queue), (Some(62.5e6), Duration::from_millis(100)));
        assert_eq!(link.to_string(), "rtt=20ms,loss=1%,rate=500mbit,queue=100ms");
        assert_eq!(link.to_string().parse::<Link>().unwrap(), link);
        assert_eq!("rate=1.5gbit".parse::<Link>().unwrap().rate, Some(187.5e6));
        assert_eq!(
            "loss=0.5%,queue=7ms".parse::<Link>().unwrap().queue,
            Duration::from_millis(7)
        );
    }

    #[test]
    fn what_is_no_link_is_refused() {
        for wrong in [
            "",
            "rtt",
            "rtt=20",
            "rtt=20s",
            "rtt=-1ms",
            "rtt=NaNms",
            "loss=1",
            "loss=100%",
            "rate=500",
            "rate=0mbit",
            "mtu=9000",
            "rtt=6000ms",
        ] {
            assert!(wrong.parse::<Link>().is_err(), "{wrong}");
        }
    }
}
