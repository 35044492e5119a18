//! The first bytes of a HTTP/2 connection (RFC 9113 §3.4).

use std::io;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tunnel_core::{ConnectionError, HandshakeError};

use crate::{BoxIo, farewell};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
            farewell(io, response(words).as_bytes()).await;
            return Err(HandshakeError::Protocol {
                detail: "it does not speak HTTP/2".to_owned(),
            });
        }
    }
    Ok((begin, io))
}

fn response(words: &str) -> String {
    format!(
        "HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n{words}\n",
        words.len() + 1
    )
}

fn lost(error: io::Error) -> HandshakeError {
    HandshakeError::Lost(ConnectionError::transport(error))
}
