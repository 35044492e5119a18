//! The service behind the tunnel: echoes, sends or swallows what the client asks for.
//!
//! A client's first byte is the [`Command`], followed by a length (eight bytes, big endian) where the command has one.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// What a client asks of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send everything back, half-close included.
    Echo,
    /// Send so many bytes of [`Pattern`], then close.
    Download(u64),
    /// Swallow everything up to the half-close, then answer with the [`Checksum`] of it (eight bytes).
    Upload,
    /// Reset the connection.
    Reset,
}

impl Command {
    /// Writes the command.
    pub async fn send(self, socket: &mut TcpStream) -> io::Result<()> {
        match self {
            Self::Echo => socket.write_all(b"E").await,
            Self::Upload => socket.write_all(b"U").await,
            Self::Reset => socket.write_all(b"R").await,
            Self::Download(len) => {
                let mut bytes = [0; 9];
                bytes[0] = b'D';
                bytes[1..].copy_from_slice(&len.to_be_bytes());
                socket.write_all(&bytes).await
            }
        }
    }

    async fn recv(socket: &mut TcpStream) -> io::Result<Self> {
        match socket.read_u8().await? {
            b'E' => Ok(Self::Echo),
            b'U' => Ok(Self::Upload),
            b'R' => Ok(Self::Reset),
            b'D' => Ok(Self::Download(socket.read_u64().await?)),
            other => Err(io::Error::other(format!("no command {other:#x}"))),
        }
    }
}

/// Size of the pieces in which bulk data is read and written.
pub const CHUNK: usize = 64 * 1024;

/// An endless sequence of bytes that does not repeat in lengths a bug would shift it by.
#[derive(Clone, Debug, Default)]
pub struct Pattern(u64);

impl Pattern {
    /// Fills `buf`, whose length is a multiple of eight, with the next bytes.
    pub fn fill(&mut self, buf: &mut [u8]) {
        for word in buf.chunks_exact_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            word.copy_from_slice(&(self.0 ^ (self.0 >> 29)).to_le_bytes());
        }
    }
}

/// A checksum that depends on the place of every byte and can be fed in pieces of any length.
#[derive(Clone, Debug, Default)]
pub struct Checksum {
    sum: u64,
    weighted: u64,
    word: u64,
    filled: u32,
}

impl Checksum {
    /// Adds bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while self.filled != 0 && !bytes.is_empty() {
            self.push(bytes[0]);
            bytes = &bytes[1..];
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        rest.iter().for_each(|byte| self.push(*byte));
    }

    /// The sum of everything so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        let mut last = self.clone();
        last.add(last.word | u64::from(last.filled) << 60);
        last.weighted.rotate_left(17) ^ last.sum
    }

    fn push(&mut self, byte: u8) {
        self.word |= u64::from(byte) << (8 * self.filled);
        self.filled += 1;
        if self.filled == 8 {
            self.add(self.word);
            (self.word, self.filled) = (0, 0);
        }
    }

    fn add(&mut self, word: u64) {
        self.sum = self.sum.wrapping_add(word);
        self.weighted = self.weighted.wrapping_add(self.sum);
    }
}

/// Serves on a loopback port of the system's choice for as long as the runtime lives.
pub async fn spawn() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                // A client that goes away in the middle is part of some measurements.
                Ok((socket, _)) => drop(tokio::spawn(async move { serve(socket).await.ok() })),
                // Descriptors have run out; some will be free again.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    });
    Ok(addr)
}

async fn serve(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    match Command::recv(&mut socket).await? {
        Command::Echo => {
            let (mut reader, mut writer) = socket.split();
            tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await
        }
        Command::Download(len) => send_pattern(&mut socket, len).await,
        Command::Upload => {
            let (sum, _) = checksum_to_end(&mut socket).await?;
            socket.write_u64(sum).await?;
            socket.shutdown().await
        }
        Command::Reset => socket.set_zero_linger(),
    }
}

/// Sends `len` bytes of the pattern and the half-close.
pub async fn send_pattern(socket: &mut TcpStream, len: u64) -> io::Result<()> {
    let mut pattern = Pattern::default();
    let mut chunk = vec![0; CHUNK];
    let mut left = len;
    while left > 0 {
        pattern.fill(&mut chunk);
        let part = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        socket.write_all(&chunk[..part]).await?;
        left -= part as u64;
    }
    socket.shutdown().await
}

/// The checksum of `len` bytes of the pattern.
#[must_use]
pub fn pattern_checksum(len: u64) -> u64 {
    let mut pattern = Pattern::default();
    let mut sum = Checksum::default();
    let mut chunk = vec![0; CHUNK];
    let mut left = len;
    while left > 0 {
        pattern.fill(&mut chunk);
        let part = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        sum.update(&chunk[..part]);
        left -= part as u64;
    }
    sum.value()
}

/// Reads to the peer's half-close: the checksum and the number of bytes.
pub async fn checksum_to_end(socket: &mut TcpStream) -> io::Result<(u64, u64)> {
    let mut sum = Checksum::default();
    let mut total = 0;
    let mut chunk = vec![0; CHUNK];
    loop {
        match socket.read(&mut chunk).await? {
            0 => return Ok((sum.value(), total)),
            len => {
                sum.update(&chunk[..len]);
                total += len as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_does_not_depend_on_the_pieces() {
        let mut bytes = vec![0; 4096];
        Pattern::default().fill(&mut bytes);
        let mut whole = Checksum::default();
        whole.update(&bytes[..4001]);
        let mut pieces = Checksum::default();
        for piece in bytes[..4001].chunks(13) {
            pieces.update(piece);
        }
        assert_eq!(whole.value(), pieces.value());
    }

    #[test]
    fn the_checksum_notices_loss_and_exchange() {
        let sum = |bytes: &[u8]| {
            let mut sum = Checksum::default();
            sum.update(bytes);
            sum.value()
        };
        let mut bytes = vec![0; 256];
        Pattern::default().fill(&mut bytes);
        let right = sum(&bytes);
        assert_ne!(right, sum(&bytes[..255]));
        bytes.swap(0, 200);
        assert_ne!(right, sum(&bytes));
        bytes.swap(0, 200);
        bytes.rotate_left(8);
        assert_ne!(right, sum(&bytes));
    }
}
