//! What the document lets each end of a link send (`docs/wire.md` §9), judged by the frames alone.

use std::collections::HashMap;

use tunnel_proto::{
    Answer,
    mux::{Frame, Hello, Side, StreamId},
};

use crate::model::index;

/// What is to be said of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It keeps the rules.
    Right,
    /// No machine sends it; but a receiver that knows the half, or the link, to be over discards it.
    Vain(&'static str),
    /// It breaks a rule, unless the receiver has ended that half and the sender has not heard of it.
    Doubtful(&'static str),
    /// It breaks a rule.
    Wrong(&'static str),
}

use Verdict::{Doubtful, Right, Vain, Wrong};

/// Who has said what on one link.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judge {
    ends: [End; 2],
    streams: HashMap<StreamId, Stream>,
}

/// What one end has sent, and what has come to it.
#[derive(Clone, Debug, Default)]
struct End {
    hello: Option<Hello>,
    has_drained: bool,
    has_closed: bool,
    opened: u64,
    sent: u64,
    /// What it has granted.
    granted: Grants,
    /// What has come to it: grants, streams, payload, PINGs without their PONG.
    allowed: Grants,
    known: u64,
    received: u64,
    pings: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Grants {
    bytes: u64,
    streams: u64,
}

#[derive(Clone, Debug)]
struct Stream {
    /// Whether it was accepted, if it was answered.
    answer: Option<bool>,
    /// By their senders.
    halves: [Half; 2],
}

/// One half, as its sender and its receiver have it.
#[derive(Clone, Copy, Debug)]
struct Half {
    sent: u64,
    received: u64,
    granted: u64,
    allowed: u64,
    /// Whether its sender has ended it; whether its receiver has, with STOP or a refusal; whether the sender knows of
    /// an end that is not its own.
    is_ended: bool,
    has_stop: bool,
    is_known_stopped: bool,
    /// Whether the opener has reset the other half before it knew of an answer: the acceptor ends this half with it
    /// unless it has accepted the stream, though the answer may not have gone out.
    has_lapsed: bool,
}

impl Half {
    fn new(window: u64) -> Self {
        Self {
            sent: 0,
            received: 0,
            granted: window,
            allowed: window,
            is_ended: false,
            has_stop: false,
            is_known_stopped: false,
            has_lapsed: false,
        }
    }

    fn is_stopped(&self) -> bool {
        self.has_stop || self.is_known_stopped || self.has_lapsed
    }

    fn is_over(&self) -> bool {
        self.is_ended || self.is_stopped()
    }
}

impl Stream {
    /// Whether neither end has ended anything of it.
    fn is_whole(&self) -> bool {
        self.halves.iter().all(|half| !half.is_over())
    }
}

impl Judge {
    fn half(&mut self, sender: Side, id: StreamId) -> Option<&mut Half> {
        Some(&mut self.streams.get_mut(&id)?.halves[index(sender)])
    }

    /// How far the receiver of a half lets its sender go.
    pub(crate) fn granted(&mut self, sender: Side, id: StreamId) -> u64 {
        self.half(sender, id).map_or(0, |half| half.granted)
    }

    /// How many more bytes the peer of an end may send to it.
    pub(crate) fn credit(&self, receiver: Side) -> u64 {
        let end = &self.ends[index(receiver)];
        end.granted.bytes - end.received
    }

    /// How many PINGs have come to an end without their PONG.
    pub(crate) fn pings(&self, at: Side) -> u64 {
        self.ends[index(at)].pings
    }

    /// Whether all that was sent has come.
    pub(crate) fn is_quiet(&self) -> bool {
        let [agent, server] = &self.ends;
        (agent.sent, agent.opened, server.sent, server.opened)
            == (server.received, server.known, agent.received, agent.known)
    }

    /// Judges what an end sends.
    pub(crate) fn sends(&mut self, side: Side, frame: &Frame) -> Verdict {
        let end = &mut self.ends[index(side)];
        if end.has_closed {
            return Vain("something behind CLOSE");
        }
        if end.hello.is_none() && !matches!(frame, Frame::Hello(_) | Frame::Close { .. }) {
            return Wrong("something before HELLO");
        }
        if let Some(id) = stream_of(frame) {
            return self.sends_on(side, id, frame);
        }
        match frame {
            Frame::Hello(hello) => {
                end.granted = Grants::of(hello);
                let repeated = end.hello.replace(*hello).is_some();
                if repeated { Wrong("a second HELLO") } else { Right }
            }
            Frame::MaxData { offset } => raise(&mut end.granted.bytes, offset.into_inner()),
            Frame::MaxStreams { count } => raise(&mut end.granted.streams, count.into_inner()),
            Frame::Pong(_) if end.pings == 0 => Vain("PONG without PING"),
            Frame::Pong(_) => {
                end.pings -= 1;
                Right
            }
            Frame::Drain(_) => once(&mut end.has_drained, "a second DRAIN"),
            Frame::Close { .. } => once(&mut end.has_closed, "a second CLOSE"),
            _ => Right,
        }
    }

    fn sends_on(&mut self, side: Side, id: StreamId, frame: &Frame) -> Verdict {
        let end = &mut self.ends[index(side)];
        let is_opener = id.opener() == side;
        if let Frame::Open { .. } = frame {
            return self.opens(side, id);
        }
        if id.index() >= if is_opener { end.opened } else { end.known } {
            return Wrong("a frame about a stream that was never opened");
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            panic!("{id:?}");
        };
        let is_whole = stream.is_whole();
        let is_answered = stream.answer == Some(true);
        let [own, other] = match side {
            Side::Agent => [0, 1],
            Side::Server => [1, 0],
        };
        match frame {
            Frame::Answer { .. } if is_opener => return Wrong("an answer of the opener"),
            Frame::Answer { .. } if stream.answer.is_some() => {
                let what = "a second answer";
                return if is_whole { Doubtful(what) } else { Vain(what) };
            }
            Frame::Answer { answer, .. } => {
                stream.answer = Some(*answer == Answer::Accepted);
                if *answer != Answer::Accepted {
                    stream.halves[own].is_ended = true;
                    stream.halves[other].has_stop = true;
                }
                if !is_whole && stream.halves[own].is_ended && *answer == Answer::Accepted {
                    return Vain("an answer behind a RESET");
                }
            }
            Frame::Data { payload, fin, .. } => {
                let len = payload.len() as u64;
                end.sent += len;
                let half = &mut stream.halves[own];
                let before = *half;
                half.sent += len;
                half.is_ended |= *fin;
                if end.sent > end.allowed.bytes {
                    return Wrong("payload beyond the credit of the connection");
                }
                if before.is_ended {
                    // Of what it drops behind the clean end the receiver says nothing.
                    return Vain("payload behind the end");
                }
                if before.is_known_stopped {
                    return Vain("payload behind STOP");
                }
                let what = if !is_opener && !is_answered {
                    "payload before the answer"
                } else if half.sent > before.allowed {
                    "payload beyond the credit of the stream"
                } else {
                    return Right;
                };
                return if before.is_stopped() {
                    Vain(what)
                } else {
                    Doubtful(what)
                };
            }
            Frame::Reset { .. } => return once(&mut stream.halves[own].is_ended, "RESET behind the end"),
            Frame::Stop { .. } => return once(&mut stream.halves[other].has_stop, "a second STOP"),
            Frame::MaxStreamData { offset, .. } => {
                let half = &mut stream.halves[other];
                let raised = raise(&mut half.granted, offset.into_inner());
                return if half.has_stop {
                    Vain("credit behind STOP")
                } else {
                    raised
                };
            }
            other => panic!("{other:?}"),
        }
        Right
    }

    fn opens(&mut self, side: Side, id: StreamId) -> Verdict {
        let window = |hello: &Option<Hello>| hello.map_or(0, |hello| hello.stream_window);
        let windows = [&self.ends[1], &self.ends[0]].map(|receiver| window(&receiver.hello));
        let end = &mut self.ends[index(side)];
        if id != StreamId::new(side, end.opened) {
            return Wrong("OPEN of another stream than the next");
        }
        if end.opened >= end.allowed.streams {
            return Wrong("OPEN beyond MAX_STREAMS");
        }
        if end.has_drained {
            return Wrong("OPEN behind DRAIN");
        }
        end.opened += 1;
        let halves = windows.map(Half::new);
        let answer = None;
        self.streams.insert(id, Stream { answer, halves });
        Right
    }

    /// Notes what has come to an end.
    pub(crate) fn arrives(&mut self, at: Side, frame: &Frame) {
        let end = &mut self.ends[index(at)];
        match frame {
            Frame::Hello(hello) => end.allowed = Grants::of(hello),
            Frame::MaxData { offset } => end.allowed.bytes = end.allowed.bytes.max(offset.into_inner()),
            Frame::MaxStreams { count } => end.allowed.streams = end.allowed.streams.max(count.into_inner()),
            Frame::Ping(_) => end.pings += 1,
            Frame::Open { .. } => end.known += 1,
            Frame::Data { id, payload, .. } => {
                end.received += payload.len() as u64;
                if let Some(half) = self.half(at.peer(), *id) {
                    half.received += payload.len() as u64;
                }
            }
            Frame::MaxStreamData { id, offset } => {
                if let Some(half) = self.half(at, *id) {
                    half.allowed = half.allowed.max(offset.into_inner());
                }
            }
            Frame::Stop { id, .. } => self.ends_at_sender(at, *id),
            Frame::Reset { id, .. } => {
                // Before any answer it ends the other half too.
                let is_answered = self.streams.get(id).is_none_or(|stream| stream.answer.is_some());
                match self.half(at, *id) {
                    Some(half) if !is_answered && id.opener() == at => half.is_known_stopped = true,
                    Some(half) if !is_answered => half.has_lapsed = true,
                    _ => {}
                }
            }
            Frame::Answer { id, answer } if *answer != Answer::Accepted => self.ends_at_sender(at, *id),
            _ => {}
        }
    }

    fn ends_at_sender(&mut self, sender: Side, id: StreamId) {
        if let Some(half) = self.half(sender, id) {
            half.is_known_stopped = true;
        }
    }
}

impl Grants {
    fn of(hello: &Hello) -> Self {
        Self {
            bytes: hello.connection_window,
            streams: hello.max_streams,
        }
    }
}

/// The stream that a frame is about.
fn stream_of(frame: &Frame) -> Option<StreamId> {
    match frame {
        Frame::Open { id, .. }
        | Frame::Answer { id, .. }
        | Frame::Data { id, .. }
        | Frame::Reset { id, .. }
        | Frame::Stop { id, .. }
        | Frame::MaxStreamData { id, .. } => Some(*id),
        _ => None,
    }
}

fn raise(limit: &mut u64, to: u64) -> Verdict {
    let raises = to > *limit;
    *limit = to.max(*limit);
    if raises {
        Right
    } else {
        Vain("credit that raises nothing")
    }
}

fn once(done: &mut bool, again: &'static str) -> Verdict {
    if std::mem::replace(done, true) {
        Vain(again)
    } else {
        Right
    }
}
