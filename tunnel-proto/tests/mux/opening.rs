//! How streams begin, and what becomes of those that never did.

use tunnel_proto::{
    Answer, CloseCode, StreamCode,
    mux::{Budget, Config, Event, Frame, OpenBlocked, ReadError, Side, WriteError},
};

use crate::{
    model::head,
    pair::{Link, Pair},
    peer::{Peer, data, fin, reset, stop},
};

fn peer() -> Peer {
    Peer::new(Config::default(), Budget::default())
}

fn frames_of(frames: &[Frame]) -> Vec<&'static str> {
    let name = |frame: &Frame| match frame {
        Frame::Open { .. } => "OPEN",
        Frame::Answer { .. } => "OPEN_ANSWER",
        Frame::Data { .. } => "DATA",
        Frame::Reset { .. } => "RESET",
        Frame::Stop { .. } => "STOP",
        Frame::MaxStreamData { .. } => "MAX_STREAM_DATA",
        Frame::Drain(_) => "DRAIN",
        _ => "other",
    };
    frames.iter().map(name).collect()
}

#[test]
fn a_stream_that_is_let_go_without_an_answer_leaves_nothing() {
    let config = Config::builder().max_streams(3).max_pending(2).build().unwrap();
    let mut peer = Peer::new(config, Budget::default());
    for _ in 0..10 {
        let id = peer.open();
        assert!(peer.budget.used() > 0);
        peer.release(id);
        assert_eq!(peer.budget.used(), 0);
        let frames = peer.frames();
        assert_eq!(frames_of(&frames)[..1], ["RESET"], "{frames:?}");
        assert!(frames.contains(&Frame::Reset {
            id,
            code: StreamCode::CANCELLED
        }));
        let events = peer.events();
        assert!(matches!(events[..], [Event::Opened { .. }]), "{events:?}");
    }
    assert_eq!((peer.mux.closed(), peer.mux.stats().streams_open), (None, 0));
}

#[test]
fn an_acceptor_that_ends_before_its_answer_never_answers() {
    let mut peer = peer();
    let id = peer.open();
    peer.mux.reset(peer.now, id, StreamCode::IDLE);
    peer.mux.answer(peer.now, id, &Answer::Accepted);
    assert_eq!(peer.mux.recv_ended(id), Some(ReadError::Stopped(StreamCode::IDLE)));
    assert_eq!(peer.mux.stats().streams_open, 0);
    let frames = peer.frames();
    assert!(!frames_of(&frames).contains(&"OPEN_ANSWER"), "{frames:?}");
    peer.release(id);
    assert_eq!((peer.budget.used(), peer.mux.stats().streams_accepted), (0, 0));
}

#[test]
fn an_acceptor_that_finishes_early_sends_its_answer_first() {
    let mut peer = peer();
    let id = peer.open();
    assert_eq!(peer.mux.write(peer.now, id, &mut "x".into()), Err(WriteError::Blocked));
    peer.mux.finish(peer.now, id).unwrap();
    assert_eq!(frames_of(&peer.frames()), ["MAX_STREAM_DATA"]);
    peer.mux.answer(peer.now, id, &Answer::Accepted);
    assert_eq!(frames_of(&peer.frames()), ["OPEN_ANSWER", "DATA"]);
}

#[test]
fn an_opener_that_resets_before_the_answer_gives_up_the_whole_stream() {
    let mut peer = peer();
    let id = peer.mux.open(peer.now, &head()).unwrap();
    peer.mux.reset(peer.now, id, StreamCode::IDLE);
    assert_eq!(frames_of(&peer.frames()), ["OPEN", "RESET", "STOP"]);
    assert_eq!(
        peer.mux.read(peer.now, id, 1),
        Err(ReadError::Stopped(StreamCode::IDLE))
    );
    assert_eq!(peer.mux.stats().streams_open, 0);
    let answer = Answer::Accepted;
    peer.send(Frame::Answer { id, answer });
    assert_eq!((peer.events(), peer.mux.closed()), (vec![], None));
}

#[test]
fn an_opener_that_has_finished_can_still_give_up() {
    for acceptor_stops in [false, true] {
        let mut peer = peer();
        let id = peer.open();
        if acceptor_stops {
            peer.mux.stop(peer.now, id, StreamCode::IDLE);
        }
        peer.send(fin(id));
        peer.events();
        peer.send_all([reset(id), stop(id)]);
        assert_eq!(peer.events(), [Event::Cancelled { id }]);
        assert_eq!((peer.budget.used(), peer.mux.stats().streams_open), (0, 0));
        peer.mux.answer(peer.now, id, &Answer::Accepted);
        peer.release(id);
        assert!(!frames_of(&peer.frames()).contains(&"OPEN_ANSWER"));
    }
}

#[test]
fn a_reset_instead_of_an_answer_reaches_an_opener_that_stopped_its_other_half() {
    let mut peer = peer();
    let id = peer.mux.open(peer.now, &head()).unwrap();
    peer.mux.stop(peer.now, id, StreamCode::IDLE);
    peer.send_all([reset(id), stop(id)]);
    let code = StreamCode::TARGET_RESET;
    assert_eq!(peer.events(), [Event::Unanswered { id, code }]);
    assert_eq!(peer.mux.stats().streams_open, 0);
}

#[test]
fn a_drain_does_not_overtake_the_streams_that_were_opened_before_it() {
    let mut pair = Pair::new(Config::default(), Link::default());
    pair.settle();
    let now = pair.now;
    for _ in 0..2000 {
        pair.mux(Side::Server).open(now, &head()).unwrap();
    }
    pair.mux(Side::Server).drain(now, "going".into());
    let events = pair.events(Side::Agent);
    let opened = events.iter().filter(|event| matches!(event, Event::Opened { .. }));
    assert_eq!(opened.count(), 2000);
    assert_eq!(events.last(), Some(&Event::Draining));
    assert_eq!((pair.agent.mux.closed(), pair.server.mux.closed()), (None, None));
}

#[test]
fn opens_wait_while_the_link_is_stuck() {
    let mut peer = peer();
    let mut count = 0;
    let blocked = loop {
        match peer.mux.open(peer.now, &head()) {
            Ok(id) => {
                count += 1;
                peer.release(id);
            }
            Err(blocked) => break blocked,
        }
        assert!(count < 1 << 18, "nothing bounds it");
    };
    assert_eq!(blocked, OpenBlocked::Limit);
    assert!(count > 5000, "{count}");
    assert_eq!(peer.events(), []);
    peer.frames();
    assert_eq!(peer.events(), [Event::Available]);
    peer.mux.open(peer.now, &head()).unwrap();
}

#[test]
fn whom_the_acceptor_answers_after_a_drain_it_may_still_serve() {
    let mut peer = peer();
    let id = peer.open();
    peer.mux.drain(peer.now, "going".into());
    peer.mux.answer(peer.now, id, &Answer::Accepted);
    let late = peer.accepted();
    peer.send(Frame::Drain(Default::default()));
    peer.frames();
    for id in [id, late] {
        peer.send_all([fin(id), stop(id)]);
        assert_eq!(peer.mux.closed(), None);
    }
    assert_eq!(peer.mux.closed(), None, "the close is still to be sent");
    assert!(matches!(
        peer.frames()[..],
        [Frame::Close {
            code: CloseCode::DRAINED,
            ..
        }]
    ));
}

#[test]
fn halves_that_are_stopped_from_both_ends_before_an_answer_end_the_stream() {
    let mut peer = peer();
    let id = peer.open();
    peer.send(stop(id));
    assert!(peer.events().contains(&Event::Stopped { id }));
    peer.release(id);
    assert_eq!((peer.budget.used(), peer.mux.stats().streams_open), (0, 0));
    let id = peer.mux.open(peer.now, &head()).unwrap();
    peer.mux.stop(peer.now, id, StreamCode::IDLE);
    peer.send(stop(id));
    let code = StreamCode::TARGET_RESET;
    assert_eq!(peer.events(), [Event::Unanswered { id, code }]);
    let answer = Answer::Accepted;
    peer.send(Frame::Answer { id, answer });
    assert_eq!(peer.mux.closed(), None);
}

#[test]
fn a_clean_end_behind_a_stop_gives_up_the_stream() {
    let mut peer = peer();
    let id = peer.open();
    peer.send_all([data(id, 100), stop(id)]);
    peer.events();
    peer.send(fin(id));
    assert_eq!(peer.events(), [Event::Cancelled { id }]);
    assert_eq!(peer.budget.used(), 0);
}

#[test]
fn nothing_is_said_behind_the_end_of_the_connection() {
    let mut peer = peer();
    let id = peer.mux.open(peer.now, &head()).unwrap();
    assert_eq!(peer.mux.read(peer.now, id, 1), Err(ReadError::Blocked));
    peer.mux.close(peer.now, CloseCode::SHUTDOWN, "going".into());
    assert_eq!(peer.events(), [Event::Closed]);
    peer.release(id);
    assert_eq!(peer.events(), []);
}
