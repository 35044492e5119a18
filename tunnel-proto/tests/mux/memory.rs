//! What the machine takes from the allocator.

use allocation_counter::measure;
use bytes::BytesMut;
use tunnel_proto::mux::{Budget, Config, Side, StreamId};

use crate::{
    pair::{Link, Pair},
    peer::{Peer, data},
};

const COUNT: usize = 1000;

/// Streams over which some bytes have gone, all of which were read.
fn idle_streams(pair: &mut Pair) -> Vec<StreamId> {
    let ids = pair.streams(Side::Agent, COUNT);
    for side in [Side::Agent, Side::Server] {
        for &id in &ids {
            assert_eq!(pair.write(side, id, b"hello"), Ok(5));
        }
        pair.settle();
        for &id in &ids {
            assert_eq!(pair.read(side.peer(), id), Ok((b"hello".to_vec(), false)));
        }
    }
    forget_events(pair);
    ids
}

/// What the test keeps is not the machine's.
fn forget_events(pair: &mut Pair) {
    for side in [Side::Agent, Side::Server] {
        drop(pair.events(side));
    }
}

#[test]
fn an_idle_stream_takes_less_than_a_kibibyte_at_each_end() {
    let mut pair = Pair::new(Config::default(), Link::default());
    let taken = measure(|| drop(idle_streams(&mut pair)));
    let each = taken.bytes_current / (2 * COUNT as i64);
    assert!((1..1024).contains(&each), "{each} bytes");
}

#[test]
fn streams_that_are_over_give_all_of_it_back() {
    let mut pair = Pair::new(Config::default(), Link::default());
    let run = |pair: &mut Pair| {
        for id in idle_streams(pair) {
            for side in [Side::Agent, Side::Server] {
                let now = pair.now;
                pair.mux(side).release_send(now, id);
                pair.mux(side).release_recv(now, id);
            }
        }
        forget_events(pair);
    };
    // Lists and tables keep the size that they once needed.
    run(&mut pair);
    let taken = measure(|| run(&mut pair)).bytes_current;
    assert!(taken < COUNT as i64, "{taken} bytes");
}

/// Whether a reader that `waiting` bytes wait for is given a copy of `len` bytes that come after them, with `rest` bytes
/// of another stream in their message.
fn is_copied(waiting: usize, len: usize, rest: usize) -> bool {
    let mut peer = Peer::new(Config::default(), Budget::default());
    let (id, other) = (peer.accepted(), peer.accepted());
    // It grants them their windows.
    peer.frames();
    if waiting > 0 {
        peer.send(data(id, waiting));
    }
    let mut message = BytesMut::new();
    data(id, len).encode(&mut message);
    if rest > 0 {
        data(other, rest).encode(&mut message);
    }
    let message = message.freeze();
    peer.mux.handle_message(peer.now, message.clone());
    let mut before = 0;
    loop {
        let read = peer.mux.read(peer.now, id, usize::MAX).unwrap().unwrap();
        if before == waiting {
            return !message.as_ptr_range().contains(&read.as_ptr());
        }
        before += read.len();
    }
}

#[test]
fn a_slice_is_kept_of_a_message_that_it_is_most_of() {
    const KIB: usize = 1024;
    assert!(!is_copied(0, KIB, 0), "a slice of nothing else");
    assert!(is_copied(0, KIB - 1, 0), "a small one");
    assert!(!is_copied(0, 10 * KIB, 9 * KIB), "half of its message");
    assert!(is_copied(0, 10 * KIB, 11 * KIB), "less than half");
    assert!(!is_copied(63 * KIB, 2 * KIB, KIB), "the reader is not far behind yet");
    // It is.
    assert!(!is_copied(64 * KIB, 64 * KIB, 0), "a buffer of its own");
    assert!(!is_copied(64 * KIB, 32 * KIB, 3 * KIB), "nearly");
    assert!(is_copied(64 * KIB, 32 * KIB, 5 * KIB), "not nearly");
    assert!(is_copied(64 * KIB, 31 * KIB, 0), "too small for one of its own");
}
