mod hold;
mod limits;
mod memory;
mod settle;
mod tcp;
mod transfer;
mod unix;

use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
};

use super::*;
use crate::stream::pair::pair;

/// A relay in a task of its own, with both of its far ends in the test's hands.
struct Rig {
    /// The socket's other end.
    socket: DuplexStream,
    /// The stream's peer.
    peer: Duplex,
    relay: JoinHandle<RelayReport>,
}

impl Rig {
    /// A socket that holds `pipe` bytes and a stream with `window` bytes of credit, each way.
    fn new(pipe: usize, window: usize, options: RelayOptions) -> Self {
        let (socket, near) = duplex(pipe);
        let (stream, peer) = pair(window);
        let relay = tokio::spawn(relay(near, Bytes::new(), stream, options));
        Self { socket, peer, relay }
    }

    /// One whose sizes do not matter.
    fn plain(options: RelayOptions) -> Self {
        Self::new(4096, 4096, options)
    }
}

/// Receives until the clean end.
async fn recv_all(stream: &mut Duplex) -> Result<Vec<u8>, RecvError> {
    let mut all = Vec::new();
    while let Some(bytes) = stream.rx.recv(usize::MAX).await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

/// Lets every other task run until none can.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Bytes of which none equals its neighbours.
fn pattern(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}

async fn write(socket: &mut DuplexStream, text: &str) {
    socket.write_all(text.as_bytes()).await.unwrap();
}
