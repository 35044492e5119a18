//! Reading the messages that come before anything else on a stream.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use bytes::Bytes;
use quinn::ReadError;
use tunnel_core::{
    CloseCode, RecvError,
    proto::{FrameDecoder, FrameError, FrameKind, Message},
};

use crate::stream::RecvHalf;

/// The most bytes read before the first message, skipped frames included: the longest claim and as much again.
const MAX_PREAMBLE: usize = 2 * FrameDecoder::MAX_HELD;
/// The most bytes read at once, so that payload behind a preamble is left to QUIC's flow control.
const MAX_READ: usize = 4096;

/// Where the bytes come from.
pub(crate) trait Source {
    type Error;

    fn poll_source(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, Self::Error>>;
}

impl Source for RecvHalf {
    type Error = RecvError;

    fn poll_source(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, RecvError>> {
        self.poll_read(cx, max)
    }
}

impl Source for quinn::RecvStream {
    type Error = ReadError;

    fn poll_source(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, ReadError>> {
        let read = std::pin::pin!(self.read_chunk(max, true));
        read.poll(cx).map_ok(|chunk| chunk.map(|chunk| chunk.bytes))
    }
}

/// Reads messages off the beginning of a stream.
#[derive(Debug)]
pub(crate) struct Messages {
    decoder: FrameDecoder,
    read: usize,
}

/// Why there is no message.
#[derive(Debug)]
pub(crate) enum MessageError<E> {
    /// The peer broke the protocol.
    Frame(FrameError),
    /// It sent more than [`MAX_PREAMBLE`] without a message.
    Endless,
    /// The stream could not be read.
    Read(E),
}

impl<E> MessageError<E> {
    /// The code and the words with which the connection is to be closed, unless it is the stream that failed.
    pub(crate) fn violation(self) -> Result<(CloseCode, String), E> {
        match self {
            Self::Frame(error) => Ok((error.close_code(), error.to_string())),
            Self::Endless => Ok((
                CloseCode::PROTOCOL,
                format!("no message within {MAX_PREAMBLE} bytes of frames to skip"),
            )),
            Self::Read(error) => Err(error),
        }
    }
}

impl Messages {
    pub(crate) fn expecting(kinds: &'static [FrameKind]) -> Self {
        Self {
            decoder: FrameDecoder::expecting(kinds),
            read: 0,
        }
    }

    /// Changes what may come next.
    pub(crate) fn expect(&mut self, kinds: &'static [FrameKind]) {
        self.decoder.expect(kinds);
    }

    /// The next message, or `None` where the stream ends between two.
    ///
    /// # Cancel safety
    ///
    /// Nothing that was read is lost when the future is dropped.
    pub(crate) async fn next_or_end<S: Source>(
        &mut self,
        source: &mut S,
    ) -> Result<Option<Message>, MessageError<S::Error>> {
        loop {
            if let Some(message) = self.decoder.next().map_err(MessageError::Frame)? {
                self.read = 0;
                return Ok(Some(message));
            }
            if self.read > MAX_PREAMBLE {
                return Err(MessageError::Endless);
            }
            let chunk = poll_fn(|cx| source.poll_source(cx, MAX_READ)).await;
            match chunk.map_err(MessageError::Read)? {
                Some(chunk) => {
                    self.read += chunk.len();
                    self.decoder.push(chunk);
                }
                None => {
                    self.decoder.finish().map_err(MessageError::Frame)?;
                    return Ok(None);
                }
            }
        }
    }

    /// The next message; the end of the stream is an error. Cancel safe, too.
    pub(crate) async fn next<S: Source>(&mut self, source: &mut S) -> Result<Message, MessageError<S::Error>> {
        let message = self.next_or_end(source).await?;
        message.ok_or(MessageError::Frame(FrameError::Incomplete { kind: None }))
    }

    /// What was read behind the last message.
    pub(crate) fn into_rest(self) -> Bytes {
        self.decoder.into_rest()
    }
}
