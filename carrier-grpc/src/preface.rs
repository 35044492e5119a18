//! The first bytes of a HTTP/2 connection (RFC 9113 §3.4).

use std::{io, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tunnel_core::{ConnectionError, HandshakeError};
use tunnel_tcp::BoxIo;

use crate::pipe::Pipe;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What HTTP/1.1 clients are told.
const HTTP1: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\nContent-Type: text/plain\r\n\
    Content-Length: 42\r\n\r\nthis port speaks gRPC, which needs HTTP/2\n";

/// How long such a client may take to read it, and how much of what it still sends is read: a socket that is closed
/// with bytes unread is reset, and a reset can overtake the answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

/// Waits for the preface. Whoever sends something else is told, and turned away.
pub(crate) async fn expect(mut io: BoxIo) -> Result<Pipe, HandshakeError> {
    let mut begin = BytesMut::with_capacity(PREFACE.len());
    while begin.len() < PREFACE.len() {
        let mut rest = (&mut io).take((PREFACE.len() - begin.len()) as u64);
        match rest.read_buf(&mut begin).await {
            Ok(0) => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(lost(error)),
        }
        if !PREFACE.starts_with(&begin) {
            turn_away(io).await;
            return Err(HandshakeError::Protocol {
                detail: "it does not speak HTTP/2".to_owned(),
            });
        }
    }
    Ok(Pipe::begun(begin, io))
}

async fn turn_away(mut io: BoxIo) {
    let tell = async {
        io.write_all(HTTP1).await?;
        io.shutdown().await?;
        tokio::io::copy(&mut io.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Whatever ends it, the pipe is closed now.
    let _ = timeout(LINGER, tell).await;
}

fn lost(error: io::Error) -> HandshakeError {
    HandshakeError::Lost(ConnectionError::transport(error))
}
