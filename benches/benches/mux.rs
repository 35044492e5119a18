//! Cost of the mux, without a link: two machines that hand each other their messages, over one stream and many.
#![allow(missing_docs)] // the macros of criterion
#![allow(clippy::expect_used)] // streams that are there

use benches::workload::mux::{Pair, ROUND};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A small piece, and how many of them one round moves.
const SMALL: usize = 64;
const FRAMES: usize = 4000;

fn carrying(criterion: &mut Criterion) {
    for streams in [1, 16, 1000] {
        let mut pair = Pair::new(streams).expect("streams");
        let mut group = criterion.benchmark_group("mux");
        let len = (ROUND / streams).min(16 * 1024);
        let piece = Bytes::from(vec![7; len]);
        group.throughput(Throughput::Bytes((ROUND / len * len) as u64));
        group.bench_function(BenchmarkId::new("bytes", streams), |bencher| {
            bencher.iter(|| pair.carry(&piece, ROUND / len).expect("room"));
        });
        let piece = Bytes::from(vec![7; SMALL]);
        group.throughput(Throughput::Elements(FRAMES as u64));
        group.bench_function(BenchmarkId::new("frames", streams), |bencher| {
            bencher.iter(|| pair.carry(&piece, FRAMES).expect("room"));
        });
        group.finish();
    }
}

criterion_group!(benches, carrying);
criterion_main!(benches);
