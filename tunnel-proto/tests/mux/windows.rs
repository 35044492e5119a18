//! Credit that follows the path, the reader, and the memory that there is.

use std::time::Duration;

use tunnel_proto::mux::{Budget, Config, Event, Frame, Hello, Side, Windows};

use crate::{
    pair::{Link, Pair},
    peer::{Peer, data},
};

#[test]
fn a_writer_is_woken_for_the_last_of_its_credit() {
    // More than the queue holds, and no more will come: the peer's window has shrunk below what it has granted.
    let hello = Hello::new(10, 168 * 1024, 1 << 40);
    let config = Config::builder().send_queue(128 * 1024).build().unwrap();
    let mut peer = Peer::with_hello(config, Budget::default(), hello);
    let id = peer.opened();
    peer.events();
    let mut bytes = vec![7; 1 << 20].into();
    let mut sent = 0;
    for _ in 0..10 {
        while peer.mux.write(peer.now, id, &mut bytes).is_ok() {}
        for frame in peer.frames() {
            if let Frame::Data { payload, .. } = frame {
                sent += payload.len();
            }
        }
        if !peer.events().contains(&Event::Writable { id }) {
            break;
        }
    }
    assert_eq!(sent, 168 * 1024);
}

/// The bytes that a bulk stream has on its way or unread after so long.
fn ahead(link: Link, time: Duration) -> u64 {
    let mut pair = Pair::new(Config::default(), link);
    let id = pair.stream(Side::Server);
    let chunk = vec![1; 64 * 1024];
    let end = pair.now + time;
    while pair.now < end {
        while pair.write(Side::Server, id, &chunk).unwrap() > 0 {}
        pair.step(end);
        pair.read(Side::Agent, id).unwrap();
    }
    pair.agent.mux.stats().credit_outstanding
}

#[test]
fn a_path_that_queues_all_it_is_given_does_not_make_the_window_grow() {
    let link = Link {
        latency: Duration::from_millis(60),
        bandwidth: Some(1_250_000),
        backlog: 64 << 20,
    };
    // The path carries 150 KB in a round trip.
    let credit = ahead(link, Duration::from_secs(25));
    assert!(credit <= 4 * 150_000, "{credit}");
    // Nor when the round trips that were measured before the bulk began have been forgotten.
    let credit = ahead(link, Duration::from_secs(300));
    assert!(credit <= 8 * 150_000, "{credit}");
}

#[test]
fn the_window_is_larger_on_a_longer_path() {
    let link = |millis| Link {
        latency: Duration::from_millis(millis),
        bandwidth: Some(125_000_000),
        ..Link::default()
    };
    let near = ahead(link(1), Duration::from_secs(1));
    let far = ahead(link(50), Duration::from_secs(5));
    assert!(near <= 2 << 20, "{near}");
    assert!(far >= 8 << 20, "{far}");
}

#[test]
fn credit_of_the_connection_goes_with_that_of_a_stream() {
    let config = Config::builder()
        .stream_window(Windows::fixed(256 * 1024))
        .build()
        .unwrap();
    let mut peer = Peer::new(config, Budget::default());
    let id = peer.accepted();
    peer.frames();
    let (mut alone, mut together) = (0, 0);
    for _ in 0..1000 {
        peer.later(Duration::from_millis(1));
        let payload = vec![7; 16 * 1024].into();
        peer.send(Frame::Data {
            id,
            payload,
            fin: false,
        });
        peer.mux.read(peer.now, id, 16 * 1024).unwrap();
        // All that is due at a time is one message.
        match peer.frames()[..] {
            [] => {}
            [Frame::MaxData { .. }, Frame::MaxStreamData { .. }] => together += 1,
            ref frames if frames.iter().any(|frame| matches!(frame, Frame::Ping(_))) => {}
            ref frames => {
                alone += 1;
                assert!(
                    matches!(frames, [Frame::MaxData { .. } | Frame::MaxStreamData { .. }]),
                    "{frames:?}"
                );
            }
        }
    }
    // A stream's credit returns by the half of its window: 125 times. The first comes before a measurement.
    assert!(together > 100 && alone < 10, "{together} {alone}");
}

#[test]
fn credit_of_streams_goes_with_that_of_the_connection() {
    const CHUNK: usize = 64 * 1024;
    let config = Config::builder()
        .stream_window(Windows::fixed(4 * CHUNK as u64))
        .build()
        .unwrap();
    let mut peer = Peer::new(config, Budget::default());
    let ids: Vec<_> = (0..16).map(|_| peer.accepted()).collect();
    peer.frames();
    let (mut messages, mut announcements) = (0, 0);
    for id in ids.iter().cycle().take(1600) {
        peer.later(Duration::from_millis(1));
        peer.send(data(*id, CHUNK));
        peer.mux.read(peer.now, *id, CHUNK).unwrap();
        let frames = peer.frames();
        messages += usize::from(!frames.is_empty());
        announcements += frames
            .iter()
            .filter(|frame| matches!(frame, Frame::MaxStreamData { .. }))
            .count();
    }
    // Four streams have had a chunk for each quarter of the connection's window, which is a quarter of theirs. A
    // measurement of the round trip delays some.
    assert!((350..=440).contains(&messages), "{messages}");
    assert!((1400..=1600).contains(&announcements), "{announcements}");
}
