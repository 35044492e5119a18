//! Peers that follow the protocol are never taken for a flood, however much happens at once.

use std::time::Duration;

use tunnel_proto::{
    StreamCode,
    mux::{Config, MAX_MESSAGE, Side, StreamId, Windows},
};

use crate::pair::{Link, Pair};

const SIDES: [Side; 2] = [Side::Agent, Side::Server];

fn with_streams(config: Config, count: usize) -> (Pair, Vec<StreamId>) {
    let link = Link {
        latency: Duration::from_millis(50),
        ..Link::default()
    };
    let mut pair = Pair::new(config, link);
    let ids = pair.streams(Side::Server, count);
    (pair, ids)
}

fn all_is_over(pair: &mut Pair) {
    pair.run(Duration::from_secs(1));
    for side in SIDES {
        assert_eq!(pair.mux(side).closed(), None);
        let stats = pair.mux(side).stats();
        assert_eq!(
            (stats.streams_open, stats.buffered, stats.credit_outstanding),
            (0, 0, 0)
        );
    }
}

#[test]
fn ten_thousand_streams_can_be_let_go_by_both_ends_at_once() {
    let (mut pair, ids) = with_streams(Config::default(), 10_000);
    let now = pair.now;
    for side in SIDES {
        for &id in &ids {
            pair.mux(side).release_send(now, id);
            pair.mux(side).release_recv(now, id);
        }
    }
    all_is_over(&mut pair);
}

#[test]
fn ten_thousand_halves_can_be_ended_from_both_sides_at_once() {
    let (mut pair, ids) = with_streams(Config::default(), 10_000);
    let now = pair.now;
    for (writer, reader) in [(Side::Agent, Side::Server), (Side::Server, Side::Agent)] {
        for &id in &ids {
            pair.mux(writer).reset(now, id, StreamCode::IDLE);
            pair.mux(reader).stop(now, id, StreamCode::IDLE);
        }
        pair.run(Duration::from_millis(200));
    }
    all_is_over(&mut pair);
}

#[test]
fn ten_thousand_opens_can_be_abandoned_while_they_are_answered() {
    let link = Link {
        latency: Duration::from_millis(50),
        ..Link::default()
    };
    let mut pair = Pair::new(Config::default(), link);
    pair.run(Duration::from_secs(1));
    for _ in 0..3 {
        let ids = pair.open_and_accept(Side::Server, 10_000);
        let now = pair.now;
        for &id in &ids {
            pair.mux(Side::Server).release_send(now, id);
            pair.mux(Side::Server).release_recv(now, id);
        }
        pair.run(Duration::from_millis(10));
        let now = pair.now;
        for &id in &ids {
            pair.mux(Side::Agent).release_send(now, id);
            pair.mux(Side::Agent).release_recv(now, id);
        }
        all_is_over(&mut pair);
    }
}

#[test]
fn a_thousand_streams_can_be_stopped_with_bytes_on_their_way() {
    let (mut pair, ids) = with_streams(Config::default(), 1000);
    for _ in 0..4 {
        for &id in &ids {
            // Many small frames.
            pair.write(Side::Server, id, &[7; 100]).unwrap();
        }
        pair.settle();
    }
    let now = pair.now;
    for &id in &ids {
        pair.mux(Side::Agent).release_send(now, id);
        pair.mux(Side::Agent).release_recv(now, id);
        pair.mux(Side::Server).finish(now, id).unwrap();
    }
    all_is_over(&mut pair);
}

#[test]
fn small_windows_are_no_flood() {
    let config = Config::builder()
        .stream_window(Windows::fixed(1024))
        .connection_window(4096)
        .build()
        .unwrap();
    let mut pair = Pair::new(config, Link::default());
    let id = pair.stream(Side::Server);
    for _ in 0..20_000 {
        pair.write(Side::Server, id, &[7; 1024]).unwrap();
        pair.settle();
        assert_eq!(pair.read(Side::Agent, id).unwrap().0.len(), 1024);
        pair.settle();
    }
    assert_eq!((pair.agent.mux.closed(), pair.server.mux.closed()), (None, None));
}

#[test]
fn no_message_is_too_long_however_many_frames_there_are() {
    let config = Config::builder().max_streams(50_000).build().unwrap();
    let (mut pair, ids) = with_streams(config, 50_000);
    let now = pair.now;
    for &id in &ids {
        pair.write(Side::Server, id, b"x").unwrap();
        pair.mux(Side::Agent).finish(now, id).unwrap();
    }
    for side in SIDES {
        while let Some(message) = pair.mux(side).poll_message(now) {
            assert!(message.len() <= MAX_MESSAGE, "{} bytes", message.len());
        }
    }
}
