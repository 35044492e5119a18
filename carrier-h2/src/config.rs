//! What can be set, and what it costs.

use http::{HeaderValue, uri::PathAndQuery};
use tunnel_core::{
    Keepalive, StreamLimits,
    proto::mux::{self, Budget, InvalidConfig, Windows},
};

use crate::{DEFAULT_PATH, http2::Knobs};

/// The settings of a HTTP/2 carrier or listener and its connections. Made by [`H2Config::builder`]; the default is right
/// for most networks.
///
/// # Memory
///
/// Streams hold what [`stream_window`](H2ConfigBuilder::stream_window) says of unread bytes, all connections together no
/// more than the [`budget`](H2ConfigBuilder::budget); and each at most
/// [`send_queue`](H2ConfigBuilder::send_queue) bytes that wait to be sent, while the connection is slower than their
/// writers. Beside that a connection takes about 32 KiB, as much again with TLS, and up to 64 KiB on its way to the
/// socket. While its peer takes nothing off the socket, what that peer sends meanwhile is read ahead: at most 8 MiB, which
/// the budget does not count.
#[derive(Clone, Debug)]
pub struct H2Config {
    pub(crate) mux: mux::Config,
    pub(crate) budget: Budget,
    pub(crate) connection_window: u32,
    pub(crate) path: PathAndQuery,
    pub(crate) host: Option<HeaderValue>,
}

/// Collects and checks the parts of a [`H2Config`].
#[derive(Clone, Debug)]
pub struct H2ConfigBuilder {
    mux: mux::ConfigBuilder,
    budget: Budget,
    connection_window: u32,
    path: String,
    host: Option<String>,
}

/// The largest window of HTTP/2 (RFC 9113 §6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// The smallest connection window: HTTP/2 begins with that, and cannot take it back.
const MIN_WINDOW: u32 = (1 << 16) - 1;

impl Default for H2Config {
    fn default() -> Self {
        Self {
            mux: mux::Config::default(),
            budget: Budget::default(),
            connection_window: MAX_WINDOW,
            path: PathAndQuery::from_static(DEFAULT_PATH),
            host: None,
        }
    }
}

impl H2Config {
    /// Starts from the defaults.
    #[must_use]
    pub fn builder() -> H2ConfigBuilder {
        H2ConfigBuilder {
            mux: mux::Config::builder(),
            budget: Budget::default(),
            connection_window: MAX_WINDOW,
            path: DEFAULT_PATH.to_owned(),
            host: None,
        }
    }

    /// The largest number of streams that the peer may have open at once; a server announces it in its welcome.
    #[must_use]
    pub fn limits(&self) -> StreamLimits {
        self.mux.limits()
    }

    /// How a dead path is noticed.
    #[must_use]
    pub fn keepalive(&self) -> Keepalive {
        self.mux.keepalive()
    }

    /// What HTTP/2 is to be told. `max_streams` is how many it is to let through, if this end is its server.
    pub(crate) fn knobs(&self, max_streams: u32) -> Knobs {
        let start = u32::try_from(self.mux.stream_window().start).unwrap_or(u32::MAX);
        Knobs {
            stream_window: start.min(MAX_WINDOW),
            connection_window: self.connection_window,
            max_streams,
        }
    }
}

impl H2ConfigBuilder {
    /// How a dead path is noticed: at the latest after the sum of both durations. Default 10 s + 5 s. It is also what
    /// keeps the connection alive in proxies that cut a silent one.
    #[must_use]
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        self.mux = self.mux.keepalive(keepalive);
        self
    }

    /// The largest number of streams that the peer may have open at once. Default 16,384. Further ones wait, in order.
    #[must_use]
    pub fn max_streams(mut self, max_streams: u32) -> Self {
        self.mux = self.mux.max_streams(max_streams);
        self
    }

    /// How many bytes of a stream the peer may send before its reader has taken them. Default: from 256 KiB, growing to
    /// 16 MiB where the path needs it, and down to 64 KiB when memory is short. HTTP/2 can only change it for all streams
    /// of a connection together.
    #[must_use]
    pub fn stream_window(mut self, windows: Windows) -> Self {
        self.mux = self.mux.stream_window(windows);
        self
    }

    /// How many bytes the peer may send over all streams before their readers have taken them. Default 2 GiB − 1, the
    /// most that HTTP/2 has.
    ///
    /// What stalled readers hold counts for as long as they stall. So anything below the number of streams that may
    /// stall times their window lets those stop all others; memory is what the [`budget`](Self::budget) bounds.
    #[must_use]
    pub fn connection_window(mut self, bytes: u32) -> Self {
        self.connection_window = bytes;
        self
    }

    /// How many bytes of one stream may wait for their turn on the connection. Default 128 KiB.
    #[must_use]
    pub fn send_queue(mut self, bytes: usize) -> Self {
        self.mux = self.mux.send_queue(bytes);
        self
    }

    /// The unread bytes that all connections of the process may hold together. Give every configuration of a process a
    /// clone of one budget; by default each has its own, of 512 MiB. When it is short, the streams whose readers have been
    /// away longest are stopped with [`StreamCode::MEMORY`](tunnel_core::StreamCode::MEMORY), never a connection.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Where on the server the tunnel is; an agent may add a query. Default [`DEFAULT_PATH`].
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// The field Host of an agent's request, if a proxy routes by another name than the one that is dialled. Default: the
    /// server's host and port. The certificate's name is set by the TLS configuration.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Checks that the settings can work together.
    pub fn build(self) -> Result<H2Config, InvalidConfig> {
        let invalid = |setting, problem| Err(InvalidConfig { setting, problem });
        let path = match self.path.parse::<PathAndQuery>() {
            Ok(path) if self.path.starts_with('/') && !self.path.contains('#') => path,
            _ => return invalid("path", "must begin with / and hold only what a path may"),
        };
        let host = match self.host.as_deref().map(HeaderValue::from_str) {
            None => None,
            Some(Ok(host)) if !host.is_empty() => Some(host),
            Some(_) => return invalid("host", "must be a host, or a host and a port"),
        };
        if !(MIN_WINDOW..=MAX_WINDOW).contains(&self.connection_window) {
            return invalid("connection_window", "must be from 65,535 to 2^31 - 1");
        }
        Ok(H2Config {
            mux: self.mux.build()?,
            budget: self.budget,
            connection_window: self.connection_window,
            path,
            host,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_named() {
        let builder = H2Config::builder;
        for (builder, setting) in [
            (builder().max_streams(0), "max_streams"),
            (builder().path("tunnel"), "path"),
            (builder().path("/a b"), "path"),
            (builder().path("/a#b"), "path"),
            (builder().host("a\nb"), "host"),
            (builder().host(""), "host"),
            (builder().connection_window(1), "connection_window"),
            (builder().connection_window(1 << 31), "connection_window"),
        ] {
            assert_eq!(builder.build().unwrap_err().setting, setting);
        }
        let config = builder().path("/t?site=7").host("gw").build().unwrap();
        assert_eq!(config.path.path(), "/t");
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = builder_default();
        assert_eq!(config.mux, H2Config::default().mux);
        assert_eq!(config.knobs(7).stream_window, 256 * 1024);
    }

    fn builder_default() -> H2Config {
        H2Config::builder().build().unwrap()
    }
}
