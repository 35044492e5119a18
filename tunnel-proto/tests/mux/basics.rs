//! What two ends do for each other when all goes well, and when one of them ends something.

use std::time::Duration;

use tunnel_proto::{
    Answer, CloseCode, Keepalive, Refusal, RefusalKind, StreamCode,
    mux::{CloseReason, Config, Event, OpenBlocked, ReadError, Side, Windows, WriteError},
};

use crate::{
    model::head,
    pair::{Link, Pair},
};

fn pair() -> Pair {
    let mut pair = Pair::new(Config::default(), Link::default());
    pair.settle();
    pair
}

#[test]
fn bytes_and_the_clean_end_arrive_in_both_directions() {
    for opener in [Side::Agent, Side::Server] {
        let mut pair = pair();
        let id = pair.stream(opener);
        for side in [opener, opener.peer()] {
            let now = pair.now;
            assert_eq!(pair.write(side, id, b"hello"), Ok(5));
            pair.mux(side).finish(now, id).unwrap();
            pair.settle();
            assert_eq!(pair.read(side.peer(), id), Ok((b"hello".to_vec(), true)));
            assert_eq!(pair.write(side, id, b"more"), Err(WriteError::Finished));
        }
        for side in [Side::Agent, Side::Server] {
            let stats = pair.mux(side).stats();
            assert_eq!((stats.bytes_sent, stats.bytes_received, stats.streams_open), (5, 5, 0));
            assert_eq!(stats.buffered, 0);
        }
    }
}

#[test]
fn a_refusal_arrives_whole_and_ends_the_stream() {
    let mut pair = pair();
    let now = pair.now;
    let id = pair.mux(Side::Server).open(now, &head()).unwrap();
    pair.settle();
    let refusal = Refusal::new(RefusalKind::ConnectionRefused, "10.0.0.7:443 refused the connection");
    let answer = Answer::Refused(refusal);
    pair.mux(Side::Agent).answer(now, id, &answer);
    assert!(pair.events(Side::Server).contains(&Event::Answered { id, answer }));
    for side in [Side::Agent, Side::Server] {
        assert_eq!(pair.mux(side).stats().streams_open, 0);
    }
}

#[test]
fn whoever_ends_a_half_tells_the_other_also_without_credit() {
    let config = Config::builder().stream_window(Windows::fixed(4096)).build().unwrap();
    let mut pair = Pair::new(config, Link::default());
    pair.settle();
    let id = pair.stream(Side::Server);
    let now = pair.now;
    assert_eq!(pair.write(Side::Server, id, &[7; 9999]), Ok(4096));
    pair.settle();
    pair.mux(Side::Server).reset(now, id, StreamCode::TARGET_RESET);
    assert!(pair.events(Side::Agent).contains(&Event::RecvEnded { id }));
    assert_eq!(
        pair.read(Side::Agent, id),
        Err(ReadError::Reset(StreamCode::TARGET_RESET))
    );
    assert_eq!(pair.write(Side::Agent, id, &[7; 9999]), Ok(4096));
    pair.settle();
    pair.mux(Side::Server).stop(now, id, StreamCode::IDLE);
    assert!(pair.events(Side::Agent).contains(&Event::Stopped { id }));
    assert_eq!(
        pair.write(Side::Agent, id, b"x"),
        Err(WriteError::Stopped(StreamCode::IDLE))
    );
    for side in [Side::Agent, Side::Server] {
        let stats = pair.mux(side).stats();
        assert_eq!((stats.streams_open, stats.buffered), (0, 0));
    }
}

#[test]
fn places_come_back_when_the_acceptor_has_let_go() {
    let config = Config::builder().max_streams(2).build().unwrap();
    let mut pair = Pair::new(config, Link::default());
    pair.settle();
    let (first, _second) = (pair.stream(Side::Server), pair.stream(Side::Server));
    let now = pair.now;
    assert_eq!(pair.mux(Side::Server).open(now, &head()), Err(OpenBlocked::Limit));
    pair.mux(Side::Server).release_send(now, first);
    pair.mux(Side::Server).release_recv(now, first);
    pair.settle();
    assert_eq!(pair.mux(Side::Server).open(now, &head()), Err(OpenBlocked::Limit));
    pair.mux(Side::Agent).release_send(now, first);
    pair.mux(Side::Agent).release_recv(now, first);
    assert!(pair.events(Side::Server).contains(&Event::Available));
    pair.stream(Side::Server);
}

#[test]
fn an_abandoned_open_leaves_nothing() {
    let mut pair = pair();
    for _ in 0..10_000 {
        let now = pair.now;
        let id = pair.mux(Side::Server).open(now, &head()).unwrap();
        pair.mux(Side::Server).release_send(now, id);
        pair.mux(Side::Server).release_recv(now, id);
        let events = pair.events(Side::Agent);
        assert!(events.contains(&Event::Cancelled { id }), "{events:?}");
        pair.mux(Side::Agent).release_send(now, id);
        pair.mux(Side::Agent).release_recv(now, id);
        pair.settle();
    }
    for side in [Side::Agent, Side::Server] {
        let stats = pair.mux(side).stats();
        assert_eq!(
            (stats.streams_open, stats.buffered, stats.credit_outstanding),
            (0, 0, 0)
        );
        assert_eq!(pair.mux(side).closed(), None);
    }
}

#[test]
fn a_drain_lets_streams_finish_and_then_closes() {
    let mut pair = pair();
    let id = pair.stream(Side::Server);
    let now = pair.now;
    pair.mux(Side::Server).drain(now, "going".into());
    assert!(pair.events(Side::Agent).contains(&Event::Draining));
    for side in [Side::Agent, Side::Server] {
        assert_eq!(pair.mux(side).open(now, &head()), Err(OpenBlocked::Draining));
        assert_eq!(pair.write(side, id, b"last"), Ok(4));
        pair.mux(side).finish(now, id).unwrap();
    }
    pair.settle();
    assert_eq!(pair.read(Side::Server, id), Ok((b"last".to_vec(), true)));
    assert_eq!(pair.mux(Side::Server).closed(), None);
    assert_eq!(pair.read(Side::Agent, id), Ok((b"last".to_vec(), true)));
    pair.settle();
    for side in [Side::Agent, Side::Server] {
        let (CloseReason::Local { code, .. } | CloseReason::Remote { code, .. }) = pair.mux(side).closed().unwrap()
        else {
            panic!("{:?}", pair.mux(side).closed());
        };
        assert_eq!(*code, CloseCode::DRAINED);
    }
}

#[test]
fn what_came_before_a_close_can_be_read() {
    let mut pair = pair();
    let id = pair.stream(Side::Server);
    pair.write(Side::Server, id, b"early").unwrap();
    pair.settle();
    let now = pair.now;
    pair.mux(Side::Server).close(now, CloseCode::SHUTDOWN, "bye".into());
    assert!(pair.events(Side::Agent).contains(&Event::Closed));
    let reason = CloseReason::Remote {
        code: CloseCode::SHUTDOWN,
        text: "bye".into(),
    };
    assert_eq!(pair.mux(Side::Agent).closed(), Some(&reason));
    assert_eq!(pair.mux(Side::Agent).read(now, id, 99), Ok(Some("early".into())));
    assert_eq!(pair.mux(Side::Agent).read(now, id, 99), Err(ReadError::Closed));
    assert_eq!(pair.write(Side::Agent, id, b"x"), Err(WriteError::Closed));
    assert_eq!(pair.mux(Side::Agent).stats().streams_open, 0);
}

#[test]
fn a_silent_peer_is_noticed_and_a_living_one_is_not_killed() {
    let keepalive = Keepalive {
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
    };
    let config = Config::builder().keepalive(keepalive).build().unwrap();
    let link = Link {
        latency: Duration::from_millis(100),
        ..Link::default()
    };
    let mut pair = Pair::new(config, link);
    pair.run(Duration::from_secs(100));
    assert_eq!((pair.agent.mux.closed(), pair.server.mux.closed()), (None, None));
    assert_eq!(pair.agent.mux.stats().rtt, Some(Duration::from_millis(200)));
    let until = pair.now + Duration::from_millis(3100);
    while pair.now < until {
        pair.lose();
        pair.step(until.min(pair.now + Duration::from_millis(50)));
    }
    let silent = CloseReason::Silent {
        after: Duration::from_secs(3),
    };
    assert_eq!(pair.agent.mux.closed(), Some(&silent));
    assert_eq!(pair.server.mux.closed(), Some(&silent));
}

#[test]
fn one_stream_fills_a_long_fat_path() {
    let link = Link {
        latency: Duration::from_millis(30),
        bandwidth: Some(125_000_000),
        ..Link::default()
    };
    let mut pair = Pair::new(Config::default(), link);
    let id = pair.stream(Side::Server);
    let chunk = vec![1; 64 * 1024];
    let mut received = 0;
    let (warm, end) = (pair.now + Duration::from_secs(2), pair.now + Duration::from_secs(4));
    while pair.now < end {
        while pair.write(Side::Server, id, &chunk).unwrap() > 0 {}
        pair.step(end);
        let (bytes, _) = pair.read(Side::Agent, id).unwrap();
        if pair.now > warm {
            received += bytes.len();
        }
    }
    assert!(received > 225_000_000, "{received} of 250,000,000");
}
