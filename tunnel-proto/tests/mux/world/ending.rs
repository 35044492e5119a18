//! How a run ends: everything that can go on does, and then nothing is held.

use std::time::Duration;

use tunnel_proto::mux::Side;

use super::{Clocks, ROOM, SIDES, World};
use crate::model::index;

/// The window of a connection begins with that much, or all of it, and never falls below.
const CONNECTION_START: u64 = 1024 * 1024;

impl World {
    /// Has every stream come to its end, by applications that do nothing before they are woken; then lets go of all.
    pub(crate) fn finish_all(&mut self) {
        let mut quiet = 0;
        // Long enough for a reader to be away for too long, and for the link to be stuck.
        while quiet < 4 {
            let before = self.progress();
            for at in 0..self.streams.len() {
                for side in SIDES {
                    self.go_on(at, side);
                }
            }
            for _ in 0..ROOM {
                for side in SIDES {
                    self.transmit(side, ROOM);
                    self.deliver(side, ROOM);
                    self.take_events();
                }
            }
            self.wait(Duration::from_millis(400), Clocks::default());
            self.take_events();
            self.check();
            quiet = if self.progress() == before { quiet + 1 } else { 0 };
        }
        let is_over = self.muxes.iter().any(|mux| mux.closed().is_some());
        for stream in &mut self.streams {
            for side in SIDES {
                if is_over || !stream.is_known_to(side) {
                    continue;
                }
                let is_done = stream.written_by(side).writer_done && stream.read_by(side).reader_done;
                assert!(is_done, "{side} is stuck: {stream:?}");
            }
        }
        self.let_go();
    }

    /// What an application does with its end of a stream, until it has to wait.
    fn go_on(&mut self, at: usize, side: Side) {
        if !self.streams[at].is_known_to(side) || self.muxes[index(side)].closed().is_some() {
            return;
        }
        self.answer(at, side, true);
        for _ in 0..3 {
            let half = *self.streams[at].written_by(side);
            if half.writer_done || half.writer_waits {
                break;
            }
            if half.reset.is_some() || half.written >= 5000 {
                self.finish(at, side);
            } else {
                self.write(at, side, 4000);
            }
            self.take_events();
        }
        for _ in 0..8 {
            let half = *self.streams[at].read_by(side);
            if half.reader_done || half.reader_waits {
                break;
            }
            self.read(at, side, 100_000);
        }
    }

    fn progress(&self) -> (u64, usize) {
        let halves = || self.streams.iter().flat_map(|stream| &stream.halves);
        let bytes = halves().map(|half| half.written + half.read).sum();
        let done = halves()
            .map(|half| usize::from(half.writer_done) + usize::from(half.reader_done))
            .sum();
        (bytes, done)
    }

    fn let_go(&mut self) {
        for at in 0..self.streams.len() {
            for side in SIDES {
                if self.streams[at].is_known_to(side) && !self.streams[at].is_released_by(side) {
                    self.release_send(at, side);
                    self.release_recv(at, side);
                }
            }
        }
        for _ in 0..8 {
            for side in SIDES {
                self.transmit(side, ROOM);
                self.deliver(side, ROOM);
                self.take_events();
            }
        }
        self.check();
        for side in SIDES {
            let stats = self.muxes[index(side)].stats();
            assert_eq!(
                (stats.streams_open, stats.buffered, stats.credit_outstanding),
                (0, 0, 0)
            );
            assert_eq!(self.setup.budgets[index(side)].used(), 0);
            let (_, whole) = self.setup.windows[index(side)];
            if self.is_closing || self.is_draining {
                assert!(self.muxes[index(side)].closed().is_some(), "it is not closed");
            } else {
                // No byte and no credit was lost on the way, but for what is not worth a frame yet.
                assert!(self.judge.is_quiet(), "{:?}", self.judge);
                let least = whole.min(CONNECTION_START);
                assert!(self.judge.credit(side) > least - least / 4, "{:?}", self.judge);
                // Every place has come back, and whoever waited for one knows.
                assert!(!self.opener_waits[index(side)], "nobody wakes the opener");
                assert!(self.open(side), "no stream can be opened");
            }
        }
    }
}
