//! Claim and welcome over a link.

use std::time::Duration;

use tokio::{
    join,
    time::{Instant, timeout},
};
use tunnel_proto::{Claim, CloseCode, Rejection, Secret, Welcome};

use super::{
    PROMPT, claim,
    wire::{End, UP, Wire, WireLink},
};
use crate::mux::{HandshakeFailure, Link, introduce, read_claim, reject, welcome};

fn greeting() -> Welcome {
    Welcome::new("gw".parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn two_ends_agree() {
    let (_wire, mut agent, mut server) = Wire::new(1);
    let mut claim = claim();
    claim.credential = Some(Secret::new("s3cr3t").unwrap());
    let (welcomed, claimed) = join!(introduce(&mut agent, &claim), async {
        let claimed = read_claim(&mut server).await.unwrap();
        welcome(&mut server, &greeting()).await.unwrap();
        claimed
    });
    assert_eq!(claimed, claim);
    assert_eq!(welcomed.unwrap(), greeting());
}

#[tokio::test(start_paused = true)]
async fn a_rejection_arrives_with_its_words() {
    let (wire, mut agent, mut server) = Wire::new(1);
    let rejection = Rejection::new(CloseCode::FORBIDDEN, "node-1 is not yours");
    let claim = claim();
    let (welcomed, ()) = join!(introduce(&mut agent, &claim), async {
        read_claim(&mut server).await.unwrap();
        timeout(PROMPT, reject(&mut server, &rejection)).await.unwrap();
    });
    match welcomed {
        Err(HandshakeFailure::Rejected(seen)) => assert_eq!(seen, rejection),
        other => panic!("{other:?}"),
    }
    assert_eq!(wire.ended(UP), Some(End::Closed), "the agent has ended the link");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_listen_holds_a_rejection_up_for_a_second() {
    let (_wire, _agent, mut server) = Wire::new(1);
    let start = Instant::now();
    reject(&mut server, &Rejection::new(CloseCode::OVERLOADED, "")).await;
    assert!(start.elapsed() <= Duration::from_millis(1001), "{:?}", start.elapsed());
}

/// Sends one message as it is.
fn say(link: &mut WireLink, bytes: Vec<u8>) {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(link.poll_ready(&mut cx).is_ready());
    link.send(bytes::Bytes::from(bytes).into()).unwrap();
    assert!(link.poll_flush(&mut cx).is_ready());
}

#[tokio::test(start_paused = true)]
async fn the_first_message_is_one_claim_and_nothing_else() {
    let whole = claim().encode().to_vec();
    let twice = [&whole[..], &whole[..]].concat();
    let with_rest = [&whole[..], &[1]].concat();
    let other = greeting().encode().to_vec();
    for (message, expected) in [
        (vec![], "exactly one frame"),
        (vec![0x21, 0x00], "exactly one frame"),
        (whole[..whole.len() - 1].to_vec(), "ended inside the CLAIM frame"),
        (with_rest, "ended inside"),
        (twice, "exactly one frame"),
        (other, "a WELCOME frame came where CLAIM was expected"),
        (vec![0x01, 0x80, 0x10, 0x00, 0x00], "announces 1048576 bytes"),
    ] {
        let (_wire, mut agent, mut server) = Wire::new(4);
        say(&mut agent, message);
        match timeout(PROMPT, read_claim(&mut server)).await.unwrap() {
            Err(HandshakeFailure::Protocol(text)) => assert!(text.contains(expected), "{text}"),
            other => panic!("{expected}: {other:?}"),
        }
    }
    let (_wire, mut agent, mut server) = Wire::new(4);
    // Frames of later versions beside it are skipped.
    say(&mut agent, [&[0x21, 0x01, 0xff], &whole[..], &[0x21, 0x00]].concat());
    assert_eq!(read_claim(&mut server).await.unwrap(), claim());
}

#[tokio::test(start_paused = true)]
async fn an_agent_of_another_version_is_told() {
    let (_wire, mut agent, mut server) = Wire::new(4);
    let mut bytes = claim().encode().to_vec();
    // The versions are the first field: kind, length of two bytes at most, identifier, length, version.
    let version = bytes.iter().position(|&byte| byte == 1).unwrap();
    let at = bytes
        .windows(3)
        .position(|window| window == [1, 1, 1])
        .unwrap_or(version);
    bytes[at + 2] = 9;
    say(&mut agent, bytes);
    let answer = async {
        let mut seen = Vec::new();
        while let Ok(Some(message)) = std::future::poll_fn(|cx| agent.poll_recv(cx)).await {
            seen.push(message);
        }
        drop(agent);
        seen
    };
    let (read, answer) = join!(read_claim(&mut server), answer);
    assert!(
        matches!(&read, Err(HandshakeFailure::Rejected(rejection)) if rejection.code == CloseCode::VERSION),
        "{read:?}"
    );
    assert_eq!(answer.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_ends_is_not_mistaken_for_an_answer() {
    for end in [End::Closed, End::Cut] {
        let (wire, mut agent, server) = Wire::new(4);
        wire.end(super::wire::DOWN, end);
        let claim: Claim = claim();
        let welcomed = timeout(PROMPT, introduce(&mut agent, &claim)).await.unwrap();
        match (end, welcomed) {
            (End::Closed, Err(HandshakeFailure::Ended)) | (End::Cut, Err(HandshakeFailure::Link(_))) => {}
            (end, other) => panic!("{end:?}: {other:?}"),
        }
        drop(server);
    }
}
