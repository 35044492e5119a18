//! What can be set, and what it costs.

use std::time::Duration;

use http::uri::Authority;
use tunnel_core::{
    Keepalive, StreamLimits,
    mux::MuxConfig,
    proto::mux::{InvalidConfig, MAX_MESSAGE},
};

/// The settings of a gRPC carrier or listener and its connections. Made by [`GrpcConfig::builder`]; the default is right
/// for most networks.
///
/// # Memory
///
/// Beside what the [mux](GrpcConfigBuilder::mux) holds: for each connection, at most
/// [`send_buffer`](GrpcConfigBuilder::send_buffer) and two messages on the way out; on the way in, one message and one
/// HTTP/2 frame, and what has arrived while the machine was busy, at most HTTP/2's window. One that is idle takes about
/// 32 KiB at each end in clear text, and about 64 KiB with TLS.
#[derive(Clone, Debug)]
pub struct GrpcConfig {
    pub(crate) mux: MuxConfig,
    pub(crate) authority: Option<Authority>,
    pub(crate) send_buffer: usize,
    pub(crate) handshake_timeout: Duration,
    pub(crate) max_handshakes: u32,
    pub(crate) max_handshakes_per_source: u32,
    pub(crate) max_calls: u32,
    pub(crate) idle_timeout: Duration,
}

/// Collects and checks the parts of a [`GrpcConfig`].
#[derive(Clone, Debug)]
pub struct GrpcConfigBuilder {
    authority: Option<String>,
    config: GrpcConfig,
}

/// The largest window of HTTP/2 (RFC 9113 §6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// The largest window of the mux: HTTP/2's is to be twice as large.
const MAX_CONNECTION_WINDOW: u64 = 1023 * 1024 * 1024;
const _: () = assert!(2 * MAX_CONNECTION_WINDOW + (ROOM as u64) <= MAX_WINDOW as u64);
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
            mux: MuxConfig::default(),
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
            authority: None,
            config: Self::default(),
        }
    }

    /// The largest number of streams that the peer may have open at once; a server announces it in its welcome.
    #[must_use]
    pub fn limits(&self) -> StreamLimits {
        self.mux.proto.limits()
    }

    /// How a dead path is noticed.
    #[must_use]
    pub fn keepalive(&self) -> Keepalive {
        self.mux.proto.keepalive()
    }

    /// The window of a call: twice what the mux lets its peer send, and a message that the mux does not count. h2 says
    /// that bytes were taken when they are a third of the window, which leaves the peer two thirds; the rest of the
    /// double is for headers of frames and packets, which the mux does not count either.
    pub(crate) fn stream_window(&self) -> u32 {
        u32::try_from(self.mux.proto.connection_window())
            .unwrap_or(u32::MAX)
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
    /// How streams are carried: their windows and their number, the keepalive, and the memory that all connections of the
    /// process may hold together.
    ///
    /// The mux's connection window is at most 1,023 MiB here: the HTTP/2 window of the call is twice as large, so that
    /// HTTP/2 never makes a sender wait before the mux does. The mux's probes decide whether a path is dead, for they are
    /// answered by the peer itself; a proxy answers HTTP/2's own. A server sends those as well, after twice the time, to
    /// end HTTP/2 connections that have no call.
    #[must_use]
    pub fn mux(mut self, mux: MuxConfig) -> Self {
        self.config.mux = mux;
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
        config.authority = match self.authority.map(Authority::try_from) {
            None => None,
            Some(Ok(authority)) => Some(authority),
            Some(Err(_)) => return Err(invalid("authority", "must be a host, or a host and a port")),
        };
        if config.mux.proto.connection_window() > MAX_CONNECTION_WINDOW {
            return Err(invalid("mux", "must have a connection window of at most 1,023 MiB"));
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
    use tunnel_core::proto::mux;

    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        GrpcConfig::builder().build().unwrap();
    }

    fn windowed(connection_window: u64) -> GrpcConfigBuilder {
        let mux = mux::Config::builder().connection_window(connection_window);
        GrpcConfig::builder().mux(mux.build().unwrap().into())
    }

    #[test]
    fn http2_has_room_for_all_that_the_mux_allows() {
        for window in [65_536, 64 << 20, MAX_CONNECTION_WINDOW] {
            let config = windowed(window).build().unwrap();
            // What h2 leaves to the peer at any time.
            assert!(u64::from(config.stream_window() / 3 * 2) >= window + u64::from(ROOM / 2));
            assert!(config.shared_window() >= config.stream_window());
            assert!(config.shared_window() <= MAX_WINDOW);
        }
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        let setting = |builder: GrpcConfigBuilder| builder.build().unwrap_err().setting;
        assert_eq!(setting(windowed(MAX_CONNECTION_WINDOW + 1)), "mux");
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
