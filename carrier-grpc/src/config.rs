//! What can be set, and what it costs.

use std::time::Duration;

use http::uri::Authority;
use tunnel_core::{
    Keepalive, StreamLimits,
    mux::MuxConfig,
    proto::mux::{self, Budget, MAX_MESSAGE, Windows},
};

/// The settings of a gRPC carrier or listener and its connections. Made by [`GrpcConfig::builder`]; the default is right
/// for most networks.
///
/// # Memory
///
/// Beside what the mux holds, which its [`Budget`] bounds: for each connection, at most
/// [`send_buffer`](GrpcConfigBuilder::send_buffer) and two messages on the way out; on the way in, one message and one
/// HTTP/2 frame, and what has arrived while the machine was busy, at most HTTP/2's window. One that is idle takes about
/// 32 KiB at each end in clear text, and about 64 KiB with TLS.
#[derive(Clone, Debug)]
pub struct GrpcConfig {
    pub(crate) mux: mux::Config,
    pub(crate) connection_window: u32,
    pub(crate) budget: Budget,
    pub(crate) authority: Option<Authority>,
    pub(crate) send_buffer: usize,
    pub(crate) handshake_timeout: Duration,
    pub(crate) max_handshakes: u32,
    pub(crate) max_handshakes_per_source: u32,
    pub(crate) max_calls: u32,
    pub(crate) idle_timeout: Duration,
}

/// A setting that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {problem}")]
pub struct InvalidConfig {
    /// The method of [`GrpcConfigBuilder`] that set it.
    pub setting: &'static str,
    /// What is wrong, as the rest of a sentence.
    pub problem: &'static str,
}

/// Collects and checks the parts of a [`GrpcConfig`].
#[derive(Clone, Debug)]
pub struct GrpcConfigBuilder {
    mux: mux::ConfigBuilder,
    authority: Option<String>,
    config: GrpcConfig,
}

/// The largest window of HTTP/2 (RFC 9113 §6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// The largest window of the mux: HTTP/2's is to be twice as large.
const MAX_CONNECTION_WINDOW: u32 = 1023 * 1024 * 1024;
const _: () = assert!(2 * MAX_CONNECTION_WINDOW + ROOM <= MAX_WINDOW);
/// How many calls with a full window a HTTP/2 connection of a server has room for.
const CALLS_AT_ONCE: u32 = 4;
/// What a packet may take beside the payload that the mux's window counts: a message of nothing else.
const ROOM: u32 = 128 * 1024;
const _: () = assert!(ROOM as usize >= MAX_MESSAGE);
/// The longest HTTP/2 frame that is taken: a whole packet, so that it need not be cut.
pub(crate) const MAX_FRAME: u32 = 2 * ROOM;
const _: () = assert!(MAX_FRAME as usize >= crate::packet::MAX_PACKET);
/// The most bytes of headers: the longest claim in base64 and the longest credential, and room for what proxies add.
pub(crate) const MAX_HEADERS: u32 = 128 * 1024;
/// The smallest send buffer: below one HTTP/2 frame of the size that every peer takes, throughput suffers.
const MIN_SEND_BUFFER: usize = 16 * 1024;

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            mux: mux::Config::default(),
            connection_window: 64 * 1024 * 1024,
            budget: Budget::default(),
            authority: None,
            send_buffer: 128 * 1024,
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 1024,
            max_handshakes_per_source: 256,
            max_calls: 256,
            idle_timeout: Duration::from_secs(60),
        }
    }
}

impl GrpcConfig {
    /// Starts from the defaults.
    #[must_use]
    pub fn builder() -> GrpcConfigBuilder {
        GrpcConfigBuilder {
            mux: mux::Config::builder(),
            authority: None,
            config: Self::default(),
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

    /// What the mux of each connection gets.
    pub(crate) fn mux(&self) -> MuxConfig {
        MuxConfig::new(self.mux.clone(), self.budget.clone())
    }

    /// The window of a call: twice what the mux lets its peer send, and a message that the mux does not count. h2 says
    /// that bytes were taken when they are a third of the window, which leaves the peer two thirds; the rest of the
    /// double is for headers of frames and packets, which the mux does not count either.
    pub(crate) fn stream_window(&self) -> u32 {
        self.connection_window
            .saturating_mul(2)
            .saturating_add(ROOM)
            .min(MAX_WINDOW)
    }

    /// The window of a server's HTTP/2 connection. Only calls that wait for their handshake are not read, and those
    /// may not send anything yet.
    pub(crate) fn shared_window(&self) -> u32 {
        self.stream_window().saturating_mul(CALLS_AT_ONCE).min(MAX_WINDOW)
    }
}

impl GrpcConfigBuilder {
    /// How a dead path is noticed: at the latest after the sum of both durations. Default 10 s + 5 s.
    ///
    /// The mux's probes decide, for they are answered by the peer itself; a proxy answers HTTP/2's own. A server sends
    /// those as well, after twice the time, to end HTTP/2 connections that have no call.
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
    /// 16 MiB where the path needs it, and down to 64 KiB when memory is short.
    #[must_use]
    pub fn stream_window(mut self, windows: Windows) -> Self {
        self.mux = self.mux.stream_window(windows);
        self
    }

    /// How many bytes may be on their way to this end, over all streams. Default 64 MiB: 5 Gbit/s at 100 ms.
    ///
    /// The HTTP/2 window of the call is twice as large, so that HTTP/2 never makes a sender wait before the mux does. At
    /// most 1,023 MiB.
    #[must_use]
    pub fn connection_window(mut self, bytes: u32) -> Self {
        self.mux = self.mux.connection_window(bytes.into());
        self.config.connection_window = bytes;
        self
    }

    /// What all connections of the process may hold together. Default: 512 MiB for those of this configuration.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.config.budget = budget;
        self
    }

    /// The `:authority` that an agent calls, if a proxy routes by another name than the one that is dialled. Default:
    /// the server's host and port. The certificate's name is set by the TLS configuration.
    #[must_use]
    pub fn authority(mut self, authority: impl Into<String>) -> Self {
        self.authority = Some(authority.into());
        self
    }

    /// How many bytes of each connection may wait for the socket, in HTTP/2. Default 128 KiB: what waits there cannot
    /// be overtaken by more urgent things, and with less the socket runs dry between two messages.
    #[must_use]
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.config.send_buffer = bytes;
        self
    }

    /// How long a server waits for the TLS handshake and the first bytes of HTTP/2, then for the first call, and how long
    /// a call may wait to be accepted. Default 10 s.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.config.handshake_timeout = timeout;
        self
    }

    /// How many TCP connections of a server may be without a call that was accepted, in all and from one address:
    /// until then they may be anybody's. Further ones are closed. Default 1,024 and 256; no address gets more than half
    /// of those that are left.
    #[must_use]
    pub fn max_handshakes(mut self, total: u32, per_source: u32) -> Self {
        self.config.max_handshakes = total;
        self.config.max_handshakes_per_source = per_source;
        self
    }

    /// How many calls a server takes at once on one HTTP/2 connection. Default 256: balancers then make another.
    #[must_use]
    pub fn max_calls(mut self, calls: u32) -> Self {
        self.config.max_calls = calls;
        self
    }

    /// How long a server keeps a HTTP/2 connection whose calls have ended. Default a minute.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.config.idle_timeout = timeout;
        self
    }

    /// Checks that the settings can work together.
    pub fn build(self) -> Result<GrpcConfig, InvalidConfig> {
        let mut config = self.config;
        config.mux = self.mux.build().map_err(|error| InvalidConfig {
            setting: error.setting,
            problem: error.problem,
        })?;
        config.authority = match self.authority.map(Authority::try_from) {
            None => None,
            Some(Ok(authority)) => Some(authority),
            Some(Err(_)) => return Err(invalid("authority", "must be a host, or a host and a port")),
        };
        if config.connection_window > MAX_CONNECTION_WINDOW {
            return Err(invalid("connection_window", "must be at most 1,023 MiB"));
        }
        if config.send_buffer < MIN_SEND_BUFFER {
            return Err(invalid("send_buffer", "must be at least 16 KiB"));
        }
        if config.max_handshakes == 0 || config.max_handshakes_per_source == 0 {
            return Err(invalid("max_handshakes", "must not be zero"));
        }
        if config.max_calls == 0 {
            return Err(invalid("max_calls", "must not be zero"));
        }
        if config.handshake_timeout.is_zero() {
            return Err(invalid("handshake_timeout", "must be longer than nothing"));
        }
        if config.idle_timeout.is_zero() {
            return Err(invalid("idle_timeout", "must be longer than nothing"));
        }
        Ok(config)
    }
}

fn invalid(setting: &'static str, problem: &'static str) -> InvalidConfig {
    InvalidConfig { setting, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        let config = GrpcConfig::builder().build().unwrap();
        assert_eq!(config.mux, GrpcConfig::default().mux);
        assert_eq!(
            config.mux,
            mux::Config::builder()
                .connection_window(config.connection_window.into())
                .build()
                .unwrap()
        );
    }

    #[test]
    fn http2_has_room_for_all_that_the_mux_allows() {
        for window in [65_536, 64 << 20, MAX_CONNECTION_WINDOW] {
            let config = GrpcConfig::builder().connection_window(window).build().unwrap();
            // What h2 leaves to the peer at any time.
            assert!(config.stream_window() / 3 * 2 >= window + ROOM / 2);
            assert!(config.shared_window() >= config.stream_window());
            assert!(config.shared_window() <= MAX_WINDOW);
        }
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        let setting = |builder: GrpcConfigBuilder| builder.build().unwrap_err().setting;
        assert_eq!(setting(GrpcConfig::builder().max_streams(0)), "max_streams");
        assert_eq!(
            setting(GrpcConfig::builder().connection_window(u32::MAX)),
            "connection_window"
        );
        assert_eq!(setting(GrpcConfig::builder().authority("two words")), "authority");
        assert_eq!(setting(GrpcConfig::builder().send_buffer(1)), "send_buffer");
        assert_eq!(setting(GrpcConfig::builder().max_handshakes(0, 1)), "max_handshakes");
        assert_eq!(setting(GrpcConfig::builder().max_handshakes(1, 0)), "max_handshakes");
        assert_eq!(setting(GrpcConfig::builder().max_calls(0)), "max_calls");
        let never = Duration::ZERO;
        assert_eq!(
            setting(GrpcConfig::builder().handshake_timeout(never)),
            "handshake_timeout"
        );
        assert_eq!(setting(GrpcConfig::builder().idle_timeout(never)), "idle_timeout");
    }
}
