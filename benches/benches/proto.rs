//! Cost of the wire encoding: a stream's head and answer, as each new stream pays them.
#![allow(missing_docs)] // the macros of criterion
#![allow(clippy::expect_used)] // constants that parse

use std::hint::black_box;

use benches::workload::heads;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn messages(criterion: &mut Criterion) {
    for (name, message) in [("head", heads::head().expect("a head")), ("answer", heads::answer())] {
        let bytes = message.encode();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("encode", |bencher| bencher.iter(|| black_box(&message).encode()));
        group.bench_function("decode", |bencher| bencher.iter(|| heads::decode(bytes.clone())));
        group.finish();
    }
}

criterion_group!(benches, messages);
criterion_main!(benches);
