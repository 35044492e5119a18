use std::sync::Arc;

use bytes::Bytes;
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
