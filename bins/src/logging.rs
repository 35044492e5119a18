//! Log lines on standard error.
//!
//! They are written by a thread of their own. So whoever reads them too slowly, or not at all, holds up no stream; and when
//! there are many, one system call writes several.

use std::{
    fmt,
    io::{self, BufWriter, IsTerminal as _},
    sync::OnceLock,
};

use anyhow::Context as _;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::counter::ConstCounter,
    registry::Registry,
};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt as format, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::cli::{LogArgs, LogFormat};

/// How many lines may wait to be written: two seconds of what a machine of two processors makes at most, some 2 MiB of memory.
const WAITING: usize = 8192;
/// How many bytes one write takes at most.
const AT_ONCE: usize = 64 * 1024;

/// Counts the lines that found no room.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// The process's logger. Dropping it writes what waits, as far as that is read within a second.
#[derive(Debug)]
#[must_use]
pub(crate) struct Logger {
    _thread: WorkerGuard,
}

impl Logger {
    /// Installs it.
    pub(crate) fn install(args: &LogArgs) -> anyhow::Result<Self> {
        let filter = filter(args)?;
        let (lines, thread) = NonBlockingBuilder::default()
            .buffered_lines_limit(WAITING)
            .thread_name("log")
            .finish(BufWriter::with_capacity(AT_ONCE, io::stderr()));
        DROPPED.get_or_init(|| lines.error_counter());
        let registry = tracing_subscriber::registry().with(filter);
        let installed = match args.log_format {
            LogFormat::Text => {
                let text = format::layer()
                    .with_writer(lines)
                    .with_ansi(io::stderr().is_terminal())
                    .with_target(false);
                registry.with(text).try_init()
            }
            LogFormat::Json => {
                let json = format::layer().json().flatten_event(true).with_writer(lines);
                registry.with(json).try_init()
            }
        };
        installed.context("cannot install the logger")?;
        Ok(Self { _thread: thread })
    }
}

/// Registers the count of lines that are missing, for they cannot tell it themselves.
pub(crate) fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(Dropped));
}

#[derive(Debug)]
struct Dropped;

impl Collector for Dropped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let lines = DROPPED.get().map_or(0, ErrorCounter::dropped_lines);
        let counter = ConstCounter::new(u64::try_from(lines).unwrap_or(u64::MAX));
        let help = "Log lines that were dropped because standard error was not read.";
        counter.encode(encoder.encode_descriptor("tunnel_log_lines_dropped", help, None, counter.metric_type())?)
    }
}

fn filter(args: &LogArgs) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(&args.log).with_context(|| {
        format!(
            "--log {:?} is not a filter such as info or info,carrier_quic=debug",
            args.log
        )
    })
}
