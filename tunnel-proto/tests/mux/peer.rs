//! One machine against a peer that is played by the test.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tunnel_proto::{
    Answer, CloseCode, StreamCode, VarInt,
    mux::{Budget, CloseReason, Config, Event, Frame, Frames, Hello, MAX_MESSAGE, Mux, Side, StreamId},
};

use crate::model::head;

/// The server's machine, and what its peer, an agent, sees of it.
pub(crate) struct Peer {
    pub(crate) now: Instant,
    pub(crate) mux: Mux,
    pub(crate) budget: Budget,
    /// How many streams the peer has opened.
    opened: u64,
}

impl Peer {
    /// A machine that has not heard of its peer yet.
    pub(crate) fn strange(config: Config, budget: Budget) -> Self {
        let now = Instant::now();
        Self {
            now,
            mux: Mux::new(Side::Server, config, budget.account(), now),
            budget,
            opened: 0,
        }
    }

    /// A machine whose peer has been generous in its HELLO.
    pub(crate) fn new(config: Config, budget: Budget) -> Self {
        Self::with_hello(config, budget, Hello::new(1 << 20, 1 << 30, 1 << 40))
    }

    pub(crate) fn with_hello(config: Config, budget: Budget, hello: Hello) -> Self {
        let mut peer = Self::strange(config, budget);
        peer.send(Frame::Hello(hello));
        assert!(matches!(peer.frames()[..], [Frame::Hello(_), Frame::Ping(_)]));
        assert_eq!(peer.events(), [Event::Established]);
        peer
    }

    /// Sends a frame as a message.
    pub(crate) fn send(&mut self, frame: Frame) {
        let mut out = BytesMut::new();
        frame.encode(&mut out);
        self.mux.handle_message(self.now, out.freeze());
    }

    /// Sends frames, as many in a message as there is room for.
    pub(crate) fn send_all(&mut self, frames: impl IntoIterator<Item = Frame>) {
        let mut out = BytesMut::new();
        for frame in frames {
            let before = out.len();
            frame.encode(&mut out);
            if out.len() > MAX_MESSAGE {
                let last = out.split_off(before);
                self.mux.handle_message(self.now, out.freeze());
                out = last;
            }
        }
        if !out.is_empty() {
            self.mux.handle_message(self.now, out.freeze());
        }
    }

    pub(crate) fn later(&mut self, time: Duration) {
        self.now += time;
        if self.mux.poll_timeout().is_some_and(|at| at <= self.now) {
            self.mux.handle_timeout(self.now);
        }
    }

    /// Everything that the machine wants to send, which must be as it claims.
    pub(crate) fn frames(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let wants = self.mux.wants_send();
            let message = self.mux.poll_message(self.now);
            assert!(wants || message.is_none(), "it did not want to send {message:?}");
            let Some(message) = message else {
                break;
            };
            assert!(message.len() <= MAX_MESSAGE, "{} bytes", message.len());
            frames.extend(Frames::new(message.into_bytes()).map(Result::unwrap));
        }
        assert!(!self.mux.wants_send());
        frames
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.mux.poll_event()).collect()
    }

    /// The peer's next stream.
    pub(crate) fn next_id(&mut self) -> StreamId {
        self.opened += 1;
        StreamId::new(Side::Agent, self.opened - 1)
    }

    /// Opens a stream of the peer, which waits for its answer.
    pub(crate) fn open(&mut self) -> StreamId {
        let id = self.next_id();
        self.send(Frame::Open { id, head: head() });
        id
    }

    /// Opens a stream of the peer and accepts it.
    pub(crate) fn accepted(&mut self) -> StreamId {
        let id = self.open();
        self.mux.answer(self.now, id, &Answer::Accepted);
        id
    }

    /// Opens a stream of the machine and accepts it as the peer.
    pub(crate) fn opened(&mut self) -> StreamId {
        let id = self.mux.open(self.now, &head()).unwrap();
        self.frames();
        let answer = Answer::Accepted;
        self.send(Frame::Answer { id, answer });
        id
    }

    pub(crate) fn release(&mut self, id: StreamId) {
        self.mux.release_send(self.now, id);
        self.mux.release_recv(self.now, id);
    }

    /// The code with which the machine has closed the connection; the peer is told the same.
    pub(crate) fn closed_with(&mut self) -> Option<CloseCode> {
        let CloseReason::Local { code, .. } = self.mux.closed()?.clone() else {
            panic!("{:?}", self.mux.closed());
        };
        let frames = self.frames();
        assert!(
            matches!(frames[..], [Frame::Close { code: told, .. }] if told == code),
            "{frames:?}"
        );
        assert_eq!(self.events().pop(), Some(Event::Closed));
        Some(code)
    }
}

pub(crate) fn data(id: StreamId, len: usize) -> Frame {
    let payload = Bytes::from(vec![7; len]);
    Frame::Data {
        id,
        payload,
        fin: false,
    }
}

pub(crate) fn fin(id: StreamId) -> Frame {
    let payload = Bytes::new();
    Frame::Data { id, payload, fin: true }
}

pub(crate) fn reset(id: StreamId) -> Frame {
    let code = StreamCode::TARGET_RESET;
    Frame::Reset { id, code }
}

pub(crate) fn stop(id: StreamId) -> Frame {
    let code = StreamCode::TARGET_RESET;
    Frame::Stop { id, code }
}

pub(crate) fn max_stream_data(id: StreamId, offset: u64) -> Frame {
    let offset = VarInt::saturating_from_u64(offset);
    Frame::MaxStreamData { id, offset }
}

pub(crate) fn max_data(offset: u64) -> Frame {
    let offset = VarInt::saturating_from_u64(offset);
    Frame::MaxData { offset }
}

pub(crate) fn max_streams(count: u64) -> Frame {
    let count = VarInt::saturating_from_u64(count);
    Frame::MaxStreams { count }
}
