//! Cost of the relays at both ends of a stream, over a carrier in memory.
#![allow(missing_docs)] // the macros of criterion
#![allow(clippy::expect_used)] // connections in memory

use benches as _; // its allocator
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    runtime::Builder,
};
use tunnel_core::{
    Claim, Duplex, Generation, StreamHead,
    relay::{RelayOptions, relay},
};
use tunnel_testkit::memory::{Config, Ends, ends};

/// What one round moves.
const ROUND: usize = 16 << 20;
/// What the client writes and the target reads at once, and what their pipes hold.
const CHUNK: usize = 64 << 10;

async fn connect() -> Ends {
    let claim = Claim::new("bench".parse().expect("a name"), Generation(1));
    ends(Config::default(), &claim).await.expect("a connection in memory")
}

/// Both ends of a new stream.
async fn stream(ends: &Ends) -> (Duplex, Duplex) {
    let head = StreamHead::new("tcp://10.0.0.7:443".parse().expect("a target"));
    let accept = async { ends.agent.accept().await.expect("a stream").accept().await };
    let (opened, accepted) = tokio::join!(ends.server.open(head), accept);
    (opened.expect("an open stream"), accepted.expect("an accepted stream"))
}

/// A client's bytes through a relay, a stream and another relay to the target.
async fn through(ends: &Ends, chunk: &[u8]) {
    let (server, agent) = stream(ends).await;
    let (mut client, near) = duplex(CHUNK);
    let (far, mut target) = duplex(CHUNK);
    let relays = [
        tokio::spawn(relay(near, Bytes::new(), server, RelayOptions::default())),
        tokio::spawn(relay(far, Bytes::new(), agent, RelayOptions::default())),
    ];
    let send = async {
        for _ in 0..ROUND / CHUNK {
            client.write_all(chunk).await.expect("a relay that reads");
        }
        client.shutdown().await.expect("a relay that reads");
    };
    let receive = async {
        let mut buffer = vec![0; CHUNK];
        let mut total = 0;
        loop {
            match target.read(&mut buffer).await.expect("a relay that writes") {
                0 => break total,
                len => total += len,
            }
        }
    };
    let ((), total) = tokio::join!(send, receive);
    assert_eq!(total, ROUND, "not everything has come through");
    drop((client, target));
    for relay in relays {
        relay.await.expect("a relay that ends");
    }
}

fn copying(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ends = runtime.block_on(connect());
    let chunk = vec![7; CHUNK];
    let mut group = criterion.benchmark_group("relay");
    group.throughput(Throughput::Bytes(ROUND as u64));
    group.bench_function("two", |bencher| {
        bencher.to_async(&runtime).iter(|| through(&ends, &chunk));
    });
    group.finish();
}

criterion_group!(benches, copying);
criterion_main!(benches);
