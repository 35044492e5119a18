//! One direction of a pipe: what has been written, and when which byte of it arrives. It knows no waker and no timer.

use std::{collections::VecDeque, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::time::Instant;

use super::profile::Profile;

/// The resolution of tokio's timers.
const TICK: Duration = Duration::from_millis(1);
/// How much is kept in one piece at the most.
const PIECE: usize = 64 * 1024;

/// What a read or a write comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// So many bytes were moved.
    Moved(usize),
    /// The clean end.
    End,
    /// The peer does not know the pipe any more, or never will again.
    Reset,
    /// Not before this time, or not before something happens.
    Wait(Option<Instant>),
}

/// One direction of a pipe. Its own time stands still while it is [frozen](Self::freeze).
#[derive(Debug)]
pub(super) struct Line {
    profile: Profile,
    random: fastrand::Rng,
    clock: Clock,
    /// Written, and waiting for a flush.
    held: BytesMut,
    flushed_at: Option<Instant>,
    /// On the wire or arrived.
    pieces: VecDeque<Piece>,
    /// Bytes written and not read.
    unread: usize,
    run: Run,
    /// The writer waits for the wire, which therefore does not fall idle between two ticks.
    wire_is_awaited: bool,
    /// When the last byte arrives.
    last_arrival: Option<Instant>,
    /// When the clean end arrives.
    end: Option<Instant>,
    /// When the news arrives that the pipe is broken.
    reset: Option<Instant>,
    reader_is_gone: bool,
    /// Bytes that have been put on the wire.
    sent: u64,
}

/// Bytes that follow each other on the wire without a gap.
#[derive(Debug)]
struct Run {
    start: Instant,
    bytes: u64,
}

/// Bytes that travel together.
#[derive(Debug)]
struct Piece {
    data: BytesMut,
    /// When the first byte of its run arrives, or would, had it travelled with this piece.
    start: Instant,
    /// Bytes of the run ahead of it.
    before: u64,
}

impl Line {
    pub(super) fn new(profile: Profile, number: u64, now: Instant) -> Self {
        Self {
            random: fastrand::Rng::with_seed(profile.seed.wrapping_add(number)),
            profile,
            clock: Clock::default(),
            held: BytesMut::new(),
            flushed_at: None,
            pieces: VecDeque::new(),
            unread: 0,
            run: Run { start: now, bytes: 0 },
            wire_is_awaited: false,
            last_arrival: None,
            end: None,
            reset: None,
            reader_is_gone: false,
            sent: 0,
        }
    }

    /// Takes bytes from the writer, if there is room.
    pub(super) fn write(&mut self, now: Instant, data: &[u8]) -> Outcome {
        let here = self.clock.departure(now);
        let room = self.room(here);
        let count = data
            .len()
            .min(room)
            .min(self.profile.max_write.unwrap_or(usize::MAX).max(1));
        if count == 0 && !data.is_empty() {
            return self.wait_for_room(here);
        }
        self.unread += count;
        if self.profile.flush_delay.is_some() {
            self.held.extend_from_slice(&data[..count]);
            if self.held.len() >= self.profile.buffer {
                self.release(here);
            }
        } else {
            self.transmit(here, &data[..count]);
        }
        Outcome::Moved(count)
    }

    fn room(&self, here: Instant) -> usize {
        let waiting = self.held.len().saturating_add(self.backlog(here));
        let for_the_wire = self.profile.buffer.max(1).saturating_sub(waiting);
        for_the_wire.min(self.profile.capacity().saturating_sub(self.unread))
    }

    /// Bytes that have not left yet.
    fn backlog(&self, here: Instant) -> usize {
        let left = self.profile.bytes_in(here.saturating_duration_since(self.run.start));
        usize::try_from(self.run.bytes.saturating_sub(left)).unwrap_or(usize::MAX)
    }

    fn wait_for_room(&mut self, here: Instant) -> Outcome {
        if self.unread >= self.profile.capacity() || self.backlog(here) == 0 {
            return Outcome::Wait(None);
        }
        self.wire_is_awaited = true;
        // Not for the first byte of room, or a slow wire would have its writer run for each byte.
        let low = (self.profile.buffer - self.profile.buffer.div_ceil(4)).saturating_sub(self.held.len());
        let leaving = self.run.bytes.saturating_sub(low as u64);
        self.wait_until(self.run.start + self.profile.time_for(leaving))
    }

    /// Puts bytes on the wire behind those that are there.
    fn transmit(&mut self, here: Instant, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let slack = if self.wire_is_awaited { TICK } else { Duration::ZERO };
        self.wire_is_awaited = false;
        if self.run.start + self.profile.time_for(self.run.bytes) + slack < here || self.profile.bandwidth.is_none() {
            self.run = Run { start: here, bytes: 0 };
        }
        let before = self.run.bytes;
        self.run.bytes += data.len() as u64;
        self.sent += data.len() as u64;

        let jitter = Duration::from_nanos(match u64::try_from(self.profile.jitter.as_nanos()) {
            Ok(0) | Err(_) => 0,
            Ok(most) => self.random.u64(0..=most),
        });
        let mut start = self.run.start + self.profile.latency + jitter;
        let first = start + self.profile.time_for(before + 1);
        if let Some(last) = self.last_arrival {
            start += last.saturating_duration_since(first);
        }
        self.last_arrival = Some(start + self.profile.time_for(self.run.bytes));
        if self.reader_is_gone {
            self.unread = 0;
            return;
        }
        if let Some(last) = self.pieces.back_mut()
            && last.data.len() + data.len() <= PIECE
            && last.start == start
            && (self.profile.bandwidth.is_none() || last.before + last.data.len() as u64 == before)
        {
            last.data.extend_from_slice(data);
            return;
        }
        let data = BytesMut::from(data);
        self.pieces.push_back(Piece { data, start, before });
    }

    fn release(&mut self, here: Instant) {
        let held = std::mem::take(&mut self.held);
        self.flushed_at = None;
        self.transmit(here, &held);
    }

    /// Puts on the wire what waits for a flush; says when if that takes time.
    pub(super) fn flush(&mut self, now: Instant) -> Option<Instant> {
        let delay = self.profile.flush_delay.filter(|_| !self.held.is_empty())?;
        let at = *self.flushed_at.get_or_insert(now + delay);
        if now < at {
            return Some(at);
        }
        self.release(self.clock.departure(now));
        None
    }

    /// Gives the reader what has arrived, up to `into.len()` bytes.
    pub(super) fn read(&mut self, now: Instant, into: &mut [u8]) -> Outcome {
        let here = self.clock.here(now);
        let most = into.len().min(self.profile.max_read.unwrap_or(usize::MAX).max(1));
        // What a reset outran is lost.
        let seen = self.reset.map_or(here, |reset| reset.min(here));
        let mut count = 0;
        while let Some(piece) = self.pieces.front_mut()
            && count < most
        {
            let arrived = match seen.checked_duration_since(piece.start) {
                Some(time) => self.profile.bytes_in(time).saturating_sub(piece.before),
                None => 0,
            };
            let arrived = usize::try_from(arrived).unwrap_or(usize::MAX);
            let part = arrived.min(piece.data.len()).min(most - count);
            if part == 0 {
                break;
            }
            into[count..count + part].copy_from_slice(&piece.data[..part]);
            piece.data.advance(part);
            piece.before += part as u64;
            count += part;
            if piece.data.is_empty() {
                self.pieces.pop_front();
            }
        }
        self.unread -= count;
        if count > 0 || into.is_empty() {
            return Outcome::Moved(count);
        }
        if self.is_reset(now) {
            return Outcome::Reset;
        }
        match (self.next_arrival(), self.end) {
            (Some(next), _) => self.wait_until(next.min(self.reset.unwrap_or(next))),
            (None, Some(end)) if end <= here => Outcome::End,
            (None, end) => match [end, self.reset].into_iter().flatten().min() {
                Some(next) => self.wait_until(next),
                None => Outcome::Wait(None),
            },
        }
    }

    fn wait_until(&self, at: Instant) -> Outcome {
        Outcome::Wait(self.clock.there(at))
    }

    fn next_arrival(&self) -> Option<Instant> {
        let next = self.pieces.front()?;
        Some(next.start + self.profile.time_for(next.before + 1))
    }

    /// The writer is done: the clean end is behind everything written.
    pub(super) fn finish(&mut self, now: Instant) {
        let here = self.clock.departure(now);
        self.release(here);
        if self.end.is_none() {
            let after = self.last_arrival.unwrap_or(here);
            self.end = Some(after.max(here + self.profile.latency));
        }
    }

    /// Whether the reader knows that the pipe is broken.
    pub(super) fn is_reset(&self, now: Instant) -> bool {
        self.reset.is_some_and(|reset| reset <= self.clock.here(now))
    }

    /// Tells the reader that the pipe is broken: at once.
    pub(super) fn cut(&mut self, now: Instant) {
        self.reset = Some(self.clock.here(now));
        self.end = None;
    }

    /// Tells the reader that the pipe is broken: when that news has travelled, which starts after `delay`.
    pub(super) fn reset_after(&mut self, now: Instant, delay: Duration) {
        let at = self.clock.departure(now) + delay + self.profile.latency;
        self.reset = Some(self.reset.map_or(at, |reset| reset.min(at)));
    }

    /// The writer is gone without having flushed.
    pub(super) fn abandon(&mut self, now: Instant) {
        self.unread -= self.held.len();
        self.held.clear();
        self.finish(now);
    }

    /// The reader is gone. If bytes arrive that nobody takes, says after how long.
    pub(super) fn close_reader(&mut self, now: Instant) -> Option<Duration> {
        let next = self.next_arrival();
        self.reader_is_gone = true;
        self.pieces.clear();
        self.unread = self.held.len();
        next.map(|next| next.saturating_duration_since(self.clock.here(now)))
    }

    /// Bytes have just been written though the reader is gone: says after how long they arrive.
    pub(super) fn arrives_unwanted(&self, now: Instant) -> Option<Duration> {
        let last = self.last_arrival.filter(|_| self.reader_is_gone)?;
        Some(last.saturating_duration_since(self.clock.here(now)))
    }

    /// Bytes that have been put on the wire.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Stops its time.
    pub(super) fn freeze(&mut self, now: Instant) {
        self.clock.frozen_at.get_or_insert(now);
    }

    /// Lets its time go on where it stopped.
    pub(super) fn thaw(&mut self, now: Instant) {
        if let Some(since) = self.clock.frozen_at.take() {
            self.clock.lag += now - since;
        }
    }

    /// Waits on its own time.
    pub(super) fn arrival(&self, now: Instant) -> Instant {
        self.clock.departure(now) + self.profile.latency
    }

    /// What is missing until that moment of its own time: nothing, so much, or it stands still.
    pub(super) fn until(&self, now: Instant, at: Instant) -> Outcome {
        if at <= self.clock.here(now) {
            Outcome::Moved(0)
        } else {
            self.wait_until(at)
        }
    }
}

/// Time that can stand still.
#[derive(Debug, Default)]
struct Clock {
    lag: Duration,
    frozen_at: Option<Instant>,
}

impl Clock {
    /// The line's time at this moment.
    fn here(&self, now: Instant) -> Instant {
        let moving = self.frozen_at.unwrap_or(now);
        moving.checked_sub(self.lag).unwrap_or(moving)
    }

    /// When something leaves that is sent at this moment: while time stands still, right after it goes on.
    fn departure(&self, now: Instant) -> Instant {
        self.here(now) + Duration::from_nanos(self.frozen_at.is_some().into())
    }

    /// The moment at which it is this time on the line, if its time goes on.
    fn there(&self, here: Instant) -> Option<Instant> {
        self.frozen_at.is_none().then(|| here + self.lag)
    }
}
