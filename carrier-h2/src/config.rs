//! What can be set, and what it costs.

use http::{HeaderValue, uri::PathAndQuery};
use tunnel_core::{
    Keepalive, StreamLimits,
    mux::MuxConfig,
    proto::mux::{InvalidConfig, Windows},
};

use crate::{DEFAULT_PATH, http2::Knobs};

/// The settings of a HTTP/2 carrier or listener and its connections. Made by [`H2Config::builder`]; the default is right
/// for most networks.
///
/// # Memory
///
/// Streams hold what the [mux](H2ConfigBuilder::mux) lets them: unread bytes, and bytes that wait to be sent while the
/// connection is slower than their writers. Beside that a connection takes about 32 KiB, as much again with TLS, and up to
/// 64 KiB on its way to the socket. While its peer takes nothing off the socket, what that peer sends meanwhile is read
/// ahead: at most 8 MiB, and no more than the budget has room for.
#[derive(Clone, Debug)]
pub struct H2Config {
    pub(crate) tuning: Tuning,
    pub(crate) path: PathAndQuery,
    pub(crate) host: Option<HeaderValue>,
}

/// What is set of HTTP/2 and the streams on it.
#[derive(Clone, Debug)]
pub(crate) struct Tuning {
    pub(crate) mux: MuxConfig,
    pub(crate) connection_window: u32,
    /// Whether what is under way is fitted to the path. Otherwise it is all that the window lets through.
    pub(crate) is_fitted: bool,
}

/// Collects and checks the parts of a [`H2Config`].
#[derive(Clone, Debug)]
pub struct H2ConfigBuilder {
    tuning: Tuning,
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
            tuning: Tuning::default(),
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
            tuning: Tuning::default(),
            path: DEFAULT_PATH.to_owned(),
            host: None,
        }
    }

    /// The largest number of streams that the peer may have open at once; a server announces it in its welcome.
    #[must_use]
    pub fn limits(&self) -> StreamLimits {
        self.tuning.mux.proto.limits()
    }

    /// How a dead path is noticed.
    #[must_use]
    pub fn keepalive(&self) -> Keepalive {
        self.tuning.mux.proto.keepalive()
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            mux: MuxConfig::default(),
            connection_window: MAX_WINDOW,
            is_fitted: true,
        }
    }
}

impl Tuning {
    /// The default for peers of any make: all that the window lets through may be under way.
    #[cfg(feature = "forward")]
    pub(crate) fn unfitted() -> Self {
        Self {
            is_fitted: false,
            ..Self::default()
        }
    }

    /// What HTTP/2 is to be told. `max_streams` is how many it is to let through, if this end is its server.
    pub(crate) fn knobs(&self, max_streams: u32) -> Knobs {
        let start = u32::try_from(self.mux.proto.stream_window().start).unwrap_or(u32::MAX);
        Knobs {
            stream_window: start.min(MAX_WINDOW),
            connection_window: u32::try_from(self.under_way().start)
                .unwrap_or(u32::MAX)
                .clamp(MIN_WINDOW, self.connection_window),
            max_streams,
            extended_connect: false,
        }
    }

    /// How many bytes may be under way.
    pub(crate) fn under_way(&self) -> Windows {
        if self.is_fitted {
            self.mux.proto.connection_windows()
        } else {
            Windows::fixed(self.connection_window.into())
        }
    }

    /// Checks that the settings can work together.
    pub(crate) fn check(&self) -> Result<(), InvalidConfig> {
        if (MIN_WINDOW..=MAX_WINDOW).contains(&self.connection_window) {
            return Ok(());
        }
        Err(InvalidConfig {
            setting: "connection_window",
            problem: "must be from 65,535 to 2^31 - 1",
        })
    }
}

impl H2ConfigBuilder {
    /// How streams are carried, by the rules of the carriers that have a mux: their windows and their number, what may wait
    /// to be sent, the keepalive, and the unread bytes that all connections of the process may hold together. When those
    /// are short, the streams whose readers have been away longest are stopped with
    /// [`StreamCode::MEMORY`](tunnel_core::StreamCode::MEMORY), never a connection.
    ///
    /// HTTP/2 can change the window only for all streams of a connection together. Its window of the connection counts what
    /// readers have not taken, too: see [`connection_window`](Self::connection_window). The keepalive also keeps the
    /// connection alive in proxies that cut a silent one.
    #[must_use]
    pub fn mux(mut self, mux: MuxConfig) -> Self {
        self.tuning.mux = mux;
        self
    }

    /// How many bytes the peer may send over all streams before their readers have taken them. Default 2 GiB − 1, the
    /// most that HTTP/2 has.
    ///
    /// That is how far the window goes; it begins with 1 MiB, is always larger by what readers have not taken, and the
    /// rest of it is fitted to the path, up to the connection's window of the [`mux`](Self::mux), so that small messages
    /// do not wait behind bulk. What stalled readers hold counts for as long as they stall. So anything below the number
    /// of streams that may stall times their window lets those stop all others; memory is what the budget of the mux
    /// bounds.
    #[must_use]
    pub fn connection_window(mut self, bytes: u32) -> Self {
        self.tuning.connection_window = bytes;
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
        self.tuning.check()?;
        Ok(H2Config {
            tuning: self.tuning,
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
        assert_eq!(config.tuning.mux.proto, H2Config::default().tuning.mux.proto);
        assert_eq!(config.tuning.knobs(7).stream_window, 256 * 1024);
    }

    fn builder_default() -> H2Config {
        H2Config::builder().build().unwrap()
    }
}
