//! Log lines on standard error.

use std::{
    fmt::{Debug, Write as _},
    io::{self, IsTerminal as _},
};

use anyhow::Context as _;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer, fmt,
    layer::{self, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

use crate::cli::{LogArgs, LogFormat};

/// Installs the process's logger.
pub fn init(args: &LogArgs) -> anyhow::Result<()> {
    let registry = tracing_subscriber::registry().with(filter(args)?).with(known(args));
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

/// Who has named it in `--log` hears everything that it says.
fn known(args: &LogArgs) -> Option<Known> {
    (!args.log.contains(QUINN_UDP)).then_some(Known)
}

/// What sends the datagrams of QUIC.
const QUINN_UDP: &str = "quinn_udp";

/// Leaves out what the programs have words of their own for: that nobody has a peer's port any more, which is so each
/// time one restarts, and of which quinn-udp writes the system's error and a packet's description. Its other errors,
/// such as a network that is unreachable, are told by nobody else.
struct Known;

impl<S: Subscriber> Layer<S> for Known {
    fn event_enabled(&self, event: &Event<'_>, _: layer::Context<'_, S>) -> bool {
        if event.metadata().target() != QUINN_UDP {
            return true;
        }
        let mut message = Message::default();
        event.record(&mut message);
        let refused = format!("{:?}", io::ErrorKind::ConnectionRefused);
        !message.0.contains(&refused)
    }
}

/// The text of an event.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Writing to a string does not fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::{subscriber::with_default, warn};
    use tracing_subscriber::registry;

    use super::*;
    use crate::cli::LogFormat;

    /// What is logged with this filter when a packet could not be sent.
    fn logged(filter: &str, error: &io::Error) -> String {
        let args = LogArgs {
            log: filter.to_owned(),
            log_format: LogFormat::Text,
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = fmt::layer().with_writer(file.reopen().unwrap());
        let logger = registry()
            .with(super::filter(&args).unwrap())
            .with(known(&args))
            .with(lines);
        with_default(logger, || {
            // As quinn-udp does.
            warn!(target: QUINN_UDP, "sendmsg error: {error:?}, Transmit: {{ len: {:?} }}", 1200);
            warn!("another line");
        });
        std::fs::read_to_string(file.path()).unwrap()
    }

    #[test]
    fn a_peer_that_is_gone_has_our_own_words() {
        // ECONNREFUSED, ENETUNREACH
        let (refused, unreachable) = (io::Error::from_raw_os_error(111), io::Error::from_raw_os_error(101));
        for (filter, error, says) in [
            ("info", &refused, false),
            ("debug,carrier_quic=trace", &refused, false),
            ("info", &unreachable, true),
            ("info,quinn_udp=warn", &refused, true),
            ("info,quinn_udp=error", &unreachable, false),
        ] {
            let text = logged(filter, error);
            assert_eq!(text.contains("sendmsg error"), says, "{filter}: {text}");
            assert!(text.contains("another line"), "{text}");
        }
    }
}
