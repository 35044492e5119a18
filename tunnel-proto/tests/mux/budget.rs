//! What happens when memory is short.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use tunnel_proto::{
    StreamCode,
    mux::{Budget, Config, Event, Frame, ReadError, WriteError},
};

use crate::peer::{Peer, data, fin, max_stream_data};

#[derive(Default)]
struct Calls(AtomicUsize);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Calls {
    fn of(peer: &Peer) -> Arc<Self> {
        let calls = Arc::new(Self::default());
        peer.mux.account().register(&Waker::from(Arc::clone(&calls)));
        calls
    }

    fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// A stream of the peer with so many unread bytes.
fn unread(peer: &mut Peer, bytes: usize) -> tunnel_proto::mux::StreamId {
    let id = peer.accepted();
    peer.frames();
    peer.send_all((0..bytes).step_by(8192).map(|at| data(id, 8192.min(bytes - at))));
    id
}

#[test]
fn a_writer_that_is_refused_room_is_not_woken_before_there_is_some() {
    let budget = Budget::new(128 * 1024);
    let mut hog = Peer::new(Config::default(), budget.clone());
    let mut peer = Peer::new(Config::default(), budget.clone());
    let held: Vec<_> = (0..2).map(|_| unread(&mut hog, 59_000)).collect();
    let id = peer.accepted();
    let calls = Calls::of(&peer);
    let mut writes = 0;
    let mut bytes = vec![7; 1 << 20].into();
    loop {
        match peer.mux.write(peer.now, id, &mut bytes) {
            Ok(_) => {}
            Err(error) => assert_eq!(error, WriteError::Blocked),
        }
        writes += 1;
        peer.mux.reclaim(peer.now);
        if !peer.events().contains(&Event::Writable { id }) {
            break;
        }
        assert!(writes < 100, "it is woken for nothing");
    }
    assert!(budget.used() <= budget.limit());
    calls.take();
    hog.release(held[0]);
    assert_eq!(calls.take(), 1);
    peer.mux.reclaim(peer.now);
    assert_eq!(peer.events(), [Event::Writable { id }]);
    assert!(peer.mux.write(peer.now, id, &mut bytes).unwrap() > 0);
}

#[test]
fn writers_leave_room_for_what_is_on_its_way_here() {
    let budget = Budget::new(1 << 20);
    let mut peer = Peer::new(Config::default(), budget.clone());
    let ids: Vec<_> = (0..100).map(|_| peer.accepted()).collect();
    for &id in &ids {
        let _ = peer.mux.write(peer.now, id, &mut vec![7; 1 << 20].into());
    }
    let id = peer.accepted();
    peer.send(data(id, 10_000));
    assert_eq!(peer.mux.stats().streams_reclaimed, 0);
    assert!(peer.mux.read(peer.now, id, 10_000).is_ok());
}

#[test]
fn streams_that_nobody_reads_are_reset_wherever_they_are() {
    let budget = Budget::new(1 << 20);
    let mut stalled: Vec<_> = (0..4).map(|_| Peer::new(Config::default(), budget.clone())).collect();
    let mut largest = Peer::new(Config::default(), budget.clone());
    for peer in &mut stalled {
        for _ in 0..3 {
            unread(peer, 50_000);
        }
    }
    // Nobody is large enough, and nobody has been away for long enough, when the budget first asks.
    let _active: Vec<_> = (0..6).map(|_| unread(&mut largest, 60_000)).collect();
    let mut writer = Peer::new(Config::default(), budget.clone());
    let mut bytes = vec![7; 1 << 20].into();
    let id = loop {
        let id = writer.accepted();
        if writer.mux.write(writer.now, id, &mut bytes).is_err() {
            break id;
        }
    };
    assert!(budget.used() > budget.limit() / 8 * 7, "{}", budget.used());
    for _ in 0..4 {
        let mut peers: Vec<_> = stalled.iter_mut().chain([&mut largest, &mut writer]).collect();
        for peer in &mut peers {
            peer.mux.reclaim(peer.now);
            peer.later(Duration::from_millis(600));
        }
    }
    assert!(
        budget.used() <= budget.limit() / 4 * 3,
        "{} is still held",
        budget.used()
    );
    writer.mux.reclaim(writer.now);
    assert!(writer.events().contains(&Event::Writable { id }));
}

#[test]
fn whoever_was_away_longest_goes_first() {
    let budget = Budget::new(200_000);
    let mut peer = Peer::new(Config::default(), budget.clone());
    let ids: Vec<_> = (0..3)
        .map(|_| {
            peer.later(Duration::from_millis(100));
            unread(&mut peer, 60_000)
        })
        .collect();
    peer.events();
    // The first has been read since.
    assert!(peer.mux.read(peer.now, ids[0], 1000).unwrap().is_some());
    peer.later(Duration::from_millis(100));
    let newest = unread(&mut peer, 40_000);
    let reclaimed = Some(ReadError::Stopped(StreamCode::MEMORY));
    let ended = ids.iter().chain([&newest]).map(|id| peer.mux.recv_ended(*id));
    assert_eq!(ended.collect::<Vec<_>>(), [None, reclaimed, None, None]);
    assert!(peer.events().contains(&Event::RecvEnded { id: ids[1] }));
    assert!(peer.frames().contains(&Frame::Stop {
        id: ids[1],
        code: StreamCode::MEMORY
    }));
    assert_eq!(peer.mux.stats().streams_reclaimed, 1);
    // Its end may be on its way still.
    peer.send(fin(ids[1]));
    assert_eq!(peer.mux.closed(), None);
}

#[test]
fn a_blocked_writer_is_noted_once() {
    let budget = Budget::new(1 << 16);
    let mut hog = Peer::new(Config::default(), budget.clone());
    unread(&mut hog, 62_000);
    let mut peer = Peer::new(Config::default(), budget.clone());
    let id = peer.opened();
    peer.send(max_stream_data(id, 1 << 30));
    let mut bytes = vec![7; 1 << 20].into();
    for _ in 0..1000 {
        let _ = peer.mux.write(peer.now, id, &mut bytes);
    }
    assert_eq!(peer.mux.write(peer.now, id, &mut bytes), Err(WriteError::Blocked));
    peer.mux.reclaim(peer.now);
    drop(hog);
    peer.events();
    peer.mux.reclaim(peer.now);
    assert_eq!(peer.events(), [Event::Writable { id }]);
}

#[test]
fn nothing_is_held_once_the_connection_has_ended_and_everything_is_let_go() {
    let budget = Budget::default();
    let mut peer = Peer::new(Config::default(), budget.clone());
    let waiting = peer.open();
    let read = unread(&mut peer, 20_000);
    peer.mux.write(peer.now, read, &mut "queued".into()).unwrap();
    peer.mux.handle_link_closed(peer.now);
    assert_eq!(budget.used(), 20_000, "it can still be read");
    assert_eq!(peer.mux.read(peer.now, read, 5000).unwrap().unwrap().len(), 5000);
    peer.release(waiting);
    peer.release(read);
    assert_eq!(
        (budget.used(), peer.frames(), peer.mux.poll_timeout()),
        (0, vec![], None)
    );
}
