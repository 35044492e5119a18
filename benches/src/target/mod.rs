//! The service behind the tunnel: echoes, sends or swallows what the client asks for.
//!
//! A client's first byte is the [`Command`], followed by numbers (eight bytes each, big endian) where the command has
//! some. What uploads have brought so far is told by a [`control`] socket, which is not behind the tunnel.

pub mod control;
pub mod pattern;
pub mod responder;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::yield_now,
};

use self::{
    control::{Ledger, Open},
    pattern::{Checksum, Pattern},
    responder::Responder,
};

/// What a client asks of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send everything back, half-close included.
    Echo,
    /// The same by a [`Responder`]: it waits for nothing else that the target does.
    Respond,
    /// Send so many bytes of [`Pattern`], then close.
    Download(u64),
    /// The same in pieces of random lengths, for which the second number is the seed.
    Pieces(u64, u64),
    /// Send for ever, always the same bytes.
    Flood,
    /// Swallow everything up to the half-close, then answer with the [`Checksum`] of it (eight bytes).
    Upload,
    /// Swallow everything, and count it in the [`Ledger`] under this number.
    Sink(u64),
    /// Reset the connection.
    Reset,
}

impl Command {
    /// Writes the command.
    pub async fn send(self, socket: &mut TcpStream) -> io::Result<()> {
        socket.write_all(&self.bytes()).await
    }

    /// The command as it is written.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        let (letter, numbers) = match self {
            Self::Echo => (b'E', [None, None]),
            Self::Respond => (b'Q', [None, None]),
            Self::Download(len) => (b'D', [Some(len), None]),
            Self::Pieces(len, seed) => (b'P', [Some(len), Some(seed)]),
            Self::Flood => (b'F', [None, None]),
            Self::Upload => (b'U', [None, None]),
            Self::Sink(number) => (b'S', [Some(number), None]),
            Self::Reset => (b'R', [None, None]),
        };
        let mut bytes = vec![letter];
        for number in numbers.into_iter().flatten() {
            bytes.extend(number.to_be_bytes());
        }
        bytes
    }

    async fn recv(socket: &mut TcpStream) -> io::Result<Self> {
        match socket.read_u8().await? {
            b'E' => Ok(Self::Echo),
            b'Q' => Ok(Self::Respond),
            b'D' => Ok(Self::Download(socket.read_u64().await?)),
            b'P' => Ok(Self::Pieces(socket.read_u64().await?, socket.read_u64().await?)),
            b'F' => Ok(Self::Flood),
            b'U' => Ok(Self::Upload),
            b'S' => Ok(Self::Sink(socket.read_u64().await?)),
            b'R' => Ok(Self::Reset),
            other => Err(io::Error::other(format!("no command {other:#x}"))),
        }
    }
}

/// Size of the pieces in which bulk data is read and written.
pub const CHUNK: usize = 64 * 1024;

/// Serves on a loopback port of the system's choice for as long as the runtime lives.
pub async fn spawn() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(listen(listener, Arc::default(), Responder::start(false)?));
    Ok(addr)
}

/// Serves, and keeps count, until it is dropped.
pub async fn listen(listener: TcpListener, ledger: Arc<Ledger>, responder: Responder) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let (ledger, responder) = (Arc::clone(&ledger), responder.clone());
                tokio::spawn(async move {
                    let open = ledger.open();
                    // A client that goes away in the middle is part of some measurements.
                    let _ = serve(socket, open, &ledger, &responder).await;
                });
            }
            // Descriptors have run out; some will be free again.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(mut socket: TcpStream, open: Open, ledger: &Ledger, responder: &Responder) -> io::Result<()> {
    socket.set_nodelay(true)?;
    match Command::recv(&mut socket).await? {
        Command::Echo => echo(&mut socket).await,
        Command::Respond => responder.take(socket, open).await,
        Command::Download(len) => {
            // Counted before it is written, so that the count stands still when writing does.
            let counted = || {
                ledger.sent(CHUNK);
                CHUNK
            };
            send_pattern(&mut socket, len, counted).await
        }
        Command::Pieces(len, seed) => {
            let mut random = fastrand::Rng::with_seed(seed);
            send_pattern(&mut socket, len, || random.usize(1..=CHUNK)).await
        }
        Command::Flood => {
            bound_unsent(&socket)?;
            let chunk = vec![7; CHUNK];
            loop {
                socket.write_all(&chunk).await?;
                // A task that always finds room would keep echoes of its thread waiting for megabytes.
                yield_now().await;
            }
        }
        Command::Upload => {
            let (sum, _) = checksum_to_end(&mut socket).await?;
            socket.write_u64(sum).await?;
            socket.shutdown().await
        }
        Command::Sink(number) => {
            let taken = ledger.sink(number);
            let mut chunk = vec![0; CHUNK];
            loop {
                match socket.read(&mut chunk).await? {
                    0 => return Ok(()),
                    len => taken.add(len as u64),
                }
                yield_now().await;
            }
        }
        Command::Reset => socket.set_zero_linger(),
    }
}

async fn echo(socket: &mut TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = socket.split();
    tokio::io::copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}

/// Bounds what a sender that never ends has in its socket unsent. A thousand such buffers of the kernel's choice (4 MB)
/// are more than it gives to all of TCP, and what it then drops is of every connection of the machine; and to fill them
/// would take longer than a measurement.
pub fn bound_unsent(socket: &TcpStream) -> io::Result<()> {
    let most = u32::try_from(2 * CHUNK).unwrap_or(u32::MAX);
    SockRef::from(socket).set_tcp_notsent_lowat(most)
}

/// Sends `len` bytes of the pattern, in pieces of up to [`CHUNK`] bytes, and the half-close.
pub async fn send_pattern(
    socket: &mut (impl AsyncWrite + Unpin),
    len: u64,
    mut piece: impl FnMut() -> usize,
) -> io::Result<()> {
    let mut pattern = Pattern::default();
    let mut chunk = vec![0; CHUNK];
    let mut left = len;
    while left > 0 {
        pattern.fill(&mut chunk);
        let mut filled = &chunk[..usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
        left -= filled.len() as u64;
        while !filled.is_empty() {
            let (now, later) = filled.split_at(piece().clamp(1, filled.len()));
            socket.write_all(now).await?;
            filled = later;
        }
    }
    socket.shutdown().await
}

/// Reads to the peer's half-close: the checksum and the number of bytes.
pub async fn checksum_to_end(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<(u64, u64)> {
    checksum_of(socket, u64::MAX, || CHUNK).await
}

/// Reads to the peer's half-close or so many bytes, in pieces of up to [`CHUNK`] bytes: the checksum and the number.
pub async fn checksum_of(
    socket: &mut (impl AsyncRead + Unpin),
    len: u64,
    mut piece: impl FnMut() -> usize,
) -> io::Result<(u64, u64)> {
    let mut sum = Checksum::default();
    let mut total = 0;
    let mut chunk = vec![0; CHUNK];
    while total < len {
        let most = usize::try_from(len - total)
            .unwrap_or(CHUNK)
            .min(piece().clamp(1, CHUNK));
        match socket.read(&mut chunk[..most]).await? {
            0 => break,
            read => {
                sum.update(&chunk[..read]);
                total += read as u64;
            }
        }
    }
    Ok((sum.value(), total))
}
