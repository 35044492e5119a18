//! Peers that break the protocol, or wear the machine out.

use std::time::Duration;

use bytes::Bytes;
use tunnel_proto::{
    Answer, CloseCode, VarInt,
    mux::{Budget, Config, Event, Frame, Hello, Side, StreamId, Windows},
};

use crate::{
    model::head,
    peer::{Peer, data, fin, max_data, max_stream_data, max_streams, reset, stop},
};

const PROTOCOL: Option<CloseCode> = Some(CloseCode::PROTOCOL);
const FLOOD: Option<CloseCode> = Some(CloseCode::FLOOD);

fn config() -> Config {
    Config::builder()
        .max_streams(8)
        .stream_window(Windows::fixed(4096))
        .connection_window(16 * 1024)
        .build()
        .unwrap()
}

fn peer() -> Peer {
    Peer::new(config(), Budget::default())
}

fn open(id: StreamId) -> Frame {
    let head = head();
    Frame::Open { id, head }
}

fn accept(id: StreamId) -> Frame {
    let answer = Answer::Accepted;
    Frame::Answer { id, answer }
}

/// Stream ids of the machine under test, and of its peer.
fn own(index: u64) -> StreamId {
    StreamId::new(Side::Server, index)
}

fn peers(index: u64) -> StreamId {
    StreamId::new(Side::Agent, index)
}

#[test]
fn what_breaks_a_rule_closes_the_connection() {
    // What the peer does once it has opened stream 0, of which the answer is awaited, and the machine its stream 0,
    // which was accepted, and its stream 1, which was not answered.
    let wrong: &[(&str, &[Frame])] = &[
        ("a second HELLO", &[Frame::Hello(Hello::new(1, 1, 1))]),
        ("a gap", &[open(peers(2))]),
        ("a stream twice", &[open(peers(0))]),
        ("the other end's stream", &[open(own(2))]),
        ("behind DRAIN", &[Frame::Drain(Default::default()), open(peers(1))]),
        ("an answer of the opener", &[accept(peers(0))]),
        ("a second answer", &[accept(own(0))]),
        ("an answer to nothing", &[accept(own(2))]),
        ("DATA before the answer", &[data(own(1), 1)]),
        ("DATA_FIN before the answer", &[fin(own(1))]),
        ("DATA beyond the credit", &[data(peers(0), 4000), data(peers(0), 97)]),
        ("DATA at once beyond the credit", &[data(own(0), 4097)]),
        ("DATA of a stream that never was", &[data(peers(1), 0)]),
        ("DATA of a stream that the machine never opened", &[data(own(2), 1)]),
        ("RESET of one", &[reset(peers(1))]),
        ("STOP of one", &[stop(own(2))]),
        ("MAX_STREAM_DATA of one", &[max_stream_data(peers(1), 1)]),
        ("DATA behind DATA_FIN", &[fin(peers(0)), data(peers(0), 1)]),
        (
            "DATA behind unread DATA_FIN",
            &[data(peers(0), 1), fin(peers(0)), data(peers(0), 1)],
        ),
        ("DATA_FIN behind DATA_FIN", &[fin(peers(0)), fin(peers(0))]),
        ("DATA behind RESET", &[reset(own(0)), data(own(0), 1)]),
    ];
    for (what, frames) in wrong {
        let mut peer = peer();
        let waiting = peer.open();
        assert_eq!(waiting, peers(0));
        assert_eq!(peer.opened(), own(0));
        assert_eq!(peer.mux.open(peer.now, &head()), Ok(own(1)));
        peer.frames();
        peer.events();
        peer.send_all(frames.iter().cloned());
        assert_eq!(peer.closed_with(), PROTOCOL, "{what}");
        for id in [peers(0), own(0), own(1)] {
            peer.release(id);
        }
        assert_eq!(peer.budget.used(), 0, "{what}");
    }
}

#[test]
fn the_first_frame_is_hello_or_close() {
    for frame in [Frame::Ping([0; 8]), open(peers(0)), max_streams(3)] {
        let mut peer = Peer::strange(config(), Budget::default());
        peer.send(frame);
        assert_eq!(peer.closed_with(), PROTOCOL);
    }
    let mut peer = Peer::strange(config(), Budget::default());
    let (code, text) = (CloseCode::OVERLOADED, "too many".into());
    peer.send(Frame::Close { code, text });
    assert_eq!(peer.events(), [Event::Closed]);
    assert_eq!(peer.frames(), []);
    let mut silent = Peer::strange(config(), Budget::default());
    for _ in 0..2 {
        assert_eq!(silent.mux.closed(), None);
        silent.later(Duration::from_millis(7500));
    }
    assert!(silent.mux.closed().is_some());
}

#[test]
fn no_more_streams_than_were_granted() {
    let mut peer = peer();
    for _ in 0..8 {
        peer.open();
    }
    assert_eq!(peer.mux.closed(), None);
    peer.open();
    assert_eq!(peer.closed_with(), PROTOCOL);
}

#[test]
fn connection_credit_bounds_what_has_not_been_announced() {
    let mut peer = peer();
    let ids: Vec<_> = (0..5).map(|_| peer.accepted()).collect();
    for &id in &ids[..4] {
        peer.send(data(id, 4096));
    }
    assert_eq!(peer.mux.closed(), None);
    // The machine could not say anything meanwhile, so nothing more was granted.
    peer.send(data(ids[4], 1));
    assert_eq!(peer.closed_with(), PROTOCOL);
}

#[test]
fn floods_are_borne_up_to_a_point() {
    let dead = own(0);
    let stopped = own(1);
    let floods: &[(&str, Frame)] = &[
        ("PING", Frame::Ping([1; 8])),
        ("PONG", Frame::Pong([1; 8])),
        ("empty DATA", data(peers(0), 0)),
        ("empty DATA of a stream that is stopped", data(stopped, 0)),
        ("empty DATA of a stream that is over", data(dead, 0)),
        ("DATA_FIN of a stream that is over", fin(dead)),
        ("DATA_FIN of a stream that is stopped", fin(stopped)),
        ("RESET of a stream that is over", reset(dead)),
        ("STOP of a stream that is over", stop(dead)),
        ("OPEN_ANSWER of a stream that is over", accept(dead)),
        (
            "MAX_STREAM_DATA of a stream that is over",
            max_stream_data(dead, 1 << 40),
        ),
        ("MAX_STREAM_DATA that grants nothing", max_stream_data(peers(0), 5)),
        ("MAX_DATA that grants nothing", max_data(5)),
        ("MAX_STREAMS that grants nothing", max_streams(5)),
        ("DRAIN", Frame::Drain(Default::default())),
    ];
    for (what, frame) in floods {
        let mut peer = peer();
        peer.open();
        assert_eq!(peer.opened(), dead);
        peer.release(dead);
        assert_eq!(peer.opened(), stopped);
        peer.mux.stop(peer.now, stopped, tunnel_proto::StreamCode::IDLE);
        peer.frames();
        let mut borne = 0;
        while peer.mux.closed().is_none() && borne < 100_000 {
            peer.send(frame.clone());
            let replies = peer.frames();
            assert!(replies.len() <= 1, "{what}: {replies:?}");
            borne += 1;
        }
        assert!((100..5000).contains(&borne), "{what}: {borne} were borne");
        let closed = matches!(peer.mux.closed(), Some(tunnel_proto::mux::CloseReason::Local { code, .. })
            if *code == CloseCode::FLOOD || what.contains("DATA_FIN") && *code == CloseCode::PROTOCOL);
        assert!(closed, "{what}: {:?}", peer.mux.closed());
    }
}

#[test]
fn credit_one_byte_at_a_time_wears_out() {
    for stream in [true, false] {
        let hello = Hello::new(8, 0, if stream { 1 << 40 } else { 0 });
        let mut peer = Peer::with_hello(config(), Budget::default(), hello);
        let id = peer.opened();
        if !stream {
            peer.send(max_stream_data(id, 1 << 40));
        }
        let mut bytes = Bytes::from(vec![7; 1 << 16]);
        let _ = peer.mux.write(peer.now, id, &mut bytes);
        for granted in 1..10_000 {
            if peer.mux.closed().is_some() {
                break;
            }
            peer.send(if stream {
                max_stream_data(id, granted)
            } else {
                max_data(granted)
            });
            let _ = peer.mux.write(peer.now, id, &mut bytes);
            peer.mux.poll_message(peer.now);
        }
        let closed = peer.mux.closed().cloned();
        assert!(
            matches!(
                closed,
                Some(tunnel_proto::mux::CloseReason::Local {
                    code: CloseCode::FLOOD,
                    ..
                })
            ),
            "{closed:?}"
        );
    }
}

#[test]
fn a_peer_that_ignores_stop_does_not_get_more_than_its_credit() {
    for forgotten in [true, false] {
        let mut peer = peer();
        let id = peer.accepted();
        peer.send(data(id, 96));
        peer.mux.stop(peer.now, id, tunnel_proto::StreamCode::IDLE);
        if forgotten {
            peer.release(id);
        }
        peer.frames();
        for _ in 0..4 {
            peer.send(data(id, 1000));
            peer.frames();
            assert_eq!(peer.mux.closed(), None);
        }
        assert_eq!(peer.budget.used(), 0);
        peer.send(data(id, 1));
        assert_eq!(peer.closed_with(), PROTOCOL);
    }
}

#[test]
fn unknown_frames_and_empty_messages_wear_out() {
    let mut peer = peer();
    // Kind 0x3f, no body.
    for _ in 0..4000 {
        peer.mux.handle_message(peer.now, Bytes::from_static(&[0x3f, 0]));
        if peer.mux.closed().is_some() {
            break;
        }
    }
    let at_once = Bytes::from([0x3f, 0].repeat(5000));
    peer.mux.handle_message(peer.now, at_once);
    assert_eq!(peer.closed_with(), FLOOD);
}

#[test]
fn garbage_is_refused() {
    // The last grants more streams than there can be.
    let more = &[0x19, 8, 0xd0, 0, 0, 0, 0, 0, 0, 1];
    for garbage in [
        &[][..],
        &[0x10],
        &[0x10, 0],
        &[0x01, 0],
        &[0x13, 0],
        &[0x1a, 1, 0],
        more,
    ] {
        let mut peer = peer();
        peer.mux.handle_message(peer.now, Bytes::from_static(garbage));
        assert_eq!(peer.closed_with(), PROTOCOL, "{garbage:?}");
    }
}

#[test]
fn pings_are_answered_and_many_at_once_are_not() {
    let mut peer = peer();
    for round in 0..10u8 {
        peer.send(Frame::Ping([round; 8]));
        assert_eq!(peer.frames(), [Frame::Pong([round; 8])]);
    }
    peer.send_all(vec![Frame::Ping([1; 8]); 17]);
    assert_eq!(peer.closed_with(), FLOOD);
}

#[test]
fn offsets_may_be_as_large_as_they_can_be_said() {
    let mut peer = Peer::with_hello(
        config(),
        Budget::default(),
        Hello::new(StreamId::MAX_COUNT, u64::MAX, u64::MAX),
    );
    let id = peer.opened();
    let most = VarInt::MAX.into_inner();
    peer.send_all([
        max_stream_data(id, most),
        max_data(most),
        max_streams(StreamId::MAX_COUNT),
    ]);
    let mut bytes = Bytes::from(vec![7; 1 << 20]);
    while peer.mux.write(peer.now, id, &mut bytes).is_ok() {}
    assert!(peer.budget.used() <= 128 * 1024, "{}", peer.budget.used());
    assert_eq!(peer.mux.closed(), None);
}

#[test]
fn a_rapid_reset_costs_no_memory_and_no_more_streams_than_allowed() {
    for lets_go in [true, false] {
        let budget = Budget::new(1 << 20);
        let mut peer = Peer::new(config(), budget.clone());
        let mut granted = 8;
        let (mut opened, mut at_work) = (0, 0);
        for _ in 0..20_000 {
            if opened == granted {
                break;
            }
            let id = peer.open();
            opened += 1;
            peer.send_all([reset(id), stop(id)]);
            for event in peer.events() {
                match event {
                    Event::Opened { .. } => at_work += 1,
                    Event::Cancelled { id } if lets_go => {
                        at_work -= 1;
                        peer.release(id);
                    }
                    _ => {}
                }
            }
            assert!(at_work <= 8 && peer.mux.closed().is_none(), "{:?}", peer.mux.closed());
            for frame in peer.frames() {
                if let Frame::MaxStreams { count } = frame {
                    granted = count.into_inner();
                }
            }
            assert_eq!(budget.used(), 0);
        }
        assert_eq!(opened, if lets_go { 20_000 } else { 8 });
    }
}

#[test]
fn a_peer_that_never_answers_or_grants_holds_little() {
    let budget = Budget::new(1 << 20);
    let mut peer = Peer::with_hello(config(), budget.clone(), Hello::new(100, 1000, 1500));
    let ids: Vec<_> = (0..100).map(|_| peer.mux.open(peer.now, &head()).unwrap()).collect();
    let mut bytes = Bytes::from(vec![7; 1 << 20]);
    for &id in &ids {
        while peer.mux.write(peer.now, id, &mut bytes).is_ok() {}
    }
    assert_eq!(budget.used(), 100_000);
    let sent: usize = peer
        .frames()
        .iter()
        .map(|frame| match frame {
            Frame::Data { payload, .. } => payload.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(sent, 1500);
    // The end of a stream takes no credit.
    for &id in &ids {
        peer.release(id);
    }
    peer.frames();
    assert_eq!((budget.used(), peer.mux.stats().streams_open), (0, 0));
}

#[test]
fn a_clean_end_needs_no_credit_of_the_connection() {
    let mut peer = Peer::with_hello(config(), Budget::default(), Hello::new(100, 1000, 0));
    let id = peer.opened();
    peer.mux.finish(peer.now, id).unwrap();
    assert_eq!(peer.frames(), [fin(id)]);
}
