//! What the machines say, and whether they may say it: once, and only to those who do not know it yet.

use std::mem;

use tunnel_proto::{
    Answer, StreamCode,
    mux::{Event, ReadError, Side, StreamId},
};

use super::{SIDES, World};
use crate::model::{Stream, head, index};

/// What one machine has said that is said once.
#[derive(Debug, Default)]
pub(super) struct Told {
    established: bool,
    draining: bool,
    closed: bool,
    /// How many streams of the peer have been opened, at least.
    opened: u64,
}

impl World {
    pub(super) fn take_events(&mut self) {
        for side in SIDES {
            while let Some(event) = self.mux(side).poll_event() {
                self.note(side, event);
            }
        }
    }

    fn stream(&mut self, id: StreamId) -> &mut Stream {
        self.streams.iter_mut().find(|stream| stream.id == id).unwrap()
    }

    fn note(&mut self, side: Side, event: Event) {
        let told = &mut self.told[index(side)];
        assert!(!told.closed, "{event:?} behind the last one");
        match event {
            Event::Established => {
                assert!(!mem::replace(&mut told.established, true));
                self.opener_waits[index(side)] = false;
            }
            Event::Available => assert!(mem::take(&mut self.opener_waits[index(side)]), "nobody waits"),
            Event::Draining => {
                assert!(!mem::replace(&mut told.draining, true));
                assert!(self.is_draining);
            }
            Event::Closed => {
                told.closed = true;
                assert!(self.is_closing || self.is_draining);
                self.opener_waits[index(side)] = false;
            }
            Event::Opened { id, head: came } => {
                assert_eq!(*came, head());
                // Some may have been refused without a word to the application.
                assert!(id.index() >= told.opened && id.opener() != side);
                told.opened = id.index() + 1;
                self.stream(id).has_arrived = true;
            }
            Event::Answered { id, answer } => {
                assert_eq!(id.opener(), side);
                let stream = self.stream(id);
                let is_accepted = answer == Answer::Accepted;
                assert!(stream.answer == Some(is_accepted) || !stream.has_arrived && !is_accepted);
                assert!(!mem::replace(&mut stream.is_answered, true));
                if !is_accepted {
                    stream.is_void = true;
                    stream.wake_all(side);
                }
            }
            Event::Unanswered { id, .. } => {
                assert_eq!(id.opener(), side);
                let stream = self.stream(id);
                let is_stopped = stream.halves.iter().all(|half| half.stopped.is_some());
                assert!((stream.is_void || is_stopped) && !stream.is_answered);
                assert!(!mem::replace(&mut stream.is_unanswered, true));
                stream.is_void = true;
                stream.wake_all(side);
            }
            Event::Cancelled { id } => {
                assert_eq!(id.opener(), side.peer());
                let stream = self.stream(id);
                let half = *stream.written_by(side.peer());
                let is_stopped = stream.written_by(side).stopped.is_some();
                assert!(half.reset.is_some() || is_stopped && (half.is_finished || half.stopped.is_some()));
                assert!(!mem::replace(&mut stream.is_cancelled, true));
                stream.is_void = true;
                stream.wake_all(side);
            }
            Event::Readable { id } => {
                let waited = mem::take(&mut self.stream(id).read_by(side).reader_waits);
                assert!(waited, "no reader waits");
            }
            Event::Writable { id } => {
                let waited = mem::take(&mut self.stream(id).written_by(side).writer_waits);
                assert!(waited, "no writer waits");
            }
            Event::RecvEnded { id } => {
                let how = self.mux(side).recv_ended(id);
                let is_short = self.setup.is_short;
                let half = self.stream(id).read_by(side);
                half.reader_waits = false;
                assert!(!mem::replace(&mut half.reader_told, true), "told twice");
                if is_short && how == Some(ReadError::Stopped(StreamCode::MEMORY)) {
                    half.stopped = Some(StreamCode::MEMORY);
                }
            }
            Event::Stopped { id } => {
                let half = self.stream(id).written_by(side);
                half.writer_waits = false;
                assert!(!mem::replace(&mut half.writer_told, true), "told twice");
            }
            event => panic!("{event:?}"),
        }
    }
}
