use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;
use tunnel_core::{Connection, Duplex};

use super::head;

/// A new stream, as its opener and its acceptor see it.
pub async fn stream(opener: &Arc<dyn Connection>, acceptor: &Arc<dyn Connection>) -> (Duplex, Duplex) {
    let (opened, accepted) = tokio::join!(opener.open(head()), async {
        let inbound = acceptor.accept().await.expect("a stream");
        inbound.accept().await.expect("accepted")
    });
    (opened.expect("opened"), accepted)
}

/// Sends `size` bytes by a new stream, has them sent back, and compares.
pub async fn echo(opener: &Arc<dyn Connection>, acceptor: &Arc<dyn Connection>, size: usize) {
    let sent: Vec<u8> = (0..251).cycle().take(size).collect();
    let (mut near, mut far) = stream(opener, acceptor).await;
    let there = async {
        near.tx.send_all(Bytes::from(sent.clone())).await.expect("sent");
        near.tx.finish().await.expect("finished");
    };
    let back = async {
        while let Some(bytes) = far.rx.recv(64 * 1024).await.expect("received") {
            far.tx.send_all(bytes).await.expect("sent back");
        }
        far.tx.finish().await.expect("finished");
    };
    let mut seen = Vec::new();
    let read = async {
        while let Some(bytes) = near.rx.recv(64 * 1024).await.expect("received") {
            seen.extend_from_slice(&bytes);
        }
    };
    tokio::join!(there, back, read);
    assert!(seen == sent, "{size} bytes come back as they were");
}

/// How long a question and its answer take on a new stream, the opening included. The question goes with the open if it
/// is `early`, and else when the stream is open.
async fn first_exchange(opener: &Arc<dyn Connection>, acceptor: &Arc<dyn Connection>, early: bool) -> Duration {
    let started = Instant::now();
    let question = Bytes::from_static(b"question");
    let (mut with, behind) = if early {
        (question, Bytes::new())
    } else {
        (Bytes::new(), question)
    };
    let ask = async {
        let mut stream = opener.open_with(head(), &mut with).await.expect("opened");
        // A wire that takes nothing before the answer has left it.
        stream.tx.send_all(with).await.expect("sent");
        stream.tx.send_all(behind).await.expect("sent");
        assert_eq!(
            stream.rx.recv(100).await.expect("received").expect("an answer"),
            "answer"
        );
        stream
    };
    let reply = async {
        let inbound = acceptor.accept().await.expect("a stream");
        let mut stream = inbound.accept().await.expect("accepted");
        assert_eq!(
            stream.rx.recv(100).await.expect("received").expect("a question"),
            "question"
        );
        stream.tx.send_all("answer".into()).await.expect("sent");
        stream.tx.flush().await.expect("flushed");
        stream
    };
    let streams = tokio::join!(ask, reply);
    let took = started.elapsed();
    drop(streams);
    took
}

/// How many round trips of this length a question and its answer take on a new stream, the opening included: when the
/// question waits for the stream, and when it goes with the open.
pub async fn round_trips(
    opener: &Arc<dyn Connection>,
    acceptor: &Arc<dyn Connection>,
    round_trip: Duration,
) -> [u32; 2] {
    // What begins a connection is over then.
    echo(opener, acceptor, 1).await;
    let mut trips = [0; 2];
    for (trips, early) in trips.iter_mut().zip([false, true]) {
        let took = first_exchange(opener, acceptor, early).await;
        while *trips * round_trip + round_trip / 2 < took {
            *trips += 1;
        }
        let off = took.abs_diff(*trips * round_trip);
        assert!(off < round_trip / 4, "{took:?} is no whole number of round trips");
    }
    trips
}
