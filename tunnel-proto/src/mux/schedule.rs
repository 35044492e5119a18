//! Whose turn it is to send: deficit round robin, streams that send little first.
//!
//! Near to the scheduler of FQ-CoDel (RFC 8290 §4.1 and §4.2): a stream that becomes ready is *fresh* and goes before those
//! that are busy, until it has sent a quantum; then it is busy, too. It gets the next quantum when every stream that was
//! busy meanwhile has had its turn, so pausing gains nothing. Unlike there, a stream that has run empty before that is not
//! made to wait for its turn, but goes on with what is left of its quantum: a request overtakes downloads, and so does the
//! next one a moment later.

use std::collections::VecDeque;

/// What a fresh stream may send before it counts as busy.
pub(super) const FRESH: usize = 16 * 1024;
/// What a busy stream may send in its turn while others wait. A turn costs both ends a wake-up, a read and a write, so it
/// is worth a whole message.
const BUSY: usize = super::MAX_PAYLOAD;
/// What a frame costs beside its payload, so that many small ones are not free.
const FRAME_COST: usize = 16;

/// A stream's place among the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    place: Place,
    /// What it may still send of its quantum; below zero when it sent ahead of its turns while it was alone.
    deficit: i64,
    /// How many turns there must have been until it gets the next one.
    renewal: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// It has nothing to send.
    #[default]
    Out,
    In(List),
    /// It could not send what it has, and comes back to this list.
    Parked(List),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Fresh,
    Busy,
}

/// The streams that have something to send, by their names.
///
/// Whoever has the streams keeps a [`Turn`] for each and gives it with the name:
///
/// ```
/// use tunnel_proto::mux::{Next, Schedule, Turn};
///
/// let (mut schedule, mut turn, mut waiting) = (Schedule::default(), Turn::default(), 100_000);
/// schedule.enter('a', &mut turn);
/// while let Some(name) = schedule.head() {
///     if let Next::Send(most) = schedule.decide(name, &mut turn, waiting > 0, 65_536) {
///         let sent = most.min(waiting);
///         waiting -= sent;
///         schedule.sent(&mut turn, sent);
///     }
/// }
/// assert_eq!(waiting, 0);
/// ```
#[derive(Debug)]
pub struct Schedule<K> {
    fresh: VecDeque<K>,
    busy: VecDeque<K>,
    /// How many turns of busy streams are over.
    turns: u64,
    /// How many streams wait for their turn elsewhere.
    elsewhere: u64,
}

/// Whether the stream at the head may send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // it may or it may not
pub enum Next {
    /// It may, so many bytes.
    Send(usize),
    /// It went to the back, or out; look at the next one.
    Later,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self {
            fresh: VecDeque::new(),
            busy: VecDeque::new(),
            turns: 0,
            elsewhere: 0,
        }
    }
}

impl<K: Copy> Schedule<K> {
    /// Puts in a stream that has something to send, if it is not in yet.
    pub fn enter(&mut self, name: K, turn: &mut Turn) {
        let list = match turn.place {
            Place::In(_) => return,
            Place::Parked(list) => list,
            Place::Out => {
                if self.turns >= turn.renewal {
                    turn.deficit = 0;
                    self.grant(turn, FRESH);
                }
                turn.deficit = turn.deficit.min(to_deficit(FRESH));
                if turn.deficit > 0 { List::Fresh } else { List::Busy }
            }
        };
        self.push(name, turn, list);
    }

    /// Puts in a stream that has waited for its turn elsewhere, behind those that are busy.
    pub fn enter_busy(&mut self, name: K, turn: &mut Turn) {
        if !matches!(turn.place, Place::In(_)) {
            turn.deficit = to_deficit(BUSY);
            self.begin_round(turn);
            self.push(name, turn, List::Busy);
        }
    }

    /// Says how many streams wait for their turn elsewhere: it takes them a turn each to come round.
    pub fn note_elsewhere(&mut self, streams: usize) {
        self.elsewhere = streams as u64;
    }

    /// The stream whose turn it is.
    #[must_use]
    pub fn head(&self) -> Option<K> {
        self.fresh.front().or_else(|| self.busy.front()).copied()
    }

    /// Whether the stream goes before those that are busy, or would if it had something to send.
    #[must_use]
    pub fn is_first(&self, turn: &Turn) -> bool {
        match turn.place {
            Place::In(list) | Place::Parked(list) => list == List::Fresh && turn.deficit > 0,
            Place::Out => turn.deficit > 0 || self.turns >= turn.renewal,
        }
    }

    /// How many streams are in.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fresh.len() + self.busy.len()
    }

    /// Whether no stream is in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes out the stream at the head, which is gone.
    pub fn drop_head(&mut self) {
        if self.fresh.pop_front().is_none() && self.busy.pop_front().is_some() {
            self.turns += 1;
        }
    }

    /// Takes out the stream at the head, which cannot send what it has. It comes back with
    /// [`enter`](Self::enter), to where it was.
    pub fn park_head(&mut self, turn: &mut Turn) {
        self.drop_head();
        if let Place::In(list) = turn.place {
            turn.place = Place::Parked(list);
        }
    }

    /// Decides about the stream at the head: `ready` says whether it has something to send, `alone` how much it may
    /// send at once when no other is in.
    pub fn decide(&mut self, name: K, turn: &mut Turn, ready: bool, alone: usize) -> Next {
        if !ready {
            self.drop_head();
            if turn.place == Place::In(List::Busy) {
                // Its quantum was for the turn that is over now.
                self.begin_round(turn);
            }
            turn.place = Place::Out;
            return Next::Later;
        }
        if self.len() == 1 {
            return Next::Send(alone);
        }
        if turn.deficit <= 0 {
            self.drop_head();
            self.grant(turn, BUSY);
            self.push(name, turn, List::Busy);
            return Next::Later;
        }
        let is_fresh = turn.place == Place::In(List::Fresh);
        Next::Send(if is_fresh { FRESH } else { BUSY })
    }

    /// Notes what the stream at the head has sent.
    pub fn sent(&mut self, turn: &mut Turn, bytes: usize) {
        // A debt is bounded, so that a stream that was alone for long is not locked out for long.
        let debt = turn.deficit - to_deficit(bytes + FRAME_COST);
        turn.deficit = debt.max(-to_deficit(2 * BUSY));
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives the next quantum, of which there is one in each round.
    fn grant(&self, turn: &mut Turn, quantum: usize) {
        turn.deficit += to_deficit(quantum);
        self.begin_round(turn);
    }

    /// The next quantum comes when all that are busy now have had their turn.
    fn begin_round(&self, turn: &mut Turn) {
        turn.renewal = self.turns + self.busy.len() as u64 + self.elsewhere;
    }

    fn push(&mut self, name: K, turn: &mut Turn, list: List) {
        turn.place = Place::In(list);
        match list {
            List::Fresh => self.fresh.push_back(name),
            List::Busy => self.busy.push_back(name),
        }
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

    const ALONE: usize = 4 * BUSY;

    /// Streams with so many bytes to send, and who sends what next.
    #[derive(Default)]
    struct World {
        schedule: Schedule<u64>,
        streams: BTreeMap<u64, (Turn, usize)>,
    }

    impl World {
        fn add(&mut self, index: u64, bytes: usize) {
            let (turn, left) = self.streams.entry(index).or_default();
            *left += bytes;
            self.schedule.enter(index, turn);
        }

        fn next(&mut self) -> Option<(u64, usize)> {
            loop {
                let id = self.schedule.head()?;
                let (turn, left) = self.streams.get_mut(&id).unwrap();
                if let Next::Send(most) = self.schedule.decide(id, turn, *left > 0, ALONE) {
                    let sent = most.min(*left);
                    *left -= sent;
                    self.schedule.sent(turn, sent);
                    return Some((id, sent));
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
        assert_eq!(world.next(), Some((2, FRESH)));
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
                world.add(0, FRESH);
            }
            let (index, bytes) = world.next().unwrap();
            sent[usize::try_from(index).unwrap()] += bytes;
        }
        assert!(
            sent[0] <= sent[1] + 2 * BUSY && sent[0] <= sent[2] + 2 * BUSY,
            "{sent:?}"
        );
    }

    #[test]
    fn a_stream_that_sends_little_never_waits_for_a_turn() {
        let mut world = World::default();
        (1..=16).for_each(|index| world.add(index, 10 << 20));
        for _ in 0..40 {
            world.next();
        }
        for _ in 0..500 {
            world.add(0, 100);
            assert_eq!(world.next(), Some((0, 100)));
            // A pause of one turn, of which it is fresh for 160 in each round of 16.
            world.next().unwrap();
        }
    }

    #[test]
    fn who_has_waited_elsewhere_goes_behind_the_busy_and_has_a_whole_turn() {
        let mut world = World::default();
        (1..=3).for_each(|index| world.add(index, 10 << 20));
        for _ in 0..6 {
            world.next();
        }
        let (turn, left) = world.streams.entry(4).or_default();
        *left = 10 << 20;
        world.schedule.enter_busy(4, turn);
        let order = [(); 6].map(|()| world.next().unwrap());
        let place = order.iter().position(|(index, _)| *index == 4).unwrap();
        assert_eq!(order[place], (4, BUSY));
        assert!(place >= 2, "{order:?}");
    }

    #[test]
    fn a_round_has_a_turn_for_each_who_waits_elsewhere() {
        for (elsewhere, is_first) in [(0, true), (100, false)] {
            let mut world = World::default();
            world.schedule.note_elsewhere(elsewhere);
            (1..=3).for_each(|index| world.add(index, 10 << 20));
            world.add(0, FRESH + BUSY);
            while world.streams[&0].1 > 0 {
                world.next();
            }
            for _ in 0..20 {
                world.next();
            }
            assert_eq!(world.schedule.is_first(&world.streams[&0].0), is_first, "{elsewhere}");
        }
    }

    #[test]
    fn who_was_parked_comes_back_to_where_it_was() {
        let mut world = World::default();
        (1..=3).for_each(|index| world.add(index, 10 << 20));
        for _ in 0..6 {
            world.next();
        }
        world.add(4, 1 << 20);
        let parked: Vec<_> = (0..3)
            .map(|_| {
                let index = world.schedule.head().unwrap();
                world.schedule.park_head(&mut world.streams.get_mut(&index).unwrap().0);
                index
            })
            .collect();
        let left = world.schedule.head().unwrap();
        parked.iter().rev().for_each(|index| world.add(*index, 0));
        let order = [(); 3].map(|()| world.next().unwrap().0);
        assert_eq!(order, [4, left, parked[2]], "the fresh one, then the busy ones");
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
            prop_assert!(most - least <= 3 * BUSY, "{sent:?}");
        }

        /// Whoever pauses gets no more than who always has something to send, whatever the size of the pieces.
        #[test]
        fn pauses_gain_nothing(piece in 1_000_usize..200_000, others in 1_u64..6) {
            let mut world = World::default();
            (1..=others).for_each(|index| world.add(index, 1 << 30));
            let mut sent = vec![0; usize::try_from(others).unwrap() + 1];
            for _ in 0..2000 {
                // It has run empty for a turn before.
                if world.streams.get(&0).is_none_or(|(turn, _)| turn.place == Place::Out) {
                    world.add(0, piece);
                }
                let (index, bytes) = world.next().unwrap();
                sent[usize::try_from(index).unwrap()] += bytes;
            }
            let least = sent[1..].iter().min().unwrap();
            prop_assert!(sent[0] <= least + 4 * BUSY, "{sent:?}");
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
            prop_assert!(world.streams.values().all(|(turn, _)| turn.place == Place::Out));
        }
    }
}
