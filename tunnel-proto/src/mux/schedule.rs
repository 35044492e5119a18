//! Whose turn it is to send: deficit round robin, new streams first.
//!
//! As in the scheduler of FQ-CoDel (RFC 8290 §4.1 and §4.2): a stream that becomes ready is *fresh* for one quantum and
//! goes before those that have been busy; when its quantum is used up, or it has nothing left, it moves behind the busy
//! ones. So a request overtakes downloads, and a stream cannot stay fresh by pausing: it stays on the list of the busy
//! ones for a round after it has run empty.

use std::collections::VecDeque;

use super::StreamId;

/// What a stream may send in its turn while others wait.
pub(super) const QUANTUM: usize = 16 * 1024;
/// What a frame costs beside its payload, so that many small ones are not free.
const FRAME_COST: usize = 16;

/// A stream's place among the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    list: Option<List>,
    /// What it may still send in this turn; below zero when it sent ahead of its turns while it was alone.
    deficit: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Fresh,
    Busy,
}

/// The streams that have something to send, and those that had it a moment ago.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    fresh: VecDeque<StreamId>,
    busy: VecDeque<StreamId>,
}

/// Whether the stream at the head may send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It may, so many bytes.
    Send(usize),
    /// It went to the back; look at the next one.
    Later,
}

impl Schedule {
    /// Puts in a stream that has something to send, if it is not in yet.
    pub(super) fn enter(&mut self, id: StreamId, turn: &mut Turn) {
        if turn.list.is_none() {
            *turn = Turn {
                list: Some(List::Fresh),
                deficit: to_deficit(QUANTUM),
            };
            self.fresh.push_back(id);
        }
    }

    /// The stream whose turn it is.
    pub(super) fn head(&self) -> Option<StreamId> {
        self.fresh.front().or_else(|| self.busy.front()).copied()
    }

    /// How many streams are in.
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.busy.len()
    }

    /// Takes out the stream at the head for good.
    pub(super) fn drop_head(&mut self) {
        if self.fresh.pop_front().is_none() {
            self.busy.pop_front();
        }
    }

    /// Decides about the stream at the head: `ready` says whether it has something to send, `alone` how much it may
    /// send at once when no other is in.
    pub(super) fn decide(&mut self, id: StreamId, turn: &mut Turn, ready: bool, alone: usize) -> Next {
        if !ready {
            match turn.list {
                Some(List::Fresh) => self.move_to_busy(id, turn),
                _ => {
                    self.drop_head();
                    turn.list = None;
                }
            }
            return Next::Later;
        }
        if self.len() == 1 {
            return Next::Send(alone);
        }
        if turn.deficit <= 0 {
            turn.deficit += to_deficit(QUANTUM);
            self.move_to_busy(id, turn);
            return Next::Later;
        }
        Next::Send(QUANTUM)
    }

    /// Notes what the stream at the head has sent.
    pub(super) fn sent(&mut self, turn: &mut Turn, bytes: usize) {
        // A debt is bounded, so that a stream that was alone for long is not locked out for long.
        let debt = turn.deficit - to_deficit(bytes + FRAME_COST);
        turn.deficit = debt.max(-to_deficit(2 * QUANTUM));
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn move_to_busy(&mut self, id: StreamId, turn: &mut Turn) {
        self.drop_head();
        self.busy.push_back(id);
        turn.list = Some(List::Busy);
    }
}

fn to_deficit(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::mux::Side;

    const ALONE: usize = 4 * QUANTUM;

    /// Streams with so many bytes to send, and who sends what next.
    #[derive(Default)]
    struct World {
        schedule: Schedule,
        streams: BTreeMap<u64, (Turn, usize)>,
    }

    impl World {
        fn add(&mut self, index: u64, bytes: usize) {
            let (turn, left) = self.streams.entry(index).or_default();
            *left += bytes;
            self.schedule.enter(StreamId::new(Side::Agent, index), turn);
        }

        fn next(&mut self) -> Option<(u64, usize)> {
            loop {
                let id = self.schedule.head()?;
                let (turn, left) = self.streams.get_mut(&id.index()).unwrap();
                if let Next::Send(most) = self.schedule.decide(id, turn, *left > 0, ALONE) {
                    let sent = most.min(*left);
                    *left -= sent;
                    self.schedule.sent(turn, sent);
                    return Some((id.index(), sent));
                }
            }
        }
    }

    #[test]
    fn a_new_stream_goes_first_and_a_stream_alone_sends_more_at_once() {
        let mut world = World::default();
        world.add(1, 1 << 20);
        assert_eq!(world.next(), Some((1, ALONE)));
        world.add(2, 1 << 20);
        assert_eq!(world.next(), Some((2, QUANTUM)));
        world.add(3, 100);
        assert_eq!(world.next(), Some((3, 100)));
    }

    #[test]
    fn a_stream_that_pauses_does_not_stay_ahead() {
        let mut world = World::default();
        world.add(1, 10 << 20);
        world.add(2, 10 << 20);
        let mut sent = [0; 3];
        for _ in 0..300 {
            if world.streams.get(&0).is_none_or(|(_, left)| *left == 0) {
                world.add(0, QUANTUM);
            }
            let (index, bytes) = world.next().unwrap();
            sent[usize::try_from(index).unwrap()] += bytes;
        }
        assert!(
            sent[0] <= sent[1] + 2 * QUANTUM && sent[0] <= sent[2] + 2 * QUANTUM,
            "{sent:?}"
        );
    }

    proptest! {
        /// Whoever has something to send gets as much as any other, within two quanta, however large the pieces are.
        #[test]
        fn shares_are_equal(sizes in prop::collection::vec(1usize..4, 2..20), rounds in 10usize..60) {
            let mut world = World::default();
            let mut sent = vec![0; sizes.len()];
            let plenty = 1 << 30;
            for index in 0..sizes.len() {
                world.add(index as u64, plenty);
            }
            for _ in 0..rounds * sizes.len() {
                let (index, bytes) = world.next().unwrap();
                sent[usize::try_from(index).unwrap()] += bytes;
            }
            let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
            prop_assert!(most - least <= 3 * QUANTUM, "{sent:?}");
        }

        /// Everything is sent, and afterwards nobody is left in.
        #[test]
        fn nobody_is_forgotten(steps in prop::collection::vec((0u64..8, 0usize..100_000, 0usize..6), 1..100)) {
            let mut world = World::default();
            let (mut fed, mut sent) = (0, 0);
            for (index, bytes, turns) in steps {
                world.add(index, bytes);
                fed += bytes;
                for _ in 0..turns {
                    sent += world.next().map_or(0, |(_, bytes)| bytes);
                }
            }
            while let Some((_, bytes)) = world.next() {
                sent += bytes;
            }
            prop_assert_eq!(sent, fed);
            prop_assert_eq!(world.schedule.len(), 0);
            prop_assert!(world.streams.values().all(|(turn, _)| turn.list.is_none()));
        }
    }
}
