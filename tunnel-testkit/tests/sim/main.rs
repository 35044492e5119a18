//! The simulated network does what it says, exactly.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy exempts only functions marked as tests"
)]

mod endings;
mod link;
mod timing;
mod transfer;

use std::{io::ErrorKind, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tunnel_tcp::{Accept, BoxIo, Dial};
use tunnel_testkit::sim::{Net, SimAcceptor};

const MS: Duration = Duration::from_millis(1);

/// The ends of a new connection: the one that dialled and the one that listened.
async fn connect(net: &Net, listener: &mut SimAcceptor) -> (BoxIo, BoxIo) {
    let server = listener.local_addr().unwrap().to_string().parse().unwrap();
    let (dialled, accepted) = tokio::join!(net.dial(&server), listener.accept());
    (dialled.unwrap().io, accepted.unwrap().open().unwrap())
}

/// The ends of a connection on a network of its own.
async fn pair(net: &Net) -> (BoxIo, BoxIo) {
    connect(net, &mut net.listen()).await
}

/// Whether nothing comes for a long time.
async fn is_quiet(io: &mut BoxIo) -> bool {
    let mut byte = [0];
    tokio::time::timeout(Duration::from_secs(3600), io.read(&mut byte))
        .await
        .is_err()
}

/// Writes until nothing more is taken, and says how much was.
async fn fill(io: &mut BoxIo) -> usize {
    let mut taken = 0;
    loop {
        match tokio::time::timeout(Duration::from_secs(3600), io.write(&[7; 10_000])).await {
            Ok(written) => taken += written.unwrap(),
            Err(_) => return taken,
        }
    }
}

async fn expect_reset(io: &mut BoxIo) {
    assert_eq!(io.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(io.write(&[0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}
