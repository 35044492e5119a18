//! The machine: state, facts, and how it ends.

mod commands;
mod grants;
mod halves;
mod input;
mod invariants;
mod line;
mod output;
mod reclaim;
mod remote;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fmt,
    hash::{BuildHasherDefault, Hasher},
    time::Instant,
};

use bytes::{Bytes, BytesMut};

use self::line::Line;
use super::{
    Account, CloseReason, Config, Event, Frame, Hello, MuxStats, Side, StreamId, Window,
    credit::{RecvCredit, SendCredit},
    flood::Patience,
    keepalive::Watch,
    schedule::Schedule,
    stream::{Opening, Owed, Stream},
};
use crate::{CloseCode, Text};

/// One end of a link: a deterministic machine. See the [module](super) for how it is driven.
pub struct Mux {
    side: Side,
    config: Config,
    account: Account,
    /// What the peer has said first.
    peer: Option<Hello>,
    hello_owed: bool,
    streams: HashMap<StreamId, Box<Stream>, BuildHasherDefault<IdHasher>>,
    /// Streams that are not over.
    live: u64,
    opens: Opens,
    /// Streams of the peer.
    accepts: Accepts,
    send_credit: SendCredit,
    recv_credit: RecvCredit,
    recv_window: Window,
    /// What the peer may still send on streams, of which it was told.
    granted: u64,
    /// How many bytes may still come for halves that this end has stopped: what the peer could have sent before it
    /// knew.
    late: u64,
    /// Streams with unread bytes, those whose readers have been away longest first.
    unread: BTreeSet<(Instant, StreamId)>,
    /// When to look again for memory to give back, while it is short.
    relief: Option<Instant>,
    /// When the link last had room.
    link_ready: Instant,
    /// Streams that owe a frame beside data, in the order in which they came to owe it.
    owing: VecDeque<StreamId>,
    /// Streams that have credit to announce, though not enough for a message of its own.
    riders: Vec<StreamId>,
    schedule: Schedule<StreamId>,
    line: Line,
    /// PINGs to be answered.
    pings: VecDeque<[u8; 8]>,
    drain: Drain,
    watch: Watch,
    patience: Patience,
    /// Streams whose writers wait for memory.
    starved: Vec<StreamId>,
    events: VecDeque<Event>,
    closed: Option<CloseReason>,
    farewell: Option<Bytes>,
    stats: MuxStats,
    scratch: BytesMut,
}

/// The streams that this end opens.
#[derive(Debug, Default)]
struct Opens {
    /// How many there have been.
    count: u64,
    /// How many there may have been.
    limit: u64,
    /// What the OPENs that were not sent yet count for.
    unsent: u64,
    /// Whether somebody waits for the limit to rise, or for the link to take those.
    blocked: bool,
}

/// The streams that the peer opens.
#[derive(Debug)]
struct Accepts {
    /// How many there have been.
    count: u64,
    /// How many there may have been, as the peer was told.
    granted: u64,
    /// How many have been forgotten.
    gone: u64,
    /// How many wait for an answer.
    waiting: u32,
}

/// How far a drain has come.
#[derive(Debug, Default)]
struct Drain {
    /// The DRAIN to be sent.
    owed: Option<Text>,
    sent: bool,
    received: bool,
}

impl Drain {
    /// Whether it has begun, at either end.
    fn has_begun(&self) -> bool {
        self.owed.is_some() || self.sent || self.received
    }
}

/// The peer has broken the protocol, or this end's patience.
#[derive(Debug)]
struct Fault {
    code: CloseCode,
    text: Text,
}

impl Fault {
    fn protocol(text: impl fmt::Display) -> Self {
        Self {
            code: CloseCode::PROTOCOL,
            text: text.to_string().as_str().into(),
        }
    }

    fn flood(what: &str) -> Self {
        Self {
            code: CloseCode::FLOOD,
            text: format!("too many {what}").as_str().into(),
        }
    }
}

impl Mux {
    /// One end of a link whose peer's claim has been accepted, or which has been welcomed.
    #[must_use]
    pub fn new(side: Side, config: Config, account: Account, now: Instant) -> Self {
        let mut watch = Watch::new(config.keepalive, now);
        watch.sample(now);
        let connection = config.connection_windows();
        Self {
            side,
            account,
            peer: None,
            hello_owed: true,
            streams: HashMap::default(),
            live: 0,
            opens: Opens::default(),
            accepts: Accepts {
                count: 0,
                granted: config.max_streams.into(),
                gone: 0,
                waiting: 0,
            },
            send_credit: SendCredit::default(),
            recv_credit: RecvCredit::new(connection.start),
            recv_window: Window::new(connection.start, now),
            granted: 0,
            late: 0,
            unread: BTreeSet::new(),
            relief: None,
            link_ready: now,
            owing: VecDeque::new(),
            riders: Vec::new(),
            schedule: Schedule::default(),
            line: Line::new(&config),
            pings: VecDeque::new(),
            drain: Drain::default(),
            watch,
            patience: Patience::new(now),
            starved: Vec::new(),
            events: VecDeque::new(),
            closed: None,
            farewell: None,
            stats: MuxStats::default(),
            scratch: BytesMut::new(),
            config,
        }
    }

    /// Which end this is.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// What this connection holds of the budget. Its waker is to be registered there.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Why the connection has ended, if it has.
    #[must_use]
    pub fn closed(&self) -> Option<&CloseReason> {
        self.closed.as_ref()
    }

    /// Whether either end has begun to drain the connection.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.has_begun()
    }

    /// Figures of the moment.
    #[must_use]
    pub fn stats(&self) -> MuxStats {
        MuxStats {
            rtt: self.watch.round_trip(),
            streams_open: self.live,
            credit_outstanding: self.granted,
            buffered: self.account.held(),
            ..self.stats
        }
    }

    /// Ends the connection because of the peer.
    fn fail(&mut self, fault: Fault) {
        self.end(CloseReason::Local {
            code: fault.code,
            text: fault.text,
        });
    }

    /// Ends the connection, once. What has come can still be read; what was to be sent is dropped.
    fn end(&mut self, reason: CloseReason) {
        if self.closed.is_some() {
            return;
        }
        let farewell = match &reason {
            CloseReason::Local { code, text } => Some((*code, text.clone())),
            CloseReason::Silent { .. } => Some((CloseCode::TIMEOUT, Text::default())),
            CloseReason::Remote { .. } | CloseReason::Link => None,
        };
        self.farewell = farewell.map(|(code, text)| {
            let mut out = BytesMut::new();
            Frame::Close { code, text }.encode(&mut out);
            out.freeze()
        });
        for stream in self.streams.values_mut() {
            let mut held = stream.send.queue.clear() as u64;
            stream.send.in_line = false;
            if let Opening::Waiting { charged } = stream.opening {
                held += charged;
                stream.opening = Opening::Over;
            }
            self.account.release(held);
            stream.preface = None;
            stream.owed = Owed::default();
            stream.ended = true;
        }
        self.live = 0;
        self.granted = 0;
        self.relief = None;
        self.account.turn_deaf();
        self.schedule.clear();
        self.line.clear();
        self.owing = VecDeque::new();
        self.riders = Vec::new();
        self.pings = VecDeque::new();
        self.starved = Vec::new();
        self.hello_owed = false;
        self.drain.owed = None;
        self.closed = Some(reason);
        self.events.push_back(Event::Closed);
        let ids: Vec<_> = self.streams.keys().copied().collect();
        ids.into_iter().for_each(|id| self.settle(id));
    }

    /// Notes that a stream owes a frame.
    fn owe(&mut self, id: StreamId) {
        if self.closed.is_some() {
            return;
        }
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.owed.listed
        {
            stream.owed.listed = true;
            self.owing.push_back(id);
        }
    }

    /// Notes that a stream may have something to send.
    fn make_ready(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && self.closed.is_none()
            && stream.is_ready()
        {
            self.schedule.enter(id, &mut stream.turn);
        }
    }

    /// Counts the end of a stream when both halves are over, and forgets it when nobody needs it any more.
    fn settle(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !stream.ended && stream.is_over() {
            stream.ended = true;
            self.live -= 1;
            self.end_waiting(id);
        }
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let forgotten = stream.is_spent() || self.closed.is_some() && stream.send.released && stream.recv.released;
        if forgotten {
            self.discard_unread(id);
            self.streams.remove(&id);
            if id.opener() != self.side {
                self.accepts.gone += 1;
            }
        }
    }
}

impl fmt::Debug for Mux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mux")
            .field("side", &self.side)
            .field("streams", &self.streams.len())
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

/// Spreads stream ids. Neither end can choose them freely, so nobody can make them collide.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, value: u64) {
        // Fibonacci hashing: the golden ratio spreads consecutive numbers evenly, in the high bits as in the low ones.
        let spread = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ spread >> 32;
    }
}
