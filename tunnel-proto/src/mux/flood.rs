//! Patience with frames that cost work and bring nothing (`docs/wire.md` §9.9).

use std::time::Instant;

/// How much a peer that has behaved may spend at once.
const BURST: u64 = 4096;
/// How much comes back each second.
const PER_SECOND: u64 = 512;
/// What a stream that has ended brings back: frames about it may still be on their way.
pub(super) const STREAM_ENDED: u64 = 4;

/// What is left of this end's patience with its peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    left: u64,
    at: Instant,
}

/// The peer has used it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost;

impl Patience {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    /// Bears something that brings nothing.
    pub(super) fn spend(&mut self, now: Instant, cost: u64) -> Result<(), Lost> {
        let seconds = now.saturating_duration_since(self.at).as_secs();
        if seconds > 0 {
            self.at = now;
            self.earn(seconds.saturating_mul(PER_SECOND));
        }
        self.left = self.left.checked_sub(cost).ok_or(Lost)?;
        Ok(())
    }

    pub(super) fn earn(&mut self, gain: u64) {
        self.left = self.left.saturating_add(gain).min(BURST);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_borne_and_a_flood_is_not() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        for _ in 0..BURST {
            patience.spend(start, 1).unwrap();
        }
        assert_eq!(patience.spend(start, 1), Err(Lost));
        let later = start + Duration::from_secs(2);
        patience.spend(later, 2 * PER_SECOND).unwrap();
        assert_eq!(patience.spend(later, 1), Err(Lost));
        patience.earn(u64::MAX);
        patience.spend(later, BURST).unwrap();
        assert_eq!(patience.spend(later, 1), Err(Lost));
    }
}
