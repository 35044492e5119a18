//! The mux without a link: two machines that hand each other their messages.

use std::{hint::black_box, time::Instant};

use anyhow::{anyhow, ensure};
use bytes::Bytes;
use tunnel_core::{
    Answer, StreamHead,
    proto::mux::{Budget, Config, Mux, Side, StreamId},
};

/// What one round moves at most: less than the windows.
pub const ROUND: usize = 1 << 20;

/// An agent and a server with streams between them.
#[derive(Debug)]
pub struct Pair {
    now: Instant,
    agent: Mux,
    server: Mux,
    streams: Vec<StreamId>,
}

impl Pair {
    /// With so many streams, which are open.
    pub fn new(streams: usize) -> anyhow::Result<Self> {
        let now = Instant::now();
        let mux = |side| Mux::new(side, Config::default(), Budget::default().account(), now);
        let mut pair = Self {
            now,
            agent: mux(Side::Agent),
            server: mux(Side::Server),
            streams: Vec::new(),
        };
        pair.settle();
        let head = StreamHead::new("tcp://10.0.0.7:443".parse()?);
        for _ in 0..streams {
            let stream = pair.agent.open(now, &head);
            pair.streams
                .push(stream.map_err(|blocked| anyhow!("no stream: {blocked:?}"))?);
        }
        pair.settle();
        for &id in &pair.streams {
            pair.server.answer(now, id, &Answer::Accepted);
        }
        pair.settle();
        Ok(pair)
    }

    /// Moves so many pieces from the agent to readers at the server, spread over the streams.
    ///
    /// The pieces of one call are at most a [`ROUND`].
    pub fn carry(&mut self, piece: &Bytes, count: usize) -> anyhow::Result<()> {
        let mut left = count;
        while left > 0 {
            for &id in self.streams.iter().take(left) {
                let mut data = piece.clone();
                while !data.is_empty() && self.agent.write(self.now, id, &mut data).is_ok() {}
                ensure!(data.is_empty(), "the windows are smaller than a round");
                left -= 1;
            }
            self.settle();
            for &id in &self.streams {
                while let Ok(Some(bytes)) = self.server.read(self.now, id, usize::MAX) {
                    black_box(bytes);
                }
            }
        }
        self.settle();
        Ok(())
    }

    /// Hands over all messages, in both directions.
    fn settle(&mut self) {
        let Self { now, agent, server, .. } = self;
        while hand_over(*now, agent, server) | hand_over(*now, server, agent) {}
    }
}

/// Hands over what one end has to say; gives whether there was something.
fn hand_over(now: Instant, from: &mut Mux, to: &mut Mux) -> bool {
    let mut moved = false;
    while let Some(message) = from.poll_message(now) {
        to.handle_message(now, message.into_bytes());
        moved = true;
    }
    while from.poll_event().or_else(|| to.poll_event()).is_some() {}
    moved
}
