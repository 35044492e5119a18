//! Cost of the wire encoding: a stream's head and answer, as each new stream pays them.
#![allow(missing_docs)] // the macros of criterion
#![allow(clippy::expect_used)] // constants that parse

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tunnel_core::{
    Answer, StreamHead,
    proto::{FrameDecoder, Message, TraceContext},
};

fn head() -> Message {
    let mut head = StreamHead::new("tcp://kubelet.node-7.cluster.example:10250".parse().expect("a target"));
    head.client = Some("[2001:db8::7]:54321".parse().expect("an address"));
    head.deadline = Some(std::time::Duration::from_secs(30));
    head.trace = TraceContext::new(
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "vendor=value",
    )
    .ok();
    Message::from(head)
}

fn messages(criterion: &mut Criterion) {
    for (name, message) in [("head", head()), ("answer", Message::from(Answer::Accepted))] {
        let bytes = message.encode();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("encode", |bencher| bencher.iter(|| black_box(&message).encode()));
        group.bench_function("decode", |bencher| {
            bencher.iter(|| {
                let mut decoder = FrameDecoder::new();
                decoder.push(bytes.clone());
                decoder.next()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, messages);
criterion_main!(benches);
