use std::time::Duration;

/// How bytes travel in one direction.
///
/// The arithmetic is exact to the byte and the nanosecond; tokio's timers have ticks of a millisecond, so what arrives
/// between two ticks is seen at the later one, and nothing is seen early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// From end to end. Default none.
    pub latency: Duration,
    /// Bytes per second: how long each byte occupies the wire. Default `None`: no time.
    pub bandwidth: Option<u64>,
    /// Up to how much is added to the latency of what is written at once, at random; order is kept. Default none.
    pub jitter: Duration,
    /// How many bytes wait for the wire before writes are pending, and as many for the reader at the other end; what is
    /// on the wire, bandwidth × latency, is besides. Nothing else is held. Default 128 KiB, as sockets have it.
    pub buffer: usize,
    /// The most bytes that one write takes. Default `None`: as many as there is room for.
    pub max_write: Option<usize>,
    /// The most bytes that one read gives. Default `None`: as many as have arrived.
    pub max_read: Option<usize>,
    /// If set, what is written leaves when it is flushed, or when the buffer is full, as from a buffered writer; and a
    /// flush takes this long. Default `None`: bytes leave at once, and there is nothing to flush.
    pub flush_delay: Option<Duration>,
    /// Where the jitter begins. Default 0.
    pub seed: u64,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            bandwidth: None,
            jitter: Duration::ZERO,
            buffer: 128 * 1024,
            max_write: None,
            max_read: None,
            flush_delay: None,
            seed: 0,
        }
    }
}

impl Profile {
    /// One with this latency and bandwidth in bytes per second.
    #[must_use]
    pub fn new(latency: Duration, bandwidth: u64) -> Self {
        Self {
            latency,
            bandwidth: Some(bandwidth),
            ..Self::default()
        }
    }

    /// A network in the same building: 1 ms, 20 MB/s.
    #[must_use]
    pub fn near() -> Self {
        Self::new(Duration::from_millis(1), 20_000_000)
    }

    /// One across an ocean: 100 ms, 20 MB/s.
    #[must_use]
    pub fn far() -> Self {
        Self::new(Duration::from_millis(100), 20_000_000)
    }

    /// One that moves at most so many bytes in a read and in a write, and lets none go before they are flushed, which
    /// takes a millisecond; 1 ms, 2 MB/s.
    #[must_use]
    pub fn crumbs(max_read: usize, max_write: usize) -> Self {
        Self {
            max_read: Some(max_read),
            max_write: Some(max_write),
            flush_delay: Some(Duration::from_millis(1)),
            ..Self::new(Duration::from_millis(1), 2_000_000)
        }
    }

    /// The time that so many bytes occupy the wire, rounded up.
    #[must_use]
    pub fn time_for(&self, bytes: u64) -> Duration {
        self.bandwidth.map_or(Duration::ZERO, |bandwidth| {
            let nanos = (u128::from(bytes) * NANOS).div_ceil(u128::from(bandwidth.max(1)));
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        })
    }

    /// How many bytes have passed after this time.
    pub(super) fn bytes_in(&self, time: Duration) -> u64 {
        self.bandwidth.map_or(u64::MAX, |bandwidth| {
            let bytes = time.as_nanos() * u128::from(bandwidth.max(1)) / NANOS;
            u64::try_from(bytes).unwrap_or(u64::MAX)
        })
    }

    /// How many bytes may be written and not read.
    pub(super) fn capacity(&self) -> usize {
        let on_the_wire = match self.bandwidth {
            Some(_) => self.bytes_in(self.latency + self.jitter),
            None => 0,
        };
        (2 * self.buffer.max(1)).saturating_add(usize::try_from(on_the_wire).unwrap_or(usize::MAX))
    }
}

const NANOS: u128 = 1_000_000_000;
