//! Two machines, a model of what they may do and a judge of what they send, driven by operations.

mod checks;
mod ending;
mod events;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tunnel_proto::{
    Answer, CloseCode, Refusal, RefusalKind, StreamCode,
    mux::{Frames, MAX_MESSAGE, Mux, OpenBlocked, ReadError, Side, WriteError},
};

use self::events::Told;
use crate::{
    judge::{Judge, Verdict},
    model::{Stream, head, index},
    ops::{Op, Setup, What},
};

const SIDES: [Side; 2] = [Side::Agent, Side::Server];
/// How many messages the link takes in each direction.
const ROOM: usize = 4;

pub(crate) struct World {
    setup: Setup,
    now: Instant,
    muxes: [Mux; 2],
    flying: [VecDeque<Bytes>; 2],
    judge: Judge,
    told: [Told; 2],
    /// Whether an opener waits for an event.
    opener_waits: [bool; 2],
    is_closing: bool,
    is_draining: bool,
    is_cut: bool,
    streams: Vec<Stream>,
}

/// How timers go off.
#[derive(Clone, Copy, Debug, Default)]
struct Clocks {
    reversed: bool,
    /// Whether all go off, due or not.
    early: bool,
    /// Whose do not, though they are due; who does not hear the budget.
    late: [bool; 2],
    deaf: [bool; 2],
}

impl Clocks {
    fn new(bits: u8) -> Self {
        let bit = |at: u32| bits >> at & 1 == 1;
        Self {
            reversed: bit(0),
            early: bit(1) && bit(2),
            late: [bit(3), bit(4)],
            deaf: [bit(5), bit(6)],
        }
    }
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let now = Instant::now();
        let mux = |side: Side| {
            let config = setup.configs[index(side)].clone();
            Mux::new(side, config, setup.budgets[index(side)].account(), now)
        };
        Self {
            now,
            muxes: SIDES.map(mux),
            flying: Default::default(),
            judge: Judge::default(),
            told: Default::default(),
            opener_waits: [false; 2],
            is_closing: false,
            is_draining: false,
            is_cut: false,
            streams: Vec::new(),
            setup,
        }
    }

    fn mux(&mut self, side: Side) -> &mut Mux {
        &mut self.muxes[index(side)]
    }

    /// Does one thing, if it can be done.
    pub(crate) fn act(&mut self, op: Op) {
        let Op { side, amount, .. } = op;
        match op.what {
            What::Deliver => self.deliver(side, 1 + usize::from(amount % 4)),
            What::Transmit => self.transmit(side, 1 + usize::from(amount % 4)),
            What::Open => {
                self.open(side);
            }
            What::Wait => self.wait(Duration::from_millis(u64::from(amount % 2048)), Clocks::new(op.pick)),
            What::Drain => {
                self.is_draining = true;
                let now = self.now;
                self.mux(side).drain(now, "draining".into());
            }
            What::Close => {
                self.is_closing = true;
                let now = self.now;
                self.mux(side).close(now, CloseCode::SHUTDOWN, "closing".into());
            }
            What::Cut => self.cut(),
            _ => self.act_on_stream(op),
        }
        self.take_events();
        self.check();
    }

    /// Ends the link, with all that is on it.
    fn cut(&mut self) {
        self.is_closing = true;
        self.is_cut = true;
        let now = self.now;
        for side in SIDES {
            self.flying[index(side)].clear();
            self.mux(side).handle_link_closed(now);
            assert!(!self.mux(side).wants_send());
        }
    }

    fn act_on_stream(&mut self, op: Op) {
        let Op { side, amount, .. } = op;
        let known: Vec<_> = self
            .streams
            .iter()
            .enumerate()
            .filter(|(_, stream)| stream.is_known_to(side))
            .collect();
        let Some(&(at, _)) = known.get(usize::from(op.pick) % known.len().max(1)) else {
            return;
        };
        let code = [StreamCode::IDLE, StreamCode::TARGET_RESET][usize::from(amount % 2)];
        match op.what {
            What::Accept => self.answer(at, side, true),
            What::Refuse => self.answer(at, side, false),
            What::Write => self.write(at, side, 1 + usize::from(amount % 6000)),
            What::Ask => self.ask(at, side, 1 + usize::from(amount % 6000)),
            What::Read => self.read(at, side, 1 + usize::from(amount % 6000)),
            What::Finish => self.finish(at, side),
            What::Reset => self.reset(at, side, code),
            What::Stop => self.stop(at, side, code),
            What::ReleaseSend => self.release_send(at, side),
            _ => self.release_recv(at, side),
        }
    }

    fn open(&mut self, side: Side) -> bool {
        let now = self.now;
        match self.mux(side).open(now, &head()) {
            Ok(id) => {
                self.streams.push(Stream::new(id));
                return true;
            }
            Err(OpenBlocked::Limit) => self.opener_waits[index(side)] = true,
            Err(OpenBlocked::Draining) => assert!(self.is_draining),
            Err(_) => assert!(self.muxes[index(side)].closed().is_some()),
        }
        false
    }

    fn answer(&mut self, at: usize, side: Side, accept: bool) {
        let now = self.now;
        let stream = &mut self.streams[at];
        let id = stream.id;
        if id.opener() == side || stream.answer.is_some() || stream.is_given_up || stream.is_cancelled {
            return;
        }
        stream.answer = Some(accept);
        stream.is_void |= !accept;
        let answer = if accept {
            Answer::Accepted
        } else {
            Answer::Refused(Refusal::new(RefusalKind::DnsError, "no"))
        };
        self.mux(side).answer(now, id, &answer);
        if !accept {
            self.streams[at].wake_all(side);
        }
    }

    fn write(&mut self, at: usize, side: Side, len: usize) {
        let (now, is_short) = (self.now, self.setup.is_short);
        let mut data = self.streams[at].next(side, len);
        let id = self.streams[at].id;
        if self.streams[at].written_by(side).writer_released {
            return;
        }
        let result = self.mux(side).write(now, id, &mut data);
        if result == Err(WriteError::Closed) && self.mux(side).closed().is_some() {
            return;
        }
        assert_eq!(data.len(), len - result.unwrap_or(0));
        self.streams[at].note_write(side, len, result, is_short);
    }

    /// Asks for room, and then writes what there is some for, or does not.
    fn ask(&mut self, at: usize, side: Side, len: usize) {
        let id = self.streams[at].id;
        if self.streams[at].written_by(side).writer_released {
            return;
        }
        match self.mux(side).room(id) {
            Ok(room) => {
                assert!(room > 0);
                self.streams[at].written_by(side).writer_waits = false;
                if len.is_multiple_of(2) {
                    let before = self.streams[at].written_by(side).written;
                    self.write(at, side, len.min(room));
                    let written = self.streams[at].written_by(side).written - before;
                    assert!(
                        written == len.min(room) as u64 || self.setup.is_short,
                        "{written} of {room}"
                    );
                }
            }
            Err(WriteError::Closed) if self.mux(side).closed().is_some() => {}
            Err(error) => self.streams[at].note_write(side, 0, Err(error), self.setup.is_short),
        }
    }

    fn read(&mut self, at: usize, side: Side, max: usize) {
        let (now, is_short) = (self.now, self.setup.is_short);
        let id = self.streams[at].id;
        if self.streams[at].read_by(side).reader_released {
            return;
        }
        let result = self.mux(side).read(now, id, max);
        if result == Err(ReadError::Closed) && self.mux(side).closed().is_some() {
            return;
        }
        self.streams[at].note_read(side, max, result, is_short);
    }

    fn finish(&mut self, at: usize, side: Side) {
        let now = self.now;
        let id = self.streams[at].id;
        if self.streams[at].written_by(side).writer_released {
            return;
        }
        let result = self.mux(side).finish(now, id);
        let half = self.streams[at].written_by(side);
        half.is_finished |= result.is_ok();
        half.writer_done |= half.is_finished;
        if let Err(error) = result
            && self.mux(side).closed().is_none()
        {
            self.streams[at].note_write(side, 0, Err(error), self.setup.is_short);
        }
    }

    fn reset(&mut self, at: usize, side: Side, code: StreamCode) {
        let now = self.now;
        let id = self.streams[at].id;
        let stream = &mut self.streams[at];
        if stream.written_by(side).writer_released {
            return;
        }
        // Behind the clean end, once it is sent, it comes too late.
        stream.is_void |= !stream.is_answered_for(side);
        stream.is_given_up |= id.opener() != side && stream.answer.is_none();
        let half = stream.written_by(side);
        half.reset.get_or_insert(code);
        half.writer_waits = false;
        self.mux(side).reset(now, id, code);
    }

    fn stop(&mut self, at: usize, side: Side, code: StreamCode) {
        let now = self.now;
        let id = self.streams[at].id;
        let half = self.streams[at].read_by(side);
        if half.reader_released {
            return;
        }
        half.stopped.get_or_insert(code);
        half.reader_waits = false;
        self.mux(side).stop(now, id, code);
    }

    fn release_send(&mut self, at: usize, side: Side) {
        let now = self.now;
        let stream = &mut self.streams[at];
        let id = stream.id;
        let is_answered = stream.is_answered_for(side);
        let half = stream.written_by(side);
        if !half.is_finished || !is_answered {
            half.reset.get_or_insert(StreamCode::CANCELLED);
        }
        let is_finished = half.is_finished;
        half.writer_released = true;
        half.writer_done = true;
        stream.is_void |= !is_answered && (!is_finished || id.opener() != side);
        stream.is_given_up |= id.opener() != side && !is_answered;
        self.mux(side).release_send(now, id);
    }

    fn release_recv(&mut self, at: usize, side: Side) {
        let now = self.now;
        let half = self.streams[at].read_by(side);
        half.stopped.get_or_insert(StreamCode::CANCELLED);
        half.reader_released = true;
        half.reader_done = true;
        let id = self.streams[at].id;
        self.mux(side).release_recv(now, id);
    }

    /// Puts messages on the link.
    fn transmit(&mut self, side: Side, count: usize) {
        let now = self.now;
        for _ in 0..count {
            if self.flying[index(side)].len() == ROOM {
                return;
            }
            let wants = self.mux(side).wants_send();
            let Some(message) = self.mux(side).poll_message(now) else {
                assert!(!self.mux(side).wants_send());
                return;
            };
            assert!(wants && (1..=MAX_MESSAGE).contains(&message.len()), "{message:?}");
            let message = message.into_bytes();
            for frame in Frames::new(message.clone()).map(Result::unwrap) {
                assert_eq!(self.judge.sends(side, &frame), Verdict::Right, "{frame:?}");
            }
            self.flying[index(side)].push_back(message);
        }
    }

    /// Lets messages arrive that a side has sent.
    fn deliver(&mut self, side: Side, count: usize) {
        let now = self.now;
        for _ in 0..count {
            let Some(message) = self.flying[index(side)].pop_front() else {
                return;
            };
            for frame in Frames::new(message.clone()).map(Result::unwrap) {
                self.judge.arrives(side.peer(), &frame);
            }
            self.mux(side.peer()).handle_message(now, message);
        }
    }

    /// Lets time pass; timers and the calls of the budgets are heard only then.
    fn wait(&mut self, time: Duration, clocks: Clocks) {
        self.now += time;
        let now = self.now;
        let sides = if clocks.reversed {
            [Side::Server, Side::Agent]
        } else {
            SIDES
        };
        for side in sides {
            let is_due = self.mux(side).poll_timeout().is_some_and(|at| at <= now);
            if clocks.early || is_due && !clocks.late[index(side)] {
                self.mux(side).handle_timeout(now);
            }
            if !clocks.deaf[index(side)] {
                self.mux(side).reclaim(now);
            }
        }
    }
}

/// One run: the first bytes say how it is set up, each four others what happens.
pub(crate) fn run(setup: [u8; 4], ops: impl IntoIterator<Item = [u8; 4]>) {
    let mut world = World::new(Setup::new(setup));
    for op in ops {
        world.act(Op::new(op));
    }
    world.finish_all();
}
