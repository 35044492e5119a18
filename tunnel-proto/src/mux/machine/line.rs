//! Who may queue bytes now.
//!
//! What is queued is read again when its turn comes, which is cheap while it lies in the processor's own cache. So the
//! streams that move bulk queue a bounded amount together, a piece each, and wait in line for it; meanwhile their bytes
//! stay where they are, which is mostly the kernel. Who sends little does not wait here.

use std::{collections::VecDeque, mem};

use super::{Mux, commands::queue_limit};
use crate::mux::{Config, Event, MAX_PAYLOAD, StreamId, schedule::FRESH};

/// How many full queues there is room for before streams wait for each other. With the default of 128 KiB for one, what is
/// queued, encoded and encrypted stays in a cache of 1 MiB.
const QUEUES: usize = 4;

/// The streams whose writers wait until others have sent what they have queued.
#[derive(Debug)]
pub(super) struct Line {
    /// Bytes queued on all streams.
    pub(super) queued: usize,
    /// From so many queued bytes on, streams wait.
    most: usize,
    /// What a stream is called for: as much as it sends in its turn.
    piece: usize,
    /// Who waits, the first to be called first. Some may be gone, or wait no more.
    waiting: VecDeque<StreamId>,
    /// Who was called and has not come yet.
    called: Vec<StreamId>,
}

impl Line {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            queued: 0,
            most: QUEUES.saturating_mul(config.send_queue),
            piece: MAX_PAYLOAD.min(config.send_queue),
            waiting: VecDeque::new(),
            called: Vec::new(),
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.queued = 0;
        self.waiting = VecDeque::new();
        self.called = Vec::new();
    }

    /// Whether those in line wait for nobody but streams that were called and have not come. They need never come.
    pub(super) fn is_stuck(&self) -> bool {
        self.queued == 0 && !self.waiting.is_empty()
    }

    /// Whether a stream may queue without having been called.
    fn is_open(&self) -> bool {
        self.waiting.is_empty() && self.has_room()
    }

    /// Whether there is room for a piece that nobody was called for.
    fn has_room(&self) -> bool {
        self.queued + self.called.len() * self.piece < self.most
    }

    /// Whether the stream was called. It has come now, or never will.
    pub(super) fn take_call(&mut self, id: StreamId) -> bool {
        let place = self.called.iter().position(|called| *called == id);
        place.map(|place| self.called.swap_remove(place)).is_some()
    }

    /// Whether the stream was called, and how often it stands in line.
    pub(super) fn places(&self, id: StreamId) -> (usize, usize) {
        let count = |ids: &mut dyn Iterator<Item = &StreamId>| ids.filter(|other| **other == id).count();
        (count(&mut self.called.iter()), count(&mut self.waiting.iter()))
    }
}

impl Mux {
    /// How many bytes the stream may queue now, as far as its credit, its queue and the others let it; `None` if it has to
    /// wait.
    pub(super) fn find_room(&mut self, id: StreamId) -> Option<usize> {
        let limit = queue_limit(&self.config, &self.account);
        let stream = self.streams.get_mut(&id).filter(|stream| stream.takes_bytes())?;
        let send = &mut stream.send;
        if self.line.take_call(id) {
            send.left = self.line.piece;
        } else if send.queue.is_empty() {
            // The turn is over for which it was called.
            send.left = 0;
        }
        let most = if send.left > 0 {
            send.left
        } else if self.line.is_open() {
            usize::MAX
        } else if self.schedule.is_first(&stream.turn) {
            FRESH.saturating_sub(send.queue.len())
        } else {
            0
        };
        Some(send.room(limit).min(most)).filter(|room| *room > 0)
    }

    /// Notes that the writer waits. If it waits for others alone, it does so in line.
    pub(super) fn block(&mut self, id: StreamId) {
        self.line.take_call(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send.blocked = true;
            self.line_up(id);
        }
    }

    /// Puts a stream in line whose writer waits, if there is room in its own queue for a piece that is worth it.
    pub(super) fn line_up(&mut self, id: StreamId) {
        let limit = queue_limit(&self.config, &self.account);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let has_room = stream.send.queue.len() <= limit / 2 && stream.send.room(limit) > 0;
        if stream.send.blocked && !stream.send.in_line && has_room && stream.takes_bytes() {
            stream.send.in_line = true;
            self.line.waiting.push_back(id);
            if self.line.waiting.len() > 2 * self.streams.len() {
                self.line.waiting.retain(|id| self.streams.contains_key(id));
            }
            self.schedule.note_elsewhere(self.line.waiting.len());
        }
    }

    /// Calls those for whom there is room.
    pub(super) fn call(&mut self) {
        while self.line.has_room()
            && let Some(id) = self.line.waiting.pop_front()
        {
            if self.leave_line(id) {
                self.line.called.push(id);
            }
        }
        self.schedule.note_elsewhere(self.line.waiting.len());
    }

    /// Calls everybody who waits for streams alone that do not come.
    pub(super) fn call_all(&mut self) {
        if self.line.is_stuck() {
            self.line.called.clear();
            for id in mem::take(&mut self.line.waiting) {
                self.leave_line(id);
            }
            self.schedule.note_elsewhere(0);
        }
    }

    /// Tells the writer that it can write; gives whether it still waits for that.
    fn leave_line(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        stream.send.in_line = false;
        let waits = mem::take(&mut stream.send.blocked);
        if waits {
            self.events.push_back(Event::Writable { id });
        }
        waits
    }
}
