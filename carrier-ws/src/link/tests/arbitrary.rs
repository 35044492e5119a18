//! What must hold for arbitrary bytes of a peer. The package `fuzz` includes this file, so it names everything it needs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::Role;
use tunnel_core::{
    mux::{Link, LinkError},
    proto::mux::{Budget, CloseReason, Config, MAX_MESSAGE, Mux, Side},
};

use crate::link::WsLink;

/// What a peer sends gives the messages that RFC 6455 says it is, however it is cut, and the mux behind them makes the
/// same of it. What the link says meanwhile is well-formed, and it can be closed. The first byte says which end the
/// link is and how much its pipe takes, the next four how the bytes are cut.
pub(crate) fn run(data: &[u8]) {
    let Some(([kind, lens @ ..], bytes)) = data.split_first_chunk::<5>() else {
        return;
    };
    let role = if kind & 1 == 0 { Role::Server } else { Role::Client };
    // Nothing, as of a peer that does not read, or so much at once.
    let room = usize::from(kind >> 1);
    let lens = lens.map(|len| usize::from(len).max(1));
    let (messages, end) = expected(role, bytes);
    let whole = read(role, bytes, &[usize::MAX], usize::MAX);
    assert_eq!(whole.messages, messages);
    match end {
        Expected::Loss => assert_eq!(whole.end, End::Lost),
        Expected::Violation => assert_eq!(whole.end, End::Violated),
        Expected::Close | Expected::Unclear => {}
    }
    assert_eq!(read(role, bytes, &lens, room), whole);
}

/// What came of the bytes.
#[derive(Debug, PartialEq)]
struct Read {
    messages: Vec<Bytes>,
    end: End,
    closed: Option<CloseReason>,
}

#[derive(Debug, PartialEq)]
enum End {
    Closed,
    /// Closed with a code that is no orderly end.
    Ended,
    Violated,
    Lost,
}

/// Has a link read the bytes, cut in pieces of these lengths, and a mux what it makes of them.
fn read(role: Role, bytes: &[u8], lens: &[usize], room: usize) -> Read {
    let pipe = Pipe::new(bytes, lens, room);
    let written = Arc::clone(&pipe.written);
    // A link that gives nothing has been woken, or has read a piece.
    let patience = pipe.pieces.len() + bytes.len() + 16;
    let mut link = WsLink::new(Box::new(pipe), b"", role);
    let side = match role {
        Role::Server => Side::Server,
        Role::Client => Side::Agent,
    };
    let now = Instant::now();
    let mut mux = Mux::new(side, Config::default(), Budget::default().account(), now);
    let cx = &mut Context::from_waker(Waker::noop());
    let mut messages = Vec::new();
    let end = 'end: {
        for _ in 0..patience + bytes.len() {
            match link.poll_recv(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(Some(message))) => {
                    assert!(message.len() <= MAX_MESSAGE, "{} bytes", message.len());
                    mux.handle_message(now, message.clone());
                    messages.push(message);
                    while mux.poll_event().is_some() {}
                }
                Poll::Ready(Ok(None)) => break 'end End::Closed,
                Poll::Ready(Err(LinkError::Protocol(_))) => break 'end End::Violated,
                Poll::Ready(Err(LinkError::Ended(_))) => break 'end End::Ended,
                Poll::Ready(Err(_)) => break 'end End::Lost,
            }
            while let Poll::Ready(Ok(())) = link.poll_ready(cx)
                && let Some(message) = mux.poll_message(now)
            {
                link.send(message).unwrap();
            }
        }
        panic!("it reads for ever");
    };
    if room > 0 {
        let closes = (0..2 * patience).any(|_| link.poll_close(cx).is_ready());
        assert!(closes, "it closes for ever");
        well_formed(role, &written.lock().unwrap());
    }
    Read {
        messages,
        end,
        closed: mux.closed().cloned(),
    }
}

/// What a link has written: frames, masked by an agent, whole messages or control frames, and nothing behind a close.
fn well_formed(role: Role, mut written: &[u8]) {
    let mut is_closed = false;
    while !written.is_empty() {
        assert!(!is_closed, "there is more behind the close frame");
        let frame = Frame::parse(written).expect("a whole frame");
        assert_eq!(frame.masked, role == Role::Client);
        assert!(matches!(frame.first, 0x82 | 0x88 | 0x8a), "{:#x}", frame.first);
        assert!(frame.first == 0x82 || frame.payload.len() <= 125);
        is_closed = frame.first == 0x88;
        written = &written[frame.len..];
    }
}

/// How reading has to end.
enum Expected {
    Loss,
    Violation,
    Close,
    /// Both are right: the last frame is not whole, and may have been found wrong by then.
    Unclear,
}

/// The messages that a peer has sent, by RFC 6455 and the limit, until the first thing that is wrong.
fn expected(role: Role, mut bytes: &[u8]) -> (Vec<Bytes>, Expected) {
    let mut messages = Vec::new();
    let mut parts: Option<Vec<u8>> = None;
    let mut is_text = false;
    let end = loop {
        let Some(frame) = Frame::parse(bytes) else {
            break if bytes.is_empty() && !is_text {
                Expected::Loss
            } else {
                Expected::Unclear
            };
        };
        bytes = &bytes[frame.len..];
        let (is_final, opcode) = (frame.first & 0x80 != 0, frame.first & 0x0f);
        if frame.first & 0x70 != 0 || frame.masked != (role == Role::Server) {
            break Expected::Violation;
        }
        match (opcode, &mut parts) {
            (8..=10, _) if !is_final || frame.payload.len() > 125 => break Expected::Violation,
            (8, _) => break Expected::Close,
            (9 | 10, _) => {}
            (1, None) => {
                // Refused when it is whole, or not text.
                (is_text, parts) = (true, Some(Vec::new()));
                if is_final {
                    break Expected::Violation;
                }
            }
            (2, None) => parts = Some(frame.payload),
            (0, Some(parts)) => parts.extend(frame.payload),
            _ => break Expected::Violation,
        }
        if parts.as_ref().is_some_and(|parts| parts.len() > MAX_MESSAGE) {
            break Expected::Violation;
        }
        if opcode < 8 && is_final {
            if is_text {
                break Expected::Violation;
            }
            messages.extend(parts.take().map(Bytes::from));
        }
    };
    (messages, end)
}

/// A frame as RFC 6455 §5.2 has it.
struct Frame {
    first: u8,
    masked: bool,
    payload: Vec<u8>,
    /// With its header.
    len: usize,
}

impl Frame {
    /// The first one, if it is whole.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let [first, second] = take(&mut rest)?;
        let len = match second & 0x7f {
            126 => u16::from_be_bytes(take(&mut rest)?).into(),
            127 => u64::from_be_bytes(take(&mut rest)?),
            short => short.into(),
        };
        let masked = second & 0x80 != 0;
        let key: [u8; 4] = if masked { take(&mut rest)? } else { [0; 4] };
        let payload = rest.get(..usize::try_from(len).ok()?)?;
        let unmasked = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
        Some(Self {
            first,
            masked,
            payload: unmasked.collect(),
            len: bytes.len() - rest.len() + payload.len(),
        })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

/// Gives bytes in pieces, with a pause behind each, and takes so many at once.
#[derive(Debug)]
struct Pipe {
    pieces: VecDeque<Vec<u8>>,
    is_pausing: bool,
    room: usize,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Pipe {
    fn new(mut bytes: &[u8], lens: &[usize], room: usize) -> Self {
        let mut pieces = VecDeque::new();
        for len in lens.iter().cycle() {
            let (piece, rest) = bytes.split_at(bytes.len().min(*len));
            if piece.is_empty() {
                break;
            }
            pieces.push_back(piece.to_vec());
            bytes = rest;
        }
        Self {
            pieces,
            is_pausing: false,
            room,
            written: Arc::default(),
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.is_pausing) {
            return Poll::Pending;
        }
        let Some(mut piece) = self.pieces.pop_front() else {
            return Poll::Ready(Ok(()));
        };
        let rest = piece.split_off(piece.len().min(into.remaining()));
        into.put_slice(&piece);
        self.is_pausing = rest.is_empty();
        if !rest.is_empty() {
            self.pieces.push_front(rest);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.room == 0 {
            return Poll::Pending;
        }
        let count = bytes.len().min(self.room);
        self.written.lock().unwrap().extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
