//! Streams that move bulk wait for each other, and nobody waits for who does not come.

use bytes::Bytes;
use proptest::prelude::*;
use tunnel_proto::{
    CloseCode, TraceContext,
    mux::{Budget, Config, Event, Frame, Frames, StreamId, WriteError},
};

use crate::{model::head, peer::Peer};

const KIB: usize = 1024;
/// From so many queued bytes on streams wait, and what each is called for.
const MOST: usize = 512 * KIB;
const PIECE: usize = 64 * KIB;
/// What is taken of a stream that has sent little.
const FRESH: usize = 16 * KIB;

/// How a writer behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// It offers what it has.
    Offers,
    /// It asks before it fetches what it has.
    Asks,
    /// It asks, and fetches nothing when it is told.
    Wavers,
    /// It gives up when it has to wait.
    Leaves,
}

#[derive(Debug)]
struct Writer {
    id: StreamId,
    manner: Manner,
    left: usize,
    waits: bool,
    sent: usize,
}

struct World {
    peer: Peer,
    writers: Vec<Writer>,
}

impl World {
    fn new(writers: impl IntoIterator<Item = (Manner, usize)>) -> Self {
        let mut peer = Peer::new(Config::default(), Budget::new(1 << 40));
        let writers = writers.into_iter().map(|(manner, left)| Writer {
            id: peer.opened(),
            manner,
            left,
            waits: false,
            sent: 0,
        });
        let writers = writers.collect();
        peer.events();
        Self { peer, writers }
    }

    fn queued(&self) -> usize {
        usize::try_from(self.peer.mux.stats().buffered).unwrap()
    }

    /// Lets everybody write who need not wait. Gives how many bytes were taken.
    fn write(&mut self) -> usize {
        let peer = &mut self.peer;
        let mut taken = 0;
        for writer in &mut self.writers {
            while writer.left > 0 && !writer.waits {
                let offered = match writer.manner {
                    Manner::Offers | Manner::Leaves => Ok(100 * KIB),
                    Manner::Asks | Manner::Wavers => peer.mux.room(writer.id),
                };
                if writer.manner == Manner::Wavers {
                    writer.waits = true;
                    break;
                }
                let written = offered.and_then(|offered| {
                    let mut data = Bytes::from(vec![7; offered.min(writer.left)]);
                    peer.mux.write(peer.now, writer.id, &mut data)
                });
                match written {
                    Ok(count) => {
                        writer.left -= count;
                        taken += count;
                    }
                    Err(WriteError::Blocked) if writer.manner == Manner::Leaves && writer.sent > 0 => writer.left = 0,
                    Err(WriteError::Blocked) => writer.waits = true,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        taken
    }

    /// Sends a message, if there is one. Gives how many bytes of streams are in it.
    fn send(&mut self) -> usize {
        let Some(message) = self.peer.mux.poll_message(self.peer.now) else {
            return 0;
        };
        let mut sent = 0;
        for frame in Frames::new(message.into_bytes()) {
            if let Frame::Data { id, payload, .. } = frame.unwrap() {
                sent += payload.len();
                self.writers.iter_mut().find(|writer| writer.id == id).unwrap().sent += payload.len();
            }
        }
        sent
    }

    /// A message goes out so many times, and everybody writes before and is told afterwards.
    fn go_on(&mut self, times: usize) {
        for _ in 0..times {
            self.write();
            self.send();
            self.hear();
        }
    }

    fn hear(&mut self) {
        for event in self.peer.events() {
            if let Event::Writable { id } = event {
                let writer = self.writers.iter_mut().find(|writer| writer.id == id).unwrap();
                // Who wavers is told, and does not come.
                writer.waits = writer.manner == Manner::Wavers;
            }
        }
    }
}

#[test]
fn what_waits_is_bounded_and_shared() {
    for manner in [Manner::Offers, Manner::Asks] {
        let mut world = World::new((0..200).map(|_| (manner, 1 << 30)));
        for _ in 0..2000 {
            world.write();
            assert!(world.queued() <= MOST + 128 * KIB + 200 * FRESH, "{}", world.queued());
            world.send();
            world.hear();
        }
        // The first 16 KiB of each are gone by now.
        assert!(world.queued() <= MOST + 128 * KIB, "{manner:?}: {}", world.queued());
        let sent = || world.writers.iter().map(|writer| writer.sent);
        let (least, most) = (sent().min().unwrap(), sent().max().unwrap());
        assert!(least > 0 && most - least <= 3 * PIECE, "{manner:?}: {least} and {most}");
    }
}

#[test]
fn a_piece_goes_into_one_message() {
    let mut world = World::new((0..100).map(|_| (Manner::Asks, 1 << 30)));
    world.go_on(300);
    let small = world.peer.opened();
    for _ in 0..100 {
        world.write();
        let mut data = Bytes::from(vec![1; 100]);
        world.peer.mux.write(world.peer.now, small, &mut data).unwrap();
        let message = world.peer.mux.poll_message(world.peer.now).unwrap();
        for frame in Frames::new(message.into_bytes()) {
            if let Frame::Data { id, payload, .. } = frame.unwrap() {
                assert_eq!(payload.len(), if id == small { 100 } else { PIECE });
            }
        }
        world.hear();
    }
}

#[test]
fn a_message_is_never_too_long() {
    let mut peer = Peer::new(Config::default(), Budget::new(1 << 40));
    // So many streams that their names take four bytes.
    for _ in 0..8300 {
        peer.opened();
    }
    let (bulk, second) = (peer.opened(), peer.opened());
    let small: Vec<_> = (0..511).map(|_| peer.opened()).collect();
    let write = |peer: &mut Peer, id, len| {
        let mut data = Bytes::from(vec![1; len]);
        peer.mux.write(peer.now, id, &mut data).unwrap();
    };
    write(&mut peer, bulk, 128 * KIB);
    write(&mut peer, second, 128 * KIB);
    peer.mux.poll_message(peer.now).unwrap();
    peer.mux.poll_message(peer.now).unwrap();
    // Heads of all sizes, small streams up to the last of which there is room for a piece, and the piece.
    for size in [2 * KIB, 12 * KIB, 12 * KIB] {
        let mut head = head();
        for number in 0..size / KIB {
            assert!(head.metadata.push(&format!("name-{number:02}"), &"v".repeat(KIB - 12)));
        }
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        head.trace = Some(TraceContext::new(parent, &"a=b,".repeat(127)).unwrap());
        peer.mux.open(peer.now, &head).unwrap();
    }
    peer.mux.drain(peer.now, "x".repeat(KIB).as_str().into());
    write(&mut peer, bulk, 128 * KIB);
    for id in small {
        write(&mut peer, id, 64);
    }
    // It looks at the length of each.
    let sent = peer.frames();
    let data = sent.iter().filter(|frame| matches!(frame, Frame::Data { .. })).count();
    assert!(data > 511, "{data}");
}

#[test]
fn who_waits_for_memory_keeps_nobody_waiting() {
    let budget = Budget::new(64 << 20);
    let mut world = World::new((0..14).map(|_| (Manner::Asks, 1 << 30)));
    world.peer = Peer::new(Config::default(), budget.clone());
    for writer in &mut world.writers {
        writer.id = world.peer.opened();
    }
    world.peer.events();
    let other = budget.account();
    for round in 0..400 {
        // Now there is little memory, now there is much.
        match round % 10 {
            0 => other.charge(40 << 20).unwrap(),
            4 => other.release(40 << 20),
            _ => {}
        }
        world.go_on(1);
    }
    for _ in 0..40 {
        world.write();
        assert!(world.queued() >= MOST - 2 * PIECE, "{}", world.queued());
        world.send();
        world.hear();
    }
}

#[test]
fn the_end_of_the_connection_is_the_end_of_the_line() {
    let mut world = World::new((0..14).map(|_| (Manner::Asks, 1 << 30)));
    world.write();
    assert!(world.writers.iter().all(|writer| writer.waits));
    world
        .peer
        .mux
        .close(world.peer.now, CloseCode::SHUTDOWN, Default::default());
    for writer in &world.writers {
        assert_eq!(world.peer.mux.room(writer.id), Err(WriteError::Closed));
        world.peer.release(writer.id);
    }
    assert_eq!(world.queued(), 0);
}

#[test]
fn who_sends_little_does_not_wait() {
    let mut world = World::new((0..100).map(|_| (Manner::Offers, 1 << 30)));
    world.go_on(200);
    let id = world.peer.opened();
    for _ in 0..100 {
        world.write();
        assert!(world.peer.mux.room(id).unwrap() >= FRESH / 2);
        let mut data = Bytes::from(vec![1; 100]);
        assert_eq!(world.peer.mux.write(world.peer.now, id, &mut data), Ok(100));
        let message = world.peer.mux.poll_message(world.peer.now).unwrap().into_bytes();
        let mut frames = Frames::new(message);
        let first = frames.find_map(|frame| match frame.unwrap() {
            Frame::Data { id, .. } => Some(id),
            _ => None,
        });
        assert_eq!(first, Some(id));
        world.hear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever others do, who has bytes gets rid of them.
    #[test]
    fn nobody_waits_for_ever(
        manners in prop::collection::vec((0_u8..8, 1_usize..2000), 1..60),
        messages in 1_usize..6,
    ) {
        let manner = |kind| match kind {
            0..3 => Manner::Offers,
            3..6 => Manner::Asks,
            6 => Manner::Wavers,
            _ => Manner::Leaves,
        };
        let mut world = World::new(manners.iter().map(|(kind, kib)| (manner(*kind), kib * KIB)));
        loop {
            let taken = world.write();
            let sent: usize = (0..messages).map(|_| world.send()).sum();
            world.hear();
            if taken + sent == 0 && !world.peer.mux.wants_send() {
                break;
            }
        }
        // Who was called last has written nothing yet.
        while world.write() > 0 {
            while world.send() > 0 {}
            world.send();
            world.hear();
        }
        for writer in &world.writers {
            let is_patient = matches!(writer.manner, Manner::Offers | Manner::Asks);
            prop_assert!(!is_patient || writer.left == 0, "{:?}", writer);
        }
        prop_assert_eq!(world.queued(), 0);
    }
}
