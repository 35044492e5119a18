//! What can be set, and what it costs.

use std::{sync::Arc, time::Duration};

use quinn::{
    AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
    congestion::{BbrConfig, CubicConfig},
};
use tunnel_core::{Keepalive, StreamLimits};

use crate::congestion::{AdaptiveConfig, Openable};

/// The settings of a QUIC endpoint and its connections. Made by [`QuicConfig::builder`]; the default is right for
/// most networks.
///
/// # Memory
///
/// For one connection, at most [`receive_budget`](QuicConfigBuilder::receive_budget) bytes that nobody has read and
/// [`send_window`](QuicConfigBuilder::send_window) bytes that the peer has not acknowledged; for one stream, at most
/// [`stream_window`](QuicConfigBuilder::stream_window) bytes unread. Only streams whose reader is slower than its
/// sender come near that: an idle connection takes about 70 KiB, an idle stream 1 to 2 KiB.
///
/// quinn 0.11 keeps about 90 bytes, until the connection ends, for each stream that was reset at this end while somebody
/// waited for the peer to stop it.
#[derive(Clone, Debug)]
pub struct QuicConfig {
    pub(crate) keepalive: Keepalive,
    pub(crate) max_streams: u32,
    pub(crate) stream_window: u32,
    pub(crate) receive_budget: u64,
    pub(crate) send_window: u64,
    pub(crate) socket_buffer: usize,
    pub(crate) congestion: Congestion,
    pub(crate) initial_mtu: u16,
    pub(crate) max_mtu: u16,
    pub(crate) segmentation_offload: bool,
    pub(crate) migration: bool,
    pub(crate) ack_threshold: u32,
    pub(crate) handshake_timeout: Duration,
    pub(crate) preamble_timeout: Duration,
    pub(crate) max_half_open: usize,
    pub(crate) retry_threshold: usize,
    pub(crate) renew_after: u64,
}

/// How a sender finds out how much the path carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Congestion {
    /// CUBIC whose window does not fall below what the path has been seen to carry, and a quarter more. The same as CUBIC
    /// where no packets are lost, or only by queues that hold what is carried in a round trip. Where packets are lost for
    /// other reasons, up to one of ten, it carries what there is room for: at 1 % loss and 20 ms 58 of 62 MB/s, with a queue
    /// of some milliseconds. There, and where queues are shorter, it takes more than its share from CUBIC senders: up to
    /// four fifths beside one.
    #[default]
    Adaptive,
    /// CUBIC (RFC 9438), as most TCP senders do. Fair to others; at 1 % loss and 20 ms it carries about 1 MB/s.
    Cubic,
    /// BBR, version 1, in an implementation that quinn calls experimental: carries 36 to 60 MB/s on the same path, with
    /// queues of up to 300 ms.
    Bbr,
}

/// A setting that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {problem}")]
pub struct InvalidConfig {
    /// The method of [`QuicConfigBuilder`] that set it.
    pub setting: &'static str,
    /// What is wrong, as the rest of a sentence.
    pub problem: &'static str,
}

/// Collects and checks the parts of a [`QuicConfig`].
#[derive(Clone, Debug)]
pub struct QuicConfigBuilder {
    config: QuicConfig,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self {
            keepalive: Keepalive::default(),
            max_streams: StreamLimits::default().max_streams,
            stream_window: 6 * 1024 * 1024,
            receive_budget: 768 * 1024 * 1024,
            send_window: 64 * 1024 * 1024,
            socket_buffer: 4 * 1024 * 1024,
            congestion: Congestion::default(),
            initial_mtu: MIN_MTU,
            max_mtu: MAX_OFFLOADED_MTU,
            segmentation_offload: true,
            migration: true,
            ack_threshold: 0,
            handshake_timeout: Duration::from_secs(10),
            preamble_timeout: Duration::from_secs(10),
            max_half_open: 256,
            retry_threshold: 256,
            renew_after: 128 * 1024,
        }
    }
}

/// The UDP payload that every QUIC path carries (RFC 9000 §14).
const MIN_MTU: u16 = 1200;
/// The largest UDP payload with which a batch of ten packets, as quinn sends them, fits into one UDP message.
const MAX_OFFLOADED_MTU: u16 = 6400;
/// The UDP payload that fits into an Ethernet frame with IPv4.
const ETHERNET_MTU: u16 = 1472;
/// The smallest stream window: what a busy stream may be left with.
const MIN_STREAM_WINDOW: u32 = 16 * 1024;
/// The longest silence that can be configured; longer would mean that dead peers are never noticed.
const MAX_SILENCE: Duration = Duration::from_secs(3600);
/// The shortest, so that a busy machine is not taken for a dead one.
const MIN_SILENCE: Duration = Duration::from_millis(300);
/// How many streams of the peer quinn makes room for at first; each costs about 90 bytes even if it is never opened.
pub(crate) const INITIAL_STREAM_ROOM: u64 = 256;

impl QuicConfig {
    /// Starts from the defaults.
    #[must_use]
    pub fn builder() -> QuicConfigBuilder {
        QuicConfigBuilder {
            config: Self::default(),
        }
    }

    /// The largest number of streams that the peer may have open at once; a server announces it in its welcome.
    #[must_use]
    pub fn limits(&self) -> StreamLimits {
        let mut limits = StreamLimits::default();
        limits.max_streams = self.max_streams;
        limits
    }

    /// How a dead path is noticed.
    #[must_use]
    pub fn keepalive(&self) -> Keepalive {
        self.keepalive
    }

    /// How many streams quinn has to let the peer have open, so that [`Self::max_streams`] of them are never out of
    /// reach: it announces what has become free only when that is an eighth of the whole. One more for the control
    /// stream.
    pub(crate) fn stream_room(&self) -> u64 {
        u64::from(self.max_streams) * 8 / 7 + 2
    }

    /// The connection's receive window and whether stalled streams could exhaust it.
    ///
    /// As every stream may stall with a full window, the window of the connection has to hold that for all streams,
    /// and an eighth on top, because quinn announces connection credit only when that much has gathered. Where that
    /// fits the budget, nothing more is needed; where not, [`pressure`](crate::pressure) keeps room.
    pub(crate) fn receive_window(&self) -> (u64, bool) {
        let stalled = self.stream_room().saturating_mul(u64::from(self.stream_window));
        let sufficient = stalled.saturating_add(stalled / 7).saturating_add(1);
        (sufficient.min(self.receive_budget), sufficient > self.receive_budget)
    }

    /// What an endpoint takes, and says that it takes.
    pub(crate) fn takes(&self, endpoint: &mut EndpointConfig) {
        // It fails for less than 1200 bytes.
        let _ = endpoint.max_udp_payload_size(self.max_mtu.max(ETHERNET_MTU));
    }

    /// quinn's form of all this.
    ///
    /// QUIC's idle timer restarts when something is received and when the first packet after that is sent (RFC 9000
    /// §10.1). A keepalive goes out a third of the bound after the last packet, so a peer that falls silent is noticed
    /// at the latest when the idle timeout of two thirds has passed after it. Each end sends its own, and QUIC takes
    /// the shorter of both idle timeouts, so neither needs to know the other's settings.
    ///
    /// `way` is the largest UDP payload that the way to the peer may carry, if anything is known.
    pub(crate) fn transport(&self, way: Option<u16>) -> Arc<TransportConfig> {
        let max_mtu = way.map_or(self.max_mtu, |way| way.min(self.max_mtu));
        let third = self.keepalive.bound() / 3;
        let mut transport = TransportConfig::default();
        transport
            .keep_alive_interval(Some(third))
            .max_idle_timeout(IdleTimeout::try_from(third * 2).ok())
            .max_concurrent_bidi_streams(var_int(self.stream_room().min(INITIAL_STREAM_ROOM)))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(self.stream_window.into())
            .receive_window(var_int(self.receive_window().0))
            .send_window(u64::MAX)
            .datagram_receive_buffer_size(None)
            .initial_mtu(self.initial_mtu)
            .mtu_discovery_config((max_mtu > MIN_MTU).then(|| {
                let mut discovery = MtuDiscoveryConfig::default();
                discovery.upper_bound(max_mtu);
                discovery
            }))
            .enable_segmentation_offload(self.segmentation_offload);
        if self.ack_threshold > 0 {
            let mut frequency = AckFrequencyConfig::default();
            frequency.ack_eliciting_threshold(self.ack_threshold.into());
            transport.ack_frequency_config(Some(frequency));
        }
        match self.congestion {
            Congestion::Adaptive => transport.congestion_controller_factory(controlled::<AdaptiveConfig>()),
            Congestion::Cubic => transport.congestion_controller_factory(controlled::<CubicConfig>()),
            Congestion::Bbr => transport.congestion_controller_factory(controlled::<BbrConfig>()),
        };
        Arc::new(transport)
    }
}

fn controlled<F: Default>() -> Arc<Openable<F>> {
    Arc::new(Openable(Arc::default()))
}

/// The number as QUIC can send it; larger ones mean "without limit" there.
pub(crate) fn var_int(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

impl QuicConfigBuilder {
    /// How a dead path is noticed: at the latest after the sum of both durations. Default 10 s + 5 s. A shorter bound
    /// means more small packets on idle connections, three in each bound from either end. QUIC waits for at least
    /// three probe timeouts, so on a path with a round trip of seconds it can take longer.
    ///
    /// A peer whose process was killed is noticed earlier where this system is Linux and the peer's reports that
    /// nobody has the port any more: about a second after something was sent, and something is sent every half second
    /// while a stream waits for its answer.
    #[must_use]
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        self.config.keepalive = keepalive;
        self
    }

    /// The largest number of streams that the peer may have open at once. Default 16,384. Further ones wait, in order.
    #[must_use]
    pub fn max_streams(mut self, max_streams: u32) -> Self {
        self.config.max_streams = max_streams;
        self
    }

    /// How many bytes of a stream the peer may send before its reader has taken them. Default 6 MiB: a single stream
    /// fills a path of 120 MB/s and 50 ms, or one of 60 MB/s and 20 ms that loses a packet of a hundred: what comes
    /// behind a lost packet waits for it, which takes a round trip more, or two if it is lost again. A stalled reader's
    /// stream holds as much memory.
    #[must_use]
    pub fn stream_window(mut self, bytes: u32) -> Self {
        self.config.stream_window = bytes;
        self
    }

    /// How many unread bytes one connection may hold, over all its streams. Default 768 MiB.
    ///
    /// Up to `budget / stream_window` streams (128 by default) can stall with full windows and the others do not
    /// notice. When more do, so that the peer has no credit left, the streams that have been stalled longest are
    /// stopped with [`StreamCode::MEMORY`](tunnel_core::StreamCode::MEMORY) until an eighth of the budget is free.
    #[must_use]
    pub fn receive_budget(mut self, bytes: u64) -> Self {
        self.config.receive_budget = bytes;
        self
    }

    /// How many bytes one connection may hold that the peer has not acknowledged, over all its streams. Default
    /// 64 MiB, which is taken only where the path carries as much: streams get room for about three congestion windows,
    /// but no more than 2 MiB and what 200 MB/s carry in a round trip. They take turns of 64 KiB, however many there are.
    /// An eighth is for those of which no more than 8 KiB are under way, so that these never wait for the others.
    #[must_use]
    pub fn send_window(mut self, bytes: u64) -> Self {
        self.config.send_window = bytes;
        self
    }

    /// The size to ask for of the socket's buffers, each way. Default 4 MiB: with the 208 KiB that Linux gives
    /// unasked, one to two packets of a hundred are lost at full speed. A kernel that grants less is reported in a
    /// warning that says how to change it.
    #[must_use]
    pub fn socket_buffer(mut self, bytes: usize) -> Self {
        self.config.socket_buffer = bytes;
        self
    }

    /// The congestion controller of what this end sends. Default [`Congestion::Adaptive`].
    #[must_use]
    pub fn congestion(mut self, congestion: Congestion) -> Self {
        self.config.congestion = congestion;
        self
    }

    /// The UDP payload to begin with, in bytes. Default 1200, which every QUIC path carries (RFC 9000 §14); a larger
    /// one saves the discovery on networks that are known, and fails where the path does not carry it.
    #[must_use]
    pub fn initial_mtu(mut self, bytes: u16) -> Self {
        self.config.initial_mtu = bytes;
        self
    }

    /// The largest UDP payload that discovery tries and that this end takes, in bytes. Default 6400, the most with which
    /// ten packets fit into one call of [`segmentation_offload`](Self::segmentation_offload): within a host and on
    /// networks with jumbo frames a packet of that size costs hardly more than one of 1452. What does not leave this
    /// system whole is not tried, if the system tells (Linux does), so on Ethernet it is 1452. The smaller one of both
    /// ends counts. 1200 switches discovery off.
    #[must_use]
    pub fn max_mtu(mut self, bytes: u16) -> Self {
        self.config.max_mtu = bytes;
        self
    }

    /// Whether the kernel may be given several packets at once (GSO). Default yes: without it throughput more than
    /// halves. Some drivers claim to support it and then fail; there, switch it off.
    #[must_use]
    pub fn segmentation_offload(mut self, enabled: bool) -> Self {
        self.config.segmentation_offload = enabled;
        self
    }

    /// Whether a connection may go on when the agent's address changes. Default yes, for NAT rebinding and roaming.
    /// Only a server's setting matters.
    #[must_use]
    pub fn migration(mut self, enabled: bool) -> Self {
        self.config.migration = enabled;
        self
    }

    /// How many packets the peer may receive before it has to acknowledge, if it supports that. Default 0: QUIC's own
    /// rule, every second packet. 40 saves about 8 % of the CPU at full speed and makes recovery from loss slower.
    #[must_use]
    pub fn ack_threshold(mut self, packets: u32) -> Self {
        self.config.ack_threshold = packets;
        self
    }

    /// How long a server waits for the whole handshake with its claim. Default 10 s.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.config.handshake_timeout = timeout;
        self
    }

    /// How long the peer may take to send the head of a stream that it has opened. Default 10 s.
    #[must_use]
    pub fn preamble_timeout(mut self, timeout: Duration) -> Self {
        self.config.preamble_timeout = timeout;
        self
    }

    /// How many streams of one connection may be without a complete head at once; further ones wait. Default 256.
    #[must_use]
    pub fn max_half_open(mut self, streams: usize) -> Self {
        self.config.max_half_open = streams;
        self
    }

    /// From how many pending handshakes on a server makes newcomers prove their address first (RFC 9000 §8.1.2), which
    /// costs them a round trip and keeps forged packets from taking up memory. Default 256.
    #[must_use]
    pub fn retry_threshold(mut self, handshakes: usize) -> Self {
        self.config.retry_threshold = handshakes;
        self
    }

    /// After how many streams that this end reset a connection makes way for a new one: it drains itself, and the agent
    /// dials the next. Default: 131,072, because quinn 0.11 keeps about 90 bytes of each such stream until the
    /// connection ends, which makes 12 MiB.
    #[must_use]
    pub fn renew_after(mut self, resets: u64) -> Self {
        self.config.renew_after = resets;
        self
    }

    /// Checks that the settings can work together.
    pub fn build(self) -> Result<QuicConfig, InvalidConfig> {
        let config = self.config;
        let window = u64::from(config.stream_window);
        check(
            "keepalive",
            (MIN_SILENCE..=MAX_SILENCE).contains(&config.keepalive.bound()),
            "must add up to between 300 ms and an hour",
        )?;
        check("max_streams", config.max_streams > 0, "must not be zero")?;
        check(
            "max_streams",
            config.max_streams <= 1 << 20,
            "must be at most 1,048,576",
        )?;
        check(
            "stream_window",
            config.stream_window >= MIN_STREAM_WINDOW,
            "must be at least 16 KiB",
        )?;
        check(
            "receive_budget",
            config.receive_budget >= window.saturating_mul(4),
            "must be at least four times the stream window",
        )?;
        check(
            "send_window",
            config.send_window >= u64::from(MIN_STREAM_WINDOW),
            "must be at least 16 KiB",
        )?;
        check("initial_mtu", config.initial_mtu >= MIN_MTU, "must be at least 1200")?;
        check(
            "max_mtu",
            config.max_mtu >= config.initial_mtu,
            "must not be below initial_mtu",
        )?;
        check(
            "max_mtu",
            config.max_mtu <= MAX_OFFLOADED_MTU || !config.segmentation_offload,
            "must be at most 6400 unless segmentation_offload is off",
        )?;
        check("max_half_open", config.max_half_open > 0, "must not be zero")?;
        Ok(config)
    }
}

fn check(setting: &'static str, fine: bool, problem: &'static str) -> Result<(), InvalidConfig> {
    if fine {
        Ok(())
    } else {
        Err(InvalidConfig { setting, problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        QuicConfig::builder().build().unwrap();
    }

    #[test]
    fn a_window_that_stalled_streams_cannot_exhaust_is_used_where_it_fits() {
        let config = QuicConfig::builder()
            .max_streams(16)
            .stream_window(65_536)
            .build()
            .unwrap();
        let (window, exhaustible) = config.receive_window();
        assert!(!exhaustible);
        // All streams but one hold a full window; what is left is more than what may go unannounced and a window.
        let left = window - (config.stream_room() - 1) * 65_536;
        assert!(left > window / 8 + 65_536 - 65_536 / 7, "{left}");
    }

    #[test]
    fn the_budget_is_never_passed() {
        let config = QuicConfig::default();
        assert_eq!(config.receive_window(), (config.receive_budget, true));
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        let setting = |builder: QuicConfigBuilder| builder.build().unwrap_err().setting;
        assert_eq!(setting(QuicConfig::builder().max_streams(0)), "max_streams");
        assert_eq!(setting(QuicConfig::builder().max_mtu(9000)), "max_mtu");
        assert_eq!(setting(QuicConfig::builder().initial_mtu(900)), "initial_mtu");
        assert_eq!(setting(QuicConfig::builder().receive_budget(1)), "receive_budget");
        QuicConfig::builder()
            .max_mtu(9000)
            .segmentation_offload(false)
            .build()
            .unwrap();
    }
}
