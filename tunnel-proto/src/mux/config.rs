//! What can be set, and what it costs.

use crate::{Keepalive, StreamLimits};

/// The settings of a [`Mux`](super::Mux). Made by [`Config::builder`]; the default is right for most networks.
///
/// # Memory
///
/// A stream holds at most its window of unread bytes, and at most [`send_queue`](ConfigBuilder::send_queue) bytes that
/// wait to be sent; both only while its reader, or the link, is slower than its writer. An idle stream takes less than
/// 1 KiB beside. The bytes that one process holds are bounded by its [`Budget`](super::Budget), which counts payload:
/// unread bytes can be slices of their message and then keep up to twice as much in memory, and chunks below 1 KiB are
/// collected in buffers that are up to twice as large as what is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub(super) max_streams: u32,
    pub(super) max_pending: u32,
    pub(super) windows: Windows,
    pub(super) connection_window: u64,
    pub(super) send_queue: usize,
    pub(super) keepalive: Keepalive,
}

/// How many bytes of one stream and direction may be unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // three numbers, and there is nothing more to say
pub struct Windows {
    /// The window that every stream has from its first moment, and that is left to it when memory is short. Default
    /// 64 KiB.
    pub floor: u64,
    /// The window that a stream gets at once while memory is not short, and to which it falls back when it idles or
    /// stalls. Default 256 KiB.
    pub start: u64,
    /// How far the window of a stream may grow whose reader empties it within a round trip. Default 16 MiB, which
    /// fills 1 Gbit/s at 100 ms.
    pub ceiling: u64,
}

impl Windows {
    /// One size for all streams at all times.
    #[must_use]
    pub const fn fixed(bytes: u64) -> Self {
        Self {
            floor: bytes,
            start: bytes,
            ceiling: bytes,
        }
    }
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            floor: 64 * 1024,
            start: 256 * 1024,
            ceiling: 16 * 1024 * 1024,
        }
    }
}

/// A setting that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {problem}")]
pub struct InvalidConfig {
    /// The method of the builder that set it.
    pub setting: &'static str,
    /// What is wrong, as the rest of a sentence.
    pub problem: &'static str,
}

/// Collects and checks the parts of a [`Config`].
#[derive(Clone, Debug)]
pub struct ConfigBuilder {
    config: Config,
}

/// The window of a connection at first: on a path that carries less in a round trip, more would only wait at its end.
const CONNECTION_START: u64 = 1024 * 1024;
/// The largest window that can be set: what one stream may make a process hold.
const MAX_WINDOW: u64 = 1 << 30;
/// The smallest: less would make frames of a few bytes.
const MIN_WINDOW: u64 = 1024;
/// The connection's window is announced by the quarter, of which each should be worth a frame.
const MIN_CONNECTION_WINDOW: u64 = 4096;
/// More than any path carries, and far from what an offset can say.
const MAX_CONNECTION_WINDOW: u64 = 1 << 50;

impl Default for Config {
    fn default() -> Self {
        let max_streams = StreamLimits::default().max_streams;
        Self {
            max_streams,
            max_pending: max_streams,
            windows: Windows::default(),
            connection_window: 64 * 1024 * 1024,
            send_queue: 128 * 1024,
            keepalive: Keepalive::default(),
        }
    }
}

impl Config {
    /// Starts from the defaults.
    #[must_use]
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder {
            config: Self::default(),
        }
    }

    /// The largest number of streams that the peer may have open at once; a server announces it in its welcome.
    #[must_use]
    pub fn limits(&self) -> StreamLimits {
        StreamLimits {
            max_streams: self.max_streams,
        }
    }

    /// How a dead path is noticed.
    #[must_use]
    pub fn keepalive(&self) -> Keepalive {
        self.keepalive
    }

    /// How many bytes of a stream may be unread.
    #[must_use]
    pub fn stream_window(&self) -> Windows {
        self.windows
    }

    /// How many bytes may be on their way to this end at most, over all streams.
    #[must_use]
    pub fn connection_window(&self) -> u64 {
        self.connection_window
    }

    /// How the window of a connection is fitted to the path: it begins with 1 MiB.
    #[must_use]
    pub fn connection_windows(&self) -> Windows {
        let start = CONNECTION_START.min(self.connection_window);
        Windows {
            floor: start,
            start,
            ceiling: self.connection_window,
        }
    }

    /// How many bytes of one stream may wait for their turn on the connection.
    #[must_use]
    pub fn send_queue(&self) -> usize {
        self.send_queue
    }
}

impl ConfigBuilder {
    /// The largest number of streams that the peer may have open at once. Default 16,384. Further ones wait, in order.
    #[must_use]
    pub fn max_streams(mut self, streams: u32) -> Self {
        self.config.max_streams = streams;
        self.config.max_pending = streams;
        self
    }

    /// How many of them may wait for an answer at once; further ones are refused with
    /// [`ConnectionLimitReached`](crate::RefusalKind::ConnectionLimitReached). Default: all, so that they wait as long
    /// as their opener does. Set it after [`max_streams`](Self::max_streams).
    #[must_use]
    pub fn max_pending(mut self, streams: u32) -> Self {
        self.config.max_pending = streams;
        self
    }

    /// How many bytes of a stream may be unread. Default: 64 KiB to 16 MiB, as the path asks for.
    #[must_use]
    pub fn stream_window(mut self, windows: Windows) -> Self {
        self.config.windows = windows;
        self
    }

    /// How many bytes may be on their way at most, over all streams. Default 64 MiB: 5 Gbit/s at 100 ms.
    ///
    /// A connection begins with 1 MiB, and goes as far as the path needs it: what is under way beyond what the path
    /// carries in a round trip stands in the receiver's kernel, and small messages wait behind it. It comes back as bytes
    /// arrive and not as they are read, so that streams which nobody reads cannot use it up. It costs no memory.
    #[must_use]
    pub fn connection_window(mut self, bytes: u64) -> Self {
        self.config.connection_window = bytes;
        self
    }

    /// How many bytes of one stream may wait for their turn on the link. Default 128 KiB: enough to fill two messages,
    /// so that the writer can be woken while the second is sent. While memory is short, it is 16 KiB. Streams that move
    /// bulk wait for each other when four times as much is queued on all of them, because what stays in a processor's
    /// cache until it is sent is cheaper to send; a stream that sends little does not wait for its first 16 KiB.
    #[must_use]
    pub fn send_queue(mut self, bytes: usize) -> Self {
        self.config.send_queue = bytes;
        self
    }

    /// How a dead path is noticed. Default 10 s + 5 s.
    #[must_use]
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        self.config.keepalive = keepalive;
        self
    }

    /// Checks the whole.
    pub fn build(self) -> Result<Config, InvalidConfig> {
        let invalid = |setting, problem| Err(InvalidConfig { setting, problem });
        let config = self.config;
        let Windows { floor, start, ceiling } = config.windows;
        if config.max_streams == 0 {
            return invalid("max_streams", "must be at least 1");
        }
        if config.max_pending == 0 {
            return invalid("max_pending", "must be at least 1");
        }
        if floor < MIN_WINDOW {
            return invalid("stream_window", "must be at least 1 KiB");
        }
        if start < floor || ceiling < start {
            return invalid("stream_window", "must not shrink from floor to start to ceiling");
        }
        if ceiling > MAX_WINDOW {
            return invalid("stream_window", "must be at most 1 GiB");
        }
        if config.connection_window < MIN_CONNECTION_WINDOW {
            return invalid("connection_window", "must be at least 4 KiB");
        }
        if config.connection_window > MAX_CONNECTION_WINDOW {
            return invalid("connection_window", "must be at most 1 PiB");
        }
        if config.send_queue < 1024 {
            return invalid("send_queue", "must be at least 1 KiB");
        }
        if config.send_queue as u64 > MAX_WINDOW {
            return invalid("send_queue", "must be at most 1 GiB");
        }
        if config.keepalive.interval.is_zero() || config.keepalive.timeout.is_zero() {
            return invalid("keepalive", "must be longer than nothing");
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_named() {
        let windows = |floor, start, ceiling| Config::builder().stream_window(Windows { floor, start, ceiling });
        let wrong = [
            (Config::builder().max_streams(0), "max_streams"),
            (Config::builder().max_pending(0), "max_pending"),
            (windows(10, 4096, 4096), "stream_window"),
            (windows(8192, 4096, 8192), "stream_window"),
            (windows(4096, 8192, 4096), "stream_window"),
            (windows(4096, 8192, u64::MAX), "stream_window"),
            (Config::builder().connection_window(4095), "connection_window"),
            (Config::builder().connection_window(u64::MAX), "connection_window"),
            (Config::builder().send_queue(0), "send_queue"),
            (Config::builder().send_queue(usize::MAX), "send_queue"),
        ];
        for (builder, setting) in wrong {
            assert_eq!(builder.build().unwrap_err().setting, setting);
        }
        assert_eq!(Config::builder().build(), Ok(Config::default()));
    }

    #[test]
    fn a_connection_begins_small_and_goes_as_far_as_is_set() {
        let windows = |bytes| {
            let config = Config::builder().connection_window(bytes).build().unwrap();
            let Windows { floor, start, ceiling } = config.connection_windows();
            (floor, start, ceiling)
        };
        assert_eq!(windows(64 << 20), (CONNECTION_START, CONNECTION_START, 64 << 20));
        assert_eq!(windows(4096), (4096, 4096, 4096));
    }
}
