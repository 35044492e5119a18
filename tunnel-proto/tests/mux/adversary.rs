//! One machine, an application that does anything, and a peer that sends anything.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tunnel_proto::{
    Answer, CloseCode, Refusal, RefusalKind, StreamCode,
    mux::{CloseReason, Event, Frame, Frames, Hello, MAX_MESSAGE, Side, StreamId},
};

use crate::{
    judge::{Judge, Verdict},
    model::head,
    ops::Setup,
    peer::{Peer, data, fin, max_data, max_stream_data, max_streams, reset, stop},
};

/// The machine is the server's.
const US: Side = Side::Server;
const THEM: Side = Side::Agent;
/// The most that a frame takes from the patience of the machine, and all that it has; how many PINGs may wait
/// (`docs/wire.md` §9.9).
const DEAREST: usize = 8;
const PATIENCE: usize = 4096;
const MAX_PINGS: u64 = 16;

/// What the machine does about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Expected {
    /// It goes on.
    Goes,
    /// It may have had enough.
    May,
    /// It closes with PROTOCOL, or did before with FLOOD.
    Closes,
}

pub(crate) struct Attack {
    peer: Peer,
    judge: Judge,
    /// Frames that go out together.
    message: BytesMut,
    /// Whether the link takes nothing, and so the peer hears nothing.
    is_stuck: bool,
    /// How many streams each end has opened, and those of which the application knows.
    opened: u64,
    arrived: u64,
    known: Vec<StreamId>,
    /// How many frames went in, how much the application did, how many frames and events came out.
    frames: usize,
    commands: usize,
    came_out: usize,
    is_closed: bool,
    /// Whether payload came for a half of which the peer knew that it was stopped: it uses up what all stopped halves
    /// have together.
    is_overdrawn: bool,
}

impl Attack {
    pub(crate) fn new(setup: Setup) -> Self {
        let (config, budget) = (setup.configs[0].clone(), setup.budgets[0].clone());
        let mut attack = Self {
            peer: Peer::strange(config, budget),
            judge: Judge::default(),
            message: BytesMut::new(),
            is_stuck: false,
            opened: 0,
            arrived: 0,
            known: Vec::new(),
            frames: 0,
            commands: 0,
            came_out: 0,
            is_closed: false,
            is_overdrawn: false,
        };
        attack.hear();
        attack
    }

    /// Does one thing: the application for half of all, else the peer.
    pub(crate) fn act(&mut self, [what, pick, high, low]: [u8; 4]) {
        if what & 128 != 0 {
            self.commands += 1;
            self.command(what & 31, pick, u16::from_be_bytes([high, low]));
        } else {
            self.frame(what & 31, [pick, high, low]);
            // An empty message is an error.
            let is_empty = self.message.is_empty() && !pick.is_multiple_of(32);
            if !is_empty && what & 96 != 96 || self.message.len() > MAX_MESSAGE / 2 {
                let message = self.message.split().freeze();
                self.send(message);
            }
        }
        self.check();
    }

    /// Puts a frame of the peer into its next message.
    fn frame(&mut self, what: u8, [pick, high, low]: [u8; 3]) {
        let amount = u16::from_be_bytes([high, low]);
        let id = self.pick(pick);
        let size = u64::from(amount);
        let frame = match what {
            0..=4 => {
                let id = StreamId::new(THEM, self.arrived + u64::from(amount == 1));
                Frame::Open { id, head: head() }
            }
            5..=8 => Frame::Answer {
                id,
                answer: answer(amount),
            },
            9..=14 => data(id, usize::from(amount % 2000)),
            15 | 16 => fin(id),
            17 | 18 => reset(id),
            19 | 20 => stop(id),
            21..=23 => max_stream_data(id, size),
            24 => max_data(size << 4),
            25 => max_streams(size),
            26 => Frame::Ping([pick; 8]),
            27 => Frame::Pong([pick; 8]),
            28 => Frame::Hello(Hello::new(size, size, size << 4)),
            29 if amount.is_multiple_of(4) => Frame::Drain(Default::default()),
            30 if amount.is_multiple_of(8) => {
                let (code, text) = (CloseCode::DONE, "".into());
                Frame::Close { code, text }
            }
            31 if pick.is_multiple_of(8) => return self.message.extend_from_slice(&[pick, high, low]),
            // Of a kind that nobody knows.
            _ => return self.message.extend_from_slice(&[0x3f, 0]),
        };
        // Mostly the peer keeps the rules, or the connection would not live for long.
        let breaks = |verdict| matches!(verdict, Verdict::Wrong(_) | Verdict::Doubtful(_));
        if pick.is_multiple_of(32) || !breaks(self.judge.clone().sends(THEM, &frame)) {
            frame.encode(&mut self.message);
        }
    }

    /// A stream there is, or, rarely, none.
    fn pick(&self, pick: u8) -> StreamId {
        let count = self.opened + self.arrived + u64::from(pick > 250);
        let at = u64::from(pick) % count.max(1);
        match at.checked_sub(self.opened) {
            None => StreamId::new(US, at),
            Some(index) => StreamId::new(THEM, index),
        }
    }

    fn command(&mut self, what: u8, pick: u8, amount: u16) {
        let now = self.peer.now;
        let mux = &mut self.peer.mux;
        let code = StreamCode::IDLE;
        match what {
            // What the peer has not heard of it cannot speak of by chance.
            0..=3 if !self.is_stuck => {
                if let Ok(id) = mux.open(now, &head()) {
                    self.opened += 1;
                    self.known.push(id);
                }
                return;
            }
            4 => return self.is_stuck = amount.is_multiple_of(2),
            5 => {
                self.peer.later(Duration::from_millis(u64::from(amount % 4096)));
                return self.peer.mux.reclaim(self.peer.now);
            }
            6 if amount.is_multiple_of(4) => return mux.drain(now, "draining".into()),
            7 if amount.is_multiple_of(16) => return mux.close(now, CloseCode::SHUTDOWN, "closing".into()),
            _ => {}
        }
        let Some(&id) = self.known.get(usize::from(pick) % self.known.len().max(1)) else {
            return;
        };
        let size = usize::from(amount % 6000);
        match what {
            8..=11 => mux.answer(now, id, &answer(amount)),
            12..=16 => {
                if let Ok(Some(bytes)) = mux.read(now, id, size + 1) {
                    assert!((1..=size + 1).contains(&bytes.len()));
                }
            }
            17..=20 => {
                let mut bytes = Bytes::from(vec![7; size + 1]);
                let written = mux.write(now, id, &mut bytes);
                assert_eq!(bytes.len(), size + 1 - written.unwrap_or(0));
            }
            21..=23 => drop(mux.finish(now, id)),
            24 | 25 => mux.reset(now, id, code),
            26 | 27 => mux.stop(now, id, code),
            28 | 29 => mux.release_send(now, id),
            _ => mux.release_recv(now, id),
        }
    }

    /// Lets a message come from the peer.
    fn send(&mut self, message: Bytes) {
        let expected = self.expect(message.clone());
        let was_closed = self.peer.mux.closed().is_some();
        self.peer.mux.handle_message(self.peer.now, message);
        match self.peer.mux.closed() {
            _ if was_closed => {}
            None => assert_ne!(expected, Expected::Closes),
            Some(CloseReason::Remote { code, .. }) => assert_eq!(*code, CloseCode::DONE),
            Some(CloseReason::Local { code, .. }) if *code == CloseCode::PROTOCOL => {
                assert_ne!(expected, Expected::Goes, "{:?}", self.peer.mux.closed());
            }
            Some(CloseReason::Local { code, .. }) => {
                assert_eq!(*code, CloseCode::FLOOD);
                let pings = self.judge.pings(US);
                assert!(self.frames * DEAREST > PATIENCE || pings > MAX_PINGS, "no flood");
            }
            other => panic!("{other:?}"),
        }
    }

    fn expect(&mut self, message: Bytes) -> Expected {
        let mut expected = Expected::Goes;
        // What the machine has said about a stream, and the peer has not heard, may excuse the peer.
        let mut has_heard = !self.is_stuck;
        let mut frames = Frames::new(message);
        for frame in frames.by_ref() {
            self.frames += 1;
            let Ok(frame) = frame else {
                return Expected::Closes;
            };
            self.arrived += u64::from(matches!(frame, Frame::Open { .. }));
            let verdict = match self.judge.sends(THEM, &frame) {
                Verdict::Right => Expected::Goes,
                Verdict::Doubtful(_) if has_heard => Expected::Closes,
                Verdict::Vain(_) | Verdict::Doubtful(_) => Expected::May,
                Verdict::Wrong(_) => Expected::Closes,
            };
            self.judge.arrives(US, &frame);
            let is_data = matches!(frame, Frame::Data { .. });
            self.is_overdrawn |= is_data && verdict == Expected::May;
            let excuse = if is_data && self.is_overdrawn {
                Expected::May
            } else {
                Expected::Goes
            };
            expected = expected.max(verdict).max(excuse);
            if verdict == Expected::Closes || matches!(frame, Frame::Close { .. }) {
                return expected;
            }
            has_heard = false;
        }
        self.frames += usize::try_from(frames.skipped()).unwrap();
        expected
    }

    /// The peer takes what the machine has to say, which keeps the rules whatever the peer does.
    fn hear(&mut self) {
        for frame in self.peer.frames() {
            assert_eq!(self.judge.sends(US, &frame), Verdict::Right, "{frame:?}");
            self.judge.arrives(THEM, &frame);
            self.came_out += 1;
        }
    }

    fn check(&mut self) {
        if !self.is_stuck {
            self.hear();
        }
        for event in self.peer.events() {
            assert!(!self.is_closed, "{event:?} behind the last one");
            self.came_out += 1;
            match event {
                Event::Opened { id, .. } => self.known.push(id),
                Event::Closed => self.is_closed = true,
                _ => {}
            }
        }
        assert_eq!(self.is_closed, self.peer.mux.closed().is_some());
        let (budget, stats) = (&self.peer.budget, self.peer.mux.stats());
        assert!(budget.used() <= budget.limit() && stats.buffered == budget.used());
        assert!(stats.streams_open <= self.opened + self.arrived);
        let went_in = self.frames + self.commands;
        assert!(self.came_out <= 16 + 4 * went_in, "{} for {went_in}", self.came_out);
    }

    /// Lets go of everything, after which nothing is held.
    pub(crate) fn finish(&mut self) {
        self.is_stuck = false;
        self.check();
        for id in std::mem::take(&mut self.known) {
            self.peer.release(id);
        }
        self.commands += 1000;
        self.check();
        assert_eq!((self.peer.budget.used(), self.peer.mux.stats().streams_open), (0, 0));
        assert!(
            format!("{:?}", self.peer.mux).contains("streams: 0,"),
            "{:?}",
            self.peer.mux
        );
    }
}

fn answer(amount: u16) -> Answer {
    if amount.is_multiple_of(4) {
        Answer::Refused(Refusal::new(RefusalKind::DnsError, "no"))
    } else {
        Answer::Accepted
    }
}

/// One run: the first bytes say how it is set up, each four others what happens. A peer begins with HELLO unless the
/// first of them says otherwise.
pub(crate) fn run(setup: [u8; 4], ops: impl IntoIterator<Item = [u8; 4]>) {
    let mut ops = ops.into_iter().peekable();
    let mut attack = Attack::new(Setup::new(setup));
    if ops.peek().is_some_and(|op| op[0] & 3 != 0) {
        attack.act([28, 0, 8, 0]);
    }
    ops.for_each(|op| attack.act(op));
    attack.finish();
}
