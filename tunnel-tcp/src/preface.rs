//! The first bytes of a HTTP/2 connection (RFC 9113 §3.4).

use std::{io, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tunnel_core::{ConnectionError, HandshakeError};

use crate::BoxIo;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long such a client may take to read it, and how much of what it still sends is read: a socket that is closed
/// with bytes unread is reset, and a reset can overtake the answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

/// Waits for the preface, and gives it back with the pipe. Whoever sends something else, such as HTTP/1.1, is told
/// `words` in a response of HTTP/1.1, and turned away after at most a second. The caller bounds the time otherwise.
///
/// # Cancel safety
///
/// Dropping the future closes the pipe.
pub async fn expect_http2(mut io: BoxIo, words: &str) -> Result<(BytesMut, BoxIo), HandshakeError> {
    let mut begin = BytesMut::with_capacity(PREFACE.len());
    while begin.len() < PREFACE.len() {
        let mut rest = (&mut io).take((PREFACE.len() - begin.len()) as u64);
        match rest.read_buf(&mut begin).await {
            Ok(0) => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(lost(error)),
        }
        if !PREFACE.starts_with(&begin) {
            turn_away(io, words).await;
            return Err(HandshakeError::Protocol {
                detail: "it does not speak HTTP/2".to_owned(),
            });
        }
    }
    Ok((begin, io))
}

async fn turn_away(mut io: BoxIo, words: &str) {
    let response = format!(
        "HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n{words}\n",
        words.len() + 1
    );
    let tell = async {
        io.write_all(response.as_bytes()).await?;
        io.shutdown().await?;
        tokio::io::copy(&mut io.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Whatever ends it, the pipe is closed now.
    let _ = timeout(LINGER, tell).await;
}

fn lost(error: io::Error) -> HandshakeError {
    HandshakeError::Lost(ConnectionError::transport(error))
}
