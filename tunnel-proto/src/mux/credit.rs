//! Credit: how much one end may send, by absolute offset (`docs/wire.md` §9.6).

/// What a sender has been granted and what it has used of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SendCredit {
    limit: u64,
    used: u64,
}

impl SendCredit {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, used: 0 }
    }

    pub(super) fn available(&self) -> u64 {
        self.limit - self.used
    }

    /// Uses up some of what is available.
    pub(super) fn consume(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.available(), "{bytes} of {self:?}");
        self.used += bytes;
    }

    /// Takes a new limit, and says by how much it is higher. A limit never falls.
    pub(super) fn raise(&mut self, limit: u64) -> u64 {
        let gain = limit.saturating_sub(self.limit);
        self.limit += gain;
        gain
    }
}

/// What a receiver has granted, what has come of it, and what has been given back.
///
/// At all times `returned ≤ received ≤ limit ≤ returned + the largest window so far`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecvCredit {
    limit: u64,
    received: u64,
    returned: u64,
}

/// The peer sent more than it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overrun;

impl RecvCredit {
    /// A receiver that has granted `window` from the start.
    pub(super) fn new(window: u64) -> Self {
        Self {
            limit: window,
            received: 0,
            returned: 0,
        }
    }

    /// What the peer may still send.
    pub(super) fn outstanding(&self) -> u64 {
        self.limit - self.received
    }

    /// Bytes that have come and were not given back.
    pub(super) fn held(&self) -> u64 {
        self.received - self.returned
    }

    /// Bytes given back since the start.
    pub(super) fn returned(&self) -> u64 {
        self.returned
    }

    /// Counts bytes that have come.
    pub(super) fn receive(&mut self, bytes: u64) -> Result<(), Overrun> {
        if bytes > self.outstanding() {
            return Err(Overrun);
        }
        self.received += bytes;
        self.assert_invariants();
        Ok(())
    }

    /// Counts bytes that were taken, or discarded.
    pub(super) fn give_back(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.held(), "{bytes} of {self:?}");
        self.returned += bytes;
        self.assert_invariants();
    }

    /// By how much the limit would rise if it were announced now, with this window.
    pub(super) fn due(&self, window: u64) -> u64 {
        (self.returned + window).saturating_sub(self.limit)
    }

    /// Grants what is due; gives the new limit.
    pub(super) fn announce(&mut self, window: u64) -> u64 {
        self.limit += self.due(window);
        self.assert_invariants();
        self.limit
    }

    fn assert_invariants(&self) {
        debug_assert!(self.returned <= self.received, "{self:?}");
        debug_assert!(self.received <= self.limit, "{self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever two ends do, and however late the announcements arrive: the sender is never ahead of what was
        /// granted, what is in memory is within the largest window, and once all is read and announced the sender has
        /// a whole window again.
        #[test]
        fn nothing_is_lost_and_nothing_is_conjured_up(
            steps in prop::collection::vec((0u8..4, 1u64..5000, 1u64..5000), 1..200),
        ) {
            let mut window = 1000;
            let mut largest = window;
            let (mut sender, mut receiver) = (SendCredit::new(window), RecvCredit::new(window));
            let (mut flying, mut announced) = (0, Vec::new());
            for (step, bytes, new_window) in steps {
                match step {
                    0 => {
                        let bytes = bytes.min(sender.available());
                        sender.consume(bytes);
                        flying += bytes;
                    }
                    1 => {
                        let bytes = bytes.min(flying);
                        flying -= bytes;
                        prop_assert_eq!(receiver.receive(bytes), Ok(()));
                    }
                    2 => receiver.give_back(bytes.min(receiver.held())),
                    _ => {
                        window = new_window;
                        largest = largest.max(window);
                        announced.push(receiver.announce(window));
                        if bytes % 2 == 0 {
                            announced.drain(..).for_each(|limit| { sender.raise(limit); });
                        }
                    }
                }
                prop_assert!(receiver.held() + receiver.outstanding() <= largest);
                prop_assert!(sender.available() + flying <= receiver.outstanding());
            }
            receiver.receive(flying).unwrap();
            receiver.give_back(receiver.held());
            announced.push(receiver.announce(largest));
            announced.drain(..).for_each(|limit| { sender.raise(limit); });
            prop_assert_eq!(sender.available(), largest);
            prop_assert_eq!(receiver.receive(largest + 1), Err(Overrun));
        }
    }
}
