//! What comes in.

use tokio::join;

use super::*;

const ROLES: [Role; 2] = [Role::Client, Role::Server];

#[tokio::test(start_paused = true)]
async fn messages_arrive_whole_however_they_are_cut() {
    for role in ROLES {
        for len in [0_usize, 1, 125, 126, 1025, 65535, 65536, 131_072] {
            for room in [len.div_ceil(1000), 200_000].map(|room| room.max(1)) {
                let (mut link, mut peer) = pair(role, room);
                let payload = bytes(len);
                let middle = len / 2;
                let peer = async {
                    peer.send(FIN | BINARY, &payload).await;
                    peer.send(BINARY, &payload[..middle]).await;
                    peer.send(FIN | PING, b"amid").await;
                    peer.send(CONTINUATION, b"").await;
                    peer.send(FIN | CONTINUATION, &payload[middle..]).await;
                    assert_eq!(peer.recv().await.unwrap(), (FIN | PONG, b"amid".to_vec()));
                };
                let link = async {
                    for _ in 0..2 {
                        assert_eq!(recv(&mut link).await.unwrap().unwrap(), payload);
                    }
                    stays_quiet(&mut link).await;
                };
                join!(peer, link);
            }
        }
    }
}

/// The buffer for reading is given back between messages; a message that has begun must not go with it.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_around_long_messages() {
    let long = bytes(70_000);
    for role in ROLES {
        for parts in 1..4 {
            for known in 0..18 {
                let (mut link, mut peer) = pair(role, 200_000);
                let pieces: Vec<_> = long.chunks(long.len().div_ceil(parts)).collect();
                for (at, piece) in pieces.iter().enumerate() {
                    let opcode = if at == 0 { BINARY } else { CONTINUATION };
                    let fin = if at == parts - 1 { FIN } else { 0 };
                    peer.send(fin | opcode, piece).await;
                }
                let next = frame(FIN | BINARY, peer.masks, b"the next message");
                let (begun, rest) = next.split_at(known);
                peer.send_raw(begun).await;
                assert_eq!(recv(&mut link).await.unwrap().unwrap(), long);
                stays_quiet(&mut link).await;
                peer.send_raw(rest).await;
                assert_eq!(recv(&mut link).await.unwrap().unwrap(), &b"the next message"[..]);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_with_the_handshake_is_read_first() {
    let (near, far) = duplex(1000);
    let mut peer = Peer { pipe: far, masks: true };
    let whole = frame(FIN | BINARY, true, b"early");
    let (ahead, behind) = whole.split_at(4);
    let mut link = WsLink::new(Box::new(near), ahead, Role::Server);
    peer.send_raw(behind).await;
    assert_eq!(recv(&mut link).await.unwrap().unwrap(), &b"early"[..]);
}

#[tokio::test(start_paused = true)]
async fn a_short_message_does_not_keep_the_buffer_it_was_read_into() {
    for role in ROLES {
        let (mut link, mut peer) = pair(role, 100_000);
        let sent = [5, 1000, READ_BUFFER / 2 - 1].map(bytes);
        for payload in &sent {
            peer.send(FIN | BINARY, payload).await;
        }
        for payload in &sent {
            let message = recv(&mut link).await.unwrap().unwrap();
            assert_eq!(message, payload);
            assert!(message.is_unique(), "{} bytes share their buffer", payload.len());
        }
    }
}

/// A peer may leave out pongs to all pings but the latest (RFC 6455 §5.5.3).
#[tokio::test(start_paused = true)]
async fn the_latest_ping_is_always_answered() {
    for role in ROLES {
        let (mut link, mut peer) = pair(role, 100_000);
        for at in 0..1000_u16 {
            peer.send(FIN | PING, &at.to_be_bytes()).await;
        }
        let hearing = async {
            let mut heard = Vec::new();
            while heard.last() != Some(&999) {
                let (first, payload) = peer.recv().await.unwrap();
                assert_eq!(first, FIN | PONG);
                heard.push(u16::from_be_bytes(payload.try_into().unwrap()));
            }
            assert!(heard.is_sorted(), "{heard:?}");
        };
        tokio::select! {
            () = hearing => {}
            received = recv(&mut link) => panic!("there was {received:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pong_is_put_on_the_wire_though_nobody_sends() {
    for role in ROLES {
        let (mut link, mut peer) = pair(role, 1);
        let reading = async { stays_quiet(&mut link).await };
        let peer = async {
            peer.send(FIN | PONG, b"for nobody").await;
            peer.send(FIN | PING, &[7; 125]).await;
            assert_eq!(peer.recv().await.unwrap(), (FIN | PONG, vec![7; 125]));
        };
        join!(reading, peer);
    }
}

/// Everything that RFC 6455 forbids, the code that the peer is told, and a word of the reason.
#[tokio::test(start_paused = true)]
async fn a_broken_rule_is_named_to_the_peer() {
    for role in ROLES {
        let masks = role == Role::Server;
        let mut too_long = vec![FIN | BINARY, if masks { 0xff } else { 0x7f }];
        too_long.extend((131_073_u64).to_be_bytes());
        too_long.extend([0; 4]);
        let two = |first: Vec<u8>, second: Vec<u8>| [first, second].concat();
        let half = bytes(70_000);
        for (what, sent, code, reason) in [
            ("a wrong mask", frame(FIN | BINARY, !masks, b"x"), 1002, "mask"),
            ("a text message", frame(FIN | TEXT, masks, b"x"), 1003, "text"),
            ("text that is none", frame(FIN | TEXT, masks, b"\xff"), 1007, "UTF-8"),
            (
                "the first reserved bit",
                frame(FIN | 0x40 | BINARY, masks, b"x"),
                1002,
                "eserved",
            ),
            (
                "the second reserved bit",
                frame(FIN | 0x20 | BINARY, masks, b"x"),
                1002,
                "eserved",
            ),
            (
                "the third reserved bit",
                frame(FIN | 0x10 | PING, masks, b"x"),
                1002,
                "eserved",
            ),
            ("a reserved kind of data", frame(FIN | 3, masks, b"x"), 1002, "opcode"),
            (
                "a reserved kind of control",
                frame(FIN | 11, masks, b"x"),
                1002,
                "opcode",
            ),
            ("a ping in parts", frame(PING, masks, b"x"), 1002, "ragment"),
            ("a long ping", frame(FIN | PING, masks, &[0; 126]), 1002, "ontrol"),
            (
                "a part of nothing",
                frame(FIN | CONTINUATION, masks, b"x"),
                1002,
                "ontinu",
            ),
            (
                "a message inside another",
                two(frame(BINARY, masks, b"x"), frame(FIN | BINARY, masks, b"x")),
                1002,
                "ragment",
            ),
            ("a long frame, by its header", too_long, 1009, "long"),
            (
                "a long message",
                two(frame(BINARY, masks, &half), frame(FIN | CONTINUATION, masks, &half)),
                1009,
                "long",
            ),
            ("a close of one byte", frame(FIN | CLOSE, masks, b"x"), 1002, "close"),
            (
                "a close that is no text",
                frame(FIN | CLOSE, masks, b"\x03\xe8\xff"),
                1007,
                "UTF-8",
            ),
        ] {
            let (mut link, mut peer) = pair(role, 200_000);
            peer.send_raw(&sent).await;
            let error = recv(&mut link).await.unwrap_err();
            assert!(matches!(error, LinkError::Protocol(_)), "{what}: {error:?}");
            let told = peer.recv_close().await;
            assert_eq!(told.0, code, "{what}: {told:?}");
            assert!(told.1.contains(reason), "{what}: {told:?}");
            // Nothing is believed any more.
            peer.send(FIN | BINARY, b"x").await;
            assert!(matches!(recv(&mut link).await, Ok(None)), "{what}");
        }
    }
}

/// A peer that says little must not make a link hold much.
#[tokio::test(start_paused = true)]
async fn garbage_ends_the_link() {
    for role in ROLES {
        for byte in 0..=255 {
            let (mut link, mut peer) = pair(role, 200_000);
            peer.send_raw(&vec![byte; 140_000]).await;
            drop(peer);
            let mut last = recv(&mut link).await;
            for _ in 0..200_000 {
                let Ok(Some(_)) = last else { break };
                last = recv(&mut link).await;
            }
            assert!(!matches!(last, Ok(Some(_))), "{byte:#x} goes on for ever");
        }
    }
}
