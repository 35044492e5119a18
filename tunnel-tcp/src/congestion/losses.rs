//! Whether a connection loses packets.

/// So many packets lost within a [`WINDOW`] are many.
const MANY: i32 = 5;

/// The packets of which so many must be lost: one of ten thousand, which leaves `cubic` ten megabytes a second over 20 ms.
/// Chance finds so many of a path that loses one of 100,000 in one window of some thousand.
const WINDOW: u32 = 50_000;

/// What the kernel counts of a connection; both go round.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// The packets with payload that were sent.
    pub(super) sent: u32,
    /// Those that were lost, as far as this end knows. It goes down where the peer says later that one had come.
    pub(super) lost: u32,
}

/// What a connection loses, of what it sends.
#[derive(Debug)]
pub(super) struct Losses {
    /// As the window began.
    begin: Counts,
    /// Whether they were many when last looked at.
    were_many: bool,
}

impl Losses {
    pub(super) fn since(begin: Counts) -> Self {
        Self {
            begin,
            were_many: false,
        }
    }

    /// Whether they are many, for the second time in a row: with a round trip between the two, the peer has had the time to
    /// say that what was sent again had come.
    pub(super) fn are_many(&mut self, now: Counts) -> bool {
        let are_many = now.lost.wrapping_sub(self.begin.lost).cast_signed() >= MANY;
        let still = are_many && self.were_many;
        self.were_many = are_many;
        if !are_many && now.sent.wrapping_sub(self.begin.sent) >= WINDOW {
            self.begin = now;
        }
        still
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a connection that loses one packet of `one_in`, evenly, is found to lose many.
    fn found(one_in: u32, begin: Counts) -> bool {
        let mut losses = Losses::since(begin);
        (0..1_000_000).any(|sent: u32| {
            losses.are_many(Counts {
                sent: begin.sent.wrapping_add(sent),
                lost: begin.lost.wrapping_add(sent / one_in),
            })
        })
    }

    #[test]
    fn more_than_one_of_ten_thousand_are_many() {
        let round = Counts {
            sent: u32::MAX - 1000,
            lost: u32::MAX - 3,
        };
        for begin in [Counts::default(), round] {
            assert!(found(100, begin));
            assert!(found(9_000, begin));
            assert!(!found(13_000, begin));
            assert!(!found(500_000, begin));
        }
    }

    #[test]
    fn a_path_that_begins_to_lose_packets_after_a_long_time_is_found_as_soon() {
        let mut losses = Losses::since(Counts::default());
        for sent in 0..10_000_000 {
            assert!(!losses.are_many(Counts { sent, lost: 0 }));
        }
        let soon = (1..).find(|lost| {
            losses.are_many(Counts {
                sent: 10_000_000 + 100 * lost,
                lost: *lost,
            })
        });
        assert!(soon.is_some_and(|lost| lost < 10), "{soon:?}");
    }

    #[test]
    fn what_had_come_after_all_was_not_lost() {
        let mut losses = Losses::since(Counts { sent: 7, lost: 7 });
        let mut are_many = |lost| losses.are_many(Counts { sent: 100, lost });
        assert!(!are_many(12));
        assert!(!are_many(11));
        assert!(!are_many(3), "less than when it began");
        assert!(!are_many(12));
        assert!(are_many(12));
    }
}
