//! Between h2spec and an end, frame by frame.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink, split},
    net::{TcpStream, tcp::OwnedReadHalf},
    time::timeout,
};

use super::super::cases::{HEADERS, PADDED, PING, PREFACE, PRIORITISED, PRIORITY, control_request};

/// By how much the numbers of streams are raised where there is a control stream, which has the first.
const RAISED: u32 = 2;

/// How long nothing comes behind what the client sends at once.
const GAP: Duration = Duration::from_millis(10);

/// What stands behind the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// A server that takes any stream.
    Server,
    /// One that expects the control stream first.
    Agent,
}

impl Behind {
    /// How many streams the client does not know of, as a difference of numbers.
    fn raised(self) -> u32 {
        match self {
            Self::Server => 0,
            Self::Agent => RAISED,
        }
    }
}

/// Passes frames until both have ended. An agent gets the control request behind the client's first frame, and the client
/// nothing of that stream. Nor does it get PINGs that the end sends of its own, for it takes them for answers to its own;
/// no end is here for long enough to miss an answer. What the client sends at once arrives at once, so that no end answers
/// a request of which it has not seen the fault. A client that does not begin with the preface is passed on as it is.
pub(super) async fn relay(client: TcpStream, end: impl AsyncRead + AsyncWrite, behind: Behind) {
    let (client_rx, client_tx) = client.into_split();
    let (end_rx, end_tx) = split(end);
    tokio::join!(ask(client_rx, end_tx, behind), answer(end_rx, client_tx, behind));
}

async fn ask(mut client: OwnedReadHalf, mut end: impl AsyncWrite + Unpin, behind: Behind) {
    // Whoever is gone has nothing more to say, nor is to be told anything.
    let _ = pass_requests(&mut client, &mut end, behind).await;
    let _ = end.shutdown().await;
    // What is not read resets the connection, and what was said before is lost.
    let _ = copy(&mut client, &mut sink()).await;
}

async fn pass_requests(
    client: &mut OwnedReadHalf,
    end: &mut (impl AsyncWrite + Unpin),
    behind: Behind,
) -> io::Result<()> {
    let mut begin = [0; PREFACE.len()];
    client.read_exact(&mut begin).await?;
    end.write_all(&begin).await?;
    if begin != PREFACE {
        end.flush().await?;
        copy(client, end).await?;
        return Ok(());
    }
    let mut control = (behind == Behind::Agent).then(control_request);
    let mut together = Vec::new();
    loop {
        let read = Frame::read(client).await;
        if let Ok(mut frame) = read {
            frame.raise(behind.raised());
            frame.append_to(&mut together);
            together.extend(control.take().unwrap_or_default());
            if timeout(GAP, client.peek(&mut [0])).await.is_ok() {
                continue;
            }
        } else if together.is_empty() {
            return Ok(());
        }
        end.write_all(&together).await?;
        end.flush().await?;
        together.clear();
    }
}

async fn answer(mut end: impl AsyncRead + Unpin, mut client: impl AsyncWrite + Unpin, behind: Behind) {
    let passed: io::Result<()> = async {
        loop {
            let mut frame = Frame::read(&mut end).await?;
            let is_own_ping = frame.kind() == PING && frame.flags() == 0;
            let is_known = frame.stream() == 0 || frame.stream() > behind.raised();
            if is_known && !is_own_ping {
                frame.lower(behind.raised());
                let mut bytes = Vec::new();
                frame.append_to(&mut bytes);
                client.write_all(&bytes).await?;
            }
        }
    }
    .await;
    drop(passed);
    let _ = client.shutdown().await;
}

/// A frame (RFC 9113 §4.1).
struct Frame {
    head: [u8; 9],
    payload: Vec<u8>,
}

impl Frame {
    async fn read(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut head = [0; 9];
        io.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        io.read_exact(&mut payload).await?;
        Ok(Self { head, payload })
    }

    fn append_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.head);
        bytes.extend_from_slice(&self.payload);
    }

    fn kind(&self) -> u8 {
        self.head[3]
    }

    fn flags(&self) -> u8 {
        self.head[4]
    }

    fn stream(&self) -> u32 {
        number(&self.head[5..])
    }

    /// Makes room below its stream, and below the one that this depends on.
    fn raise(&mut self, by: u32) {
        change(&mut self.head[5..], by);
        let at = match self.kind() {
            PRIORITY => 0,
            HEADERS if self.flags() & PRIORITISED != 0 => usize::from(self.flags() & PADDED != 0),
            _ => return,
        };
        if let Some(dependency) = self.payload.get_mut(at..at + 4) {
            change(dependency, by);
        }
    }

    fn lower(&mut self, by: u32) {
        change(&mut self.head[5..], by.wrapping_neg());
    }
}

/// The bit that is no part of a number.
const RESERVED: u32 = 1 << 31;

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap()) & !RESERVED
}

/// Changes the number of a stream; 0 is none.
fn change(bytes: &mut [u8], by: u32) {
    if number(bytes) != 0 {
        let all = u32::from_be_bytes(bytes.try_into().unwrap());
        bytes.copy_from_slice(&all.wrapping_add(by).to_be_bytes());
    }
}
