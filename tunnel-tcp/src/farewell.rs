//! Turning somebody away such that they learn why.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::Io;

/// How long whoever is turned away may take to read why.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// How much of what they still send is read.
const LINGER_BYTES: u64 = 128 * 1024;

/// Sends the last bytes, ends the direction, and waits up to a second for the peer to end its own: a socket that is
/// closed with bytes unread is reset, and a reset can overtake what was sent (RFC 9293 §3.6.1, RFC 9112 §9.6). What
/// still comes is thrown away, up to 128 KiB of it. Then the pipe is closed, whatever came of it.
///
/// # Cancel safety
///
/// Dropping the future closes the pipe at once.
pub async fn farewell(mut io: impl Io, last: &[u8]) {
    let told = async {
        io.write_all(last).await?;
        io.flush().await?;
        io.shutdown().await?;
        tokio::io::copy(&mut io.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // If it cannot be sent, the peer is gone.
    let _ = timeout(LINGER, told).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn the_pipe_is_open_until_the_peer_has_read() {
        let (near, mut far) = tokio::io::duplex(1024);
        let last = tokio::spawn(farewell(near, b"no"));
        far.write_all(b"what was on its way").await.unwrap();
        let mut said = String::new();
        far.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "no");
        assert!(!last.is_finished());
        drop(far);
        last.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn neither_silence_nor_a_flood_keeps_it() {
        let start = Instant::now();
        let (near, _far) = tokio::io::duplex(1024);
        farewell(near, b"no").await;
        assert_eq!(start.elapsed(), LINGER);

        let (near, mut far) = tokio::io::duplex(1024);
        let last = tokio::spawn(farewell(near, b"no"));
        let flood = tokio::io::copy(&mut tokio::io::repeat(0), &mut far).await;
        assert_eq!(flood.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        last.await.unwrap();
        assert_eq!(start.elapsed(), LINGER);
    }
}
