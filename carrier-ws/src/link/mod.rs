//! A WebSocket as a link of the mux: each message of the mux is one binary message (`docs/wire.md` §10.4).
//!
//! tungstenite reads: it takes frames apart, checks them, joins fragments, answers pings and close frames. Messages
//! are written here, past its write buffer, which would copy each twice and never give its memory back.

mod mask;
mod outbox;
mod passing;
mod pipe;
mod violation;

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::{
    Error, Message as WsMessage,
    error::ProtocolError,
    protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext, frame::coding::CloseCode},
};
use tunnel_core::{
    mux::{Link, LinkError},
    proto::mux::{MAX_MESSAGE, Message},
};
use tunnel_tcp::BoxIo;

use self::{
    outbox::Outbox,
    passing::Passing,
    pipe::{Pipe, Polled},
    violation::Violation,
};

/// How much is read at once, and what an idle connection keeps for reading. A message that is longer gets a buffer of
/// its own.
const READ_BUFFER: usize = 16 * 1024;
/// The longest header of a frame: two bytes, the length, the key (RFC 6455 §5.2).
const MAX_HEADER: usize = 14;
/// How many frames are looked at before others have their turn, if no message comes of them.
const FRAMES_A_TURN: usize = 64;

/// A WebSocket after its handshake. One task drives it.
pub(crate) struct WsLink {
    pipe: Pipe,
    protocol: WebSocketContext,
    outbox: Outbox,
    role: Role,
    /// Whether a pong may wait, here or in tungstenite. Nobody else sees to it that it gets on the wire.
    owes_pong: bool,
    state: State,
    closing: Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The peer's close frame has come.
    Ended,
    /// The peer broke the protocol and has been told, or the pipe failed: nothing is read any more.
    Failed,
}

/// How far this end has come in closing the link.
#[derive(Clone, Copy, Debug)]
enum Closing {
    Not,
    /// The close frame is on its way.
    Tell,
    /// Waiting for the peer's.
    Hear,
    /// Nothing more is sent below, either.
    Shut,
    /// Waiting for the end of the pipe.
    Rest,
}

impl WsLink {
    /// Takes the pipe behind the handshake, and what was read of it already.
    pub(crate) fn new(io: BoxIo, ahead: &[u8], role: Role) -> Self {
        let outbox = Outbox::new(role, io.is_write_vectored());
        Self {
            pipe: Pipe::new(io, ahead),
            protocol: protocol(role),
            outbox,
            role,
            owes_pong: false,
            state: State::Open,
            closing: Closing::Not,
        }
    }

    /// Runs tungstenite over the pipe.
    fn with<T>(
        &mut self,
        cx: &mut Context<'_>,
        run: impl FnOnce(&mut WebSocketContext, &mut Polled<'_, '_>) -> tungstenite::Result<T>,
    ) -> Poll<tungstenite::Result<T>> {
        let mut polled = Polled {
            pipe: &mut self.pipe,
            outbox: &mut self.outbox,
            cx,
        };
        match run(&mut self.protocol, &mut polled) {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            result => Poll::Ready(result),
        }
    }

    /// Gives back the buffer that a long message has left, which tungstenite never does. Only when tungstenite wants to
    /// read more: then it has dealt with every frame that is whole.
    fn shrink(&mut self) {
        let passing = &mut self.pipe.passing;
        let is_open = self.state == State::Open && matches!(self.closing, Closing::Not);
        if is_open && !self.owes_pong && passing.is_between_messages() && passing.longest() > READ_BUFFER as u64 {
            *passing = Passing::default();
            self.protocol = protocol(self.role);
        }
    }

    /// Tells the peer what it did wrong, as far as that goes without waiting.
    fn violated(&mut self, cx: &mut Context<'_>, violation: Violation) -> LinkError {
        let frame = violation.frame();
        let _ = self.with(cx, |protocol, pipe| protocol.close(pipe, Some(frame)));
        let _ = self.poll_out_and_flush(cx);
        self.state = State::Failed;
        LinkError::Protocol(violation.text)
    }

    fn failed(&mut self, cx: &mut Context<'_>, error: Error) -> LinkError {
        if let Some(violation) = Violation::of(&error) {
            return self.violated(cx, violation);
        }
        self.state = State::Failed;
        LinkError::Io(match error {
            Error::Io(error) => error,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it ended without the closing handshake of the WebSocket",
            ),
            error => io::Error::other(error),
        })
    }

    /// Whether the peer's close frame is an orderly end. The mux says why it ends before that, so any other code is
    /// of the WebSocket or of something on the way.
    fn ended(&mut self, frame: Option<CloseFrame>) -> Result<(), LinkError> {
        self.state = State::Ended;
        match frame {
            None => Ok(()),
            Some(CloseFrame {
                code: CloseCode::Normal | CloseCode::Status,
                ..
            }) => Ok(()),
            Some(frame) => {
                let reason = if frame.reason.is_empty() {
                    "no reason"
                } else {
                    &frame.reason
                };
                Err(LinkError::Ended(format!(
                    "the WebSocket was closed with {}, {reason}",
                    u16::from(frame.code)
                )))
            }
        }
    }

    /// Writes what waits.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.poll_write(&mut self.pipe.io, cx)
    }

    /// Writes what waits, here and in tungstenite, and everything below it.
    fn poll_out_and_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // It fails when the closing handshake is done, which is none of the outbox's concern. It may succeed and
            // keep a pong for which its buffer had no room; then there is something in the outbox now.
            let is_blocked = self.with(cx, |protocol, pipe| protocol.flush(pipe)).is_pending();
            if !is_blocked && self.outbox.is_empty() {
                ready!(Pin::new(&mut self.pipe.io).poll_flush(cx))?;
                self.owes_pong = false;
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_out(cx))?;
        }
    }

    /// Reads until the closing handshake is done, or the peer has nothing more to say.
    fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..FRAMES_A_TURN {
            match ready!(self.with(cx, |protocol, pipe| protocol.read(pipe))) {
                Ok(_) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads to the end without looking: a socket that is closed with bytes unread resets the connection, and the
    /// peer may lose what it was told last.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 1024];
        for _ in 0..FRAMES_A_TURN {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.pipe.io).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A message that is no small part of the buffer into which it was read, all of which a slice keeps in memory.
fn alone(message: Bytes) -> Bytes {
    if message.len() < READ_BUFFER / 2 {
        return Bytes::copy_from_slice(&message);
    }
    message
}

fn protocol(role: Role) -> WebSocketContext {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(1024)
        .max_frame_size(Some(MAX_MESSAGE))
        .max_message_size(Some(MAX_MESSAGE));
    WebSocketContext::new(role, Some(config))
}

impl Link for WsLink {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if !self.outbox.has_room()
            && let Poll::Ready(Err(error)) = self.poll_out(cx)
        {
            return Poll::Ready(Err(LinkError::Io(error)));
        }
        if self.outbox.has_room() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Behind a close frame nothing may follow (RFC 6455 §5.5.1), so the message is dropped.
    fn send(&mut self, message: Message) -> Result<(), LinkError> {
        if self.state != State::Open || !matches!(self.closing, Closing::Not) {
            return Ok(());
        }
        self.outbox.push(message).map_err(LinkError::Io)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.poll_out_and_flush(cx).map_err(LinkError::Io)
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LinkError>> {
        if self.state != State::Open {
            return Poll::Ready(Ok(None));
        }
        for _ in 0..FRAMES_A_TURN {
            let Poll::Ready(message) = self.with(cx, |protocol, pipe| protocol.read(pipe)) else {
                if self.owes_pong {
                    ready!(self.poll_out_and_flush(cx)).map_err(LinkError::Io)?;
                }
                self.shrink();
                return Poll::Pending;
            };
            match message {
                Ok(WsMessage::Binary(payload)) => return Poll::Ready(Ok(Some(alone(payload)))),
                Ok(WsMessage::Ping(_)) => self.owes_pong = true,
                Ok(WsMessage::Pong(_)) => {}
                Ok(WsMessage::Close(frame)) => {
                    // The answer to it.
                    let _ = self.poll_out_and_flush(cx);
                    return Poll::Ready(self.ended(frame).map(|()| None));
                }
                Ok(WsMessage::Text(_) | WsMessage::Frame(_)) => {
                    return Poll::Ready(Err(self.violated(cx, Violation::text_message())));
                }
                Err(error) => return Poll::Ready(Err(self.failed(cx, error))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        loop {
            self.closing = match self.closing {
                Closing::Not => {
                    if self.state == State::Open {
                        let normal = CloseFrame {
                            code: CloseCode::Normal,
                            reason: Default::default(),
                        };
                        let _ = self.with(cx, |protocol, pipe| protocol.close(pipe, Some(normal)));
                    }
                    Closing::Tell
                }
                Closing::Tell => {
                    ready!(self.poll_out_and_flush(cx)).map_err(LinkError::Io)?;
                    Closing::Hear
                }
                Closing::Hear => {
                    if self.state == State::Open {
                        ready!(self.poll_last(cx));
                        self.state = State::Ended;
                    }
                    Closing::Shut
                }
                Closing::Shut => {
                    ready!(Pin::new(&mut self.pipe.io).poll_shutdown(cx)).map_err(LinkError::Io)?;
                    Closing::Rest
                }
                Closing::Rest => {
                    if self.state == State::Failed {
                        ready!(self.poll_rest(cx));
                    }
                    return Poll::Ready(Ok(()));
                }
            };
        }
    }
}

impl fmt::Debug for WsLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsLink")
            .field("role", &self.role)
            .field("state", &self.state)
            .field("outbox", &self.outbox)
            .finish_non_exhaustive()
    }
}
