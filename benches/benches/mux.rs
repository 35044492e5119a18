//! Cost of the mux, without a link: two machines that hand each other their messages, over one stream and many.
#![allow(missing_docs)] // the macros of criterion
#![allow(clippy::expect_used)] // streams that are there

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tunnel_core::{
    Answer, StreamHead,
    proto::mux::{Budget, Config, Mux, Side, StreamId},
};

/// What one round moves, in large pieces.
const ROUND: usize = 1 << 20;
/// A small piece, and how many of them one round moves.
const SMALL: usize = 64;
const FRAMES: usize = 4000;

struct Pair {
    now: Instant,
    agent: Mux,
    server: Mux,
    streams: Vec<StreamId>,
}

impl Pair {
    fn new(streams: usize) -> Self {
        let now = Instant::now();
        let mux = |side| Mux::new(side, Config::default(), Budget::default().account(), now);
        let mut pair = Self {
            now,
            agent: mux(Side::Agent),
            server: mux(Side::Server),
            streams: Vec::new(),
        };
        pair.settle();
        let head = StreamHead::new("tcp://10.0.0.7:443".parse().expect("a target"));
        for _ in 0..streams {
            pair.streams.push(pair.agent.open(now, &head).expect("a stream"));
        }
        pair.settle();
        for &id in &pair.streams {
            pair.server.answer(now, id, &Answer::Accepted);
        }
        pair.settle();
        pair
    }

    /// Hands over all messages, in both directions.
    fn settle(&mut self) {
        let Self { now, agent, server, .. } = self;
        while hand_over(*now, agent, server) | hand_over(*now, server, agent) {}
    }

    /// Moves so many pieces from the agent to readers at the server, spread over the streams.
    fn carry(&mut self, piece: &Bytes, count: usize) {
        let mut left = count;
        while left > 0 {
            for &id in self.streams.iter().take(left) {
                let mut data = piece.clone();
                while !data.is_empty() && self.agent.write(self.now, id, &mut data).is_ok() {}
                assert!(data.is_empty(), "the windows are larger than a round");
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

fn carrying(criterion: &mut Criterion) {
    for streams in [1, 16, 1000] {
        let mut pair = Pair::new(streams);
        let mut group = criterion.benchmark_group("mux");
        let len = (ROUND / streams).min(16 * 1024);
        let piece = Bytes::from(vec![7; len]);
        group.throughput(Throughput::Bytes((ROUND / len * len) as u64));
        group.bench_function(BenchmarkId::new("bytes", streams), |bencher| {
            bencher.iter(|| pair.carry(&piece, ROUND / len));
        });
        let piece = Bytes::from(vec![7; SMALL]);
        group.throughput(Throughput::Elements(FRAMES as u64));
        group.bench_function(BenchmarkId::new("frames", streams), |bencher| {
            bencher.iter(|| pair.carry(&piece, FRAMES));
        });
        group.finish();
    }
}

criterion_group!(benches, carrying);
criterion_main!(benches);
