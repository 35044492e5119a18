//! What a mux knows of one stream.

use std::time::Instant;

use bytes::Bytes;

use super::{
    credit::{RecvCredit, SendCredit},
    half::{RecvState, SendState},
    queue::Queue,
    schedule::Turn,
    window::Window,
};

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) opening: Opening,
    pub(super) send: Sending,
    pub(super) recv: Receiving,
    /// The OPEN or the OPEN_ANSWER that waits to be sent.
    pub(super) preface: Option<Bytes>,
    pub(super) owed: Owed,
    /// Whether it is on the list of those whose credit goes with that of the connection.
    pub(super) rides: bool,
    pub(super) turn: Turn,
    /// Whether the end of both halves has been counted.
    pub(super) ended: bool,
}

/// How far the opening of a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// This end has asked.
    Asked,
    /// The peer has asked, and waits for an answer. Its head counts as so many bytes.
    Waiting { charged: u64 },
    /// It was accepted.
    Accepted,
    /// It was refused or given up before that.
    Over,
}

/// Frames about a stream that are to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) reset: bool,
    pub(super) stop: bool,
    pub(super) max_data: bool,
    /// Whether the stream is on the list of those that owe something.
    pub(super) listed: bool,
}

/// The sending half.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) state: SendState,
    pub(super) credit: SendCredit,
    pub(super) queue: Queue,
    /// Whether the writer waits for room.
    pub(super) blocked: bool,
    /// Whether it is in line for it.
    pub(super) in_line: bool,
    /// How much room the writer was told of, until it writes.
    pub(super) promised: Option<usize>,
    /// How much it may still queue of what it was called for.
    pub(super) left: usize,
    /// Whether it is on the list of those that wait for memory.
    pub(super) starved: bool,
    /// Whether the application has let go of it.
    pub(super) released: bool,
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) state: RecvState,
    pub(super) credit: RecvCredit,
    pub(super) queue: Queue,
    pub(super) window: Window,
    /// When the reader last took something, or the first bytes came that it has not taken.
    pub(super) taken_at: Instant,
    /// Whether the reader waits for bytes.
    pub(super) blocked: bool,
    /// Whether the application has let go of it.
    pub(super) released: bool,
}

impl Stream {
    /// A stream whose receiver has granted `granted` bytes, wants to grant `window`, and whose sender may send
    /// `allowed`.
    pub(super) fn new(opening: Opening, granted: u64, window: u64, allowed: u64, now: Instant) -> Self {
        Self {
            opening,
            send: Sending {
                state: SendState::Open,
                credit: SendCredit::new(allowed),
                queue: Queue::default(),
                blocked: false,
                in_line: false,
                promised: None,
                left: 0,
                starved: false,
                released: false,
            },
            recv: Receiving {
                state: RecvState::Open,
                credit: RecvCredit::new(granted),
                queue: Queue::default(),
                window: Window::new(window, now),
                taken_at: now,
                blocked: false,
                released: false,
            },
            preface: None,
            owed: Owed::default(),
            rides: false,
            turn: Turn::default(),
            ended: false,
        }
    }

    /// Whether there is something to send for which there is credit. The acceptor's answer goes before everything.
    pub(super) fn is_ready(&self) -> bool {
        self.send.is_ready() && !self.is_waiting()
    }

    /// Whether its writer may queue anything at all.
    pub(super) fn takes_bytes(&self) -> bool {
        self.send.state == SendState::Open && self.opening != Opening::Over && !self.is_waiting()
    }

    /// Whether the peer has asked for it and was not answered.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.opening, Opening::Waiting { .. })
    }

    /// Whether that part of the window, or more, can be announced and is not yet about to be.
    pub(super) fn is_due(&self, part: u64) -> bool {
        let window = self.recv.window.size();
        let is_worth = || self.recv.credit.due(window) >= (window / part).max(1);
        self.recv.state.listens() && !self.owed.max_data && is_worth()
    }

    /// Whether nothing more will be sent or taken.
    pub(super) fn is_over(&self) -> bool {
        self.send.state.is_over() && self.recv.state.is_over()
    }

    /// Whether it can be forgotten.
    pub(super) fn is_spent(&self) -> bool {
        self.ended
            && self.send.released
            && self.recv.released
            && self.preface.is_none()
            && !(self.owed.reset || self.owed.stop || self.owed.max_data)
    }
}

impl Sending {
    /// Whether there is something to send for which there is credit.
    fn is_ready(&self) -> bool {
        match self.state {
            SendState::Finishing if self.queue.is_empty() => true,
            SendState::Open | SendState::Finishing => !self.queue.is_empty() && self.credit.available() > 0,
            _ => false,
        }
    }

    /// How many more bytes can be queued, if so many may wait in total.
    pub(super) fn room(&self, most: usize) -> usize {
        let credit = usize::try_from(self.credit.available()).unwrap_or(usize::MAX);
        most.min(credit).saturating_sub(self.queue.len())
    }
}
