//! Log lines on standard error.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::cli::{LogArgs, LogFormat};

/// Installs the process's logger.
pub fn init(args: &LogArgs) -> anyhow::Result<()> {
    let registry = tracing_subscriber::registry().with(filter(args)?);
    let initialised = match args.log_format {
        LogFormat::Text => {
            let lines = fmt::layer()
                .with_writer(io::stderr)
                .with_ansi(io::stderr().is_terminal())
                .with_target(false);
            registry.with(lines).try_init()
        }
        LogFormat::Json => {
            let lines = fmt::layer().json().flatten_event(true).with_writer(io::stderr);
            registry.with(lines).try_init()
        }
    };
    initialised.context("cannot install the logger")
}

fn filter(args: &LogArgs) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(&args.log).with_context(|| {
        format!(
            "--log {:?} is not a filter such as info or info,carrier_quic=debug",
            args.log
        )
    })
}
