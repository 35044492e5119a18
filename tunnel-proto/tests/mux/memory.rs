//! What the machine takes from the allocator.

use allocation_counter::measure;
use tunnel_proto::mux::{Config, Side, StreamId};

use crate::pair::{Link, Pair};

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
