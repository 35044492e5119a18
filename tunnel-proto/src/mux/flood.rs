//! Patience with frames that cost work and bring nothing (`docs/wire.md` §9.9).

use std::time::Instant;

/// How much a peer that has behaved may spend at once.
const BURST: u64 = 4096;
/// How much comes back each second.
const PER_SECOND: u64 = 512;
/// How many frames about a half may still come after it has ended: a RESET or a STOP that crosses its end, an answer,
/// and credit of a reader that was busy.
const HALF_ENDED: u64 = 4;

/// What is left of this end's patience with its peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    left: u64,
    at: Instant,
    /// How many more frames may come about halves that have ended. It has no bound of its own: it takes as many
    /// streams to save it up.
    late: u64,
}

/// The peer has used it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost;

impl Patience {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            at: now,
            late: 0,
        }
    }

    /// Bears something that brings nothing.
    pub(super) fn spend(&mut self, now: Instant, cost: u64) -> Result<(), Lost> {
        let seconds = now.saturating_duration_since(self.at).as_secs();
        if seconds > 0 {
            self.at = now;
            let earned = seconds.saturating_mul(PER_SECOND);
            self.left = self.left.saturating_add(earned).min(BURST);
        }
        self.left = self.left.checked_sub(cost).ok_or(Lost)?;
        Ok(())
    }

    /// Bears a frame about a half that has ended.
    pub(super) fn spend_late(&mut self, now: Instant) -> Result<(), Lost> {
        match self.late.checked_sub(1) {
            Some(late) => self.late = late,
            None => self.spend(now, 1)?,
        }
        Ok(())
    }

    /// A half has ended, and frames about it may still be on their way.
    pub(super) fn end_half(&mut self) {
        self.late = self.late.saturating_add(HALF_ENDED);
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
        let much_later = later + Duration::from_secs(3600);
        patience.spend(much_later, BURST).unwrap();
        assert_eq!(patience.spend(much_later, 1), Err(Lost));
    }

    #[test]
    fn late_frames_are_borne_as_long_as_streams_have_ended() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        patience.spend(start, BURST).unwrap();
        for _ in 0..2 * BURST {
            patience.end_half();
        }
        for _ in 0..2 * BURST * HALF_ENDED {
            patience.spend_late(start).unwrap();
        }
        assert_eq!(patience.spend_late(start), Err(Lost));
    }
}
