#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // helpers of tests, too

//! A link against a peer that speaks WebSocket by hand.

mod arbitrary;
mod closing;
mod hostile;
mod reading;
mod writing;

use std::{future::poll_fn, io, time::Duration};

use bytes::{BufMut, Bytes};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::timeout,
};
use tungstenite::protocol::Role;
use tunnel_core::{
    mux::{Link, LinkError},
    proto::mux::Message,
};

use super::{READ_BUFFER, WsLink};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CONTINUATION: u8 = 0;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;

/// The other end of a link, of which both sides are tried.
struct Peer {
    pipe: DuplexStream,
    /// Whether it is the agent, which has to mask.
    masks: bool,
}

/// A link and its peer; the pipe between them holds `room` bytes each way.
fn pair(role: Role, room: usize) -> (WsLink, Peer) {
    let (near, far) = duplex(room);
    let masks = role == Role::Server;
    (WsLink::new(Box::new(near), b"", role), Peer { pipe: far, masks })
}

/// A frame as it is on the wire. `first` is its first byte.
fn frame(first: u8, masks: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mask_bit = if masks { 0x80 } else { 0 };
    match payload.len() {
        short @ ..126 => out.put_u8(mask_bit | short as u8),
        medium @ ..65536 => {
            out.put_u8(mask_bit | 126);
            out.put_u16(medium as u16);
        }
        long => {
            out.put_u8(mask_bit | 127);
            out.put_u64(long as u64);
        }
    }
    if masks {
        let key = [0x5a, 0x01, 0xff, 0x80];
        out.extend_from_slice(&key);
        out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    } else {
        out.extend_from_slice(payload);
    }
    out
}

impl Peer {
    async fn send(&mut self, first: u8, payload: &[u8]) {
        let bytes = frame(first, self.masks, payload);
        self.send_raw(&bytes).await;
    }

    async fn send_raw(&mut self, bytes: &[u8]) {
        self.pipe.write_all(bytes).await.unwrap();
    }

    /// The first byte and the payload of the next frame.
    async fn recv(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let first = self.pipe.read_u8().await?;
        let second = self.pipe.read_u8().await?;
        assert_eq!(second & 0x80 != 0, !self.masks, "who masks");
        let len = match second & 0x7f {
            126 => self.pipe.read_u16().await?.into(),
            127 => self.pipe.read_u64().await?,
            short => short.into(),
        };
        let mut key = [0; 4];
        if !self.masks {
            self.pipe.read_exact(&mut key).await?;
        }
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        self.pipe.read_exact(&mut payload).await?;
        payload
            .iter_mut()
            .zip(key.iter().cycle())
            .for_each(|(byte, key)| *byte ^= key);
        Ok((first, payload))
    }

    /// The code and the reason of the close frame that comes next.
    async fn recv_close(&mut self) -> (u16, String) {
        let (first, payload) = self.recv().await.unwrap();
        assert_eq!(first, FIN | CLOSE);
        let (code, reason) = payload.split_first_chunk().unwrap();
        (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).unwrap())
    }
}

async fn recv(link: &mut WsLink) -> Result<Option<Bytes>, LinkError> {
    poll_fn(|cx| link.poll_recv(cx)).await
}

async fn send(link: &mut WsLink, payload: &[u8]) -> Result<(), LinkError> {
    poll_fn(|cx| link.poll_ready(cx)).await?;
    link.send(Message::from(Bytes::copy_from_slice(payload)))
}

async fn flush(link: &mut WsLink) -> Result<(), LinkError> {
    poll_fn(|cx| link.poll_flush(cx)).await
}

async fn close(link: &mut WsLink) -> Result<(), LinkError> {
    poll_fn(|cx| link.poll_close(cx)).await
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// Polls a link for long enough, and sees that nothing comes of it.
async fn stays_quiet(link: &mut WsLink) {
    let waited = timeout(Duration::from_secs(1), recv(link)).await;
    assert!(waited.is_err(), "it gave {waited:?}");
}
