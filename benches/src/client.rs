//! Reaches the target directly or through a CONNECT proxy.

use std::{fmt, io, net::SocketAddr};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A way to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Path {
    /// A plain TCP connection.
    Direct,
    /// A port at this address that leads to the target and nowhere else.
    Forward(SocketAddr),
    /// A CONNECT proxy at this address.
    Proxy(SocketAddr),
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Forward(_) | Self::Proxy(_) => "tunnel",
        })
    }
}

impl Path {
    /// Connects to the target.
    pub async fn connect(self, target: SocketAddr) -> io::Result<TcpStream> {
        self.connect_with(target, &[]).await
    }

    /// Connects to the target, and says something as soon as this client can: to a proxy, together with the CONNECT.
    pub async fn connect_with(self, target: SocketAddr, early: &[u8]) -> io::Result<TcpStream> {
        match self {
            Self::Direct => plain(target, early).await,
            Self::Forward(port) => plain(port, early).await,
            Self::Proxy(proxy) => {
                let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
                let mut socket = plain(proxy, &[request.as_bytes(), early].concat()).await?;
                let head = read_head(&mut socket).await?;
                if head.starts_with("HTTP/1.1 200 ") {
                    return Ok(socket);
                }
                let line = head.lines().next().unwrap_or_default();
                Err(io::Error::other(format!("the proxy answered {line}")))
            }
        }
    }
}

async fn plain(addr: SocketAddr, early: &[u8]) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(addr).await?;
    socket.set_nodelay(true)?;
    socket.write_all(early).await?;
    Ok(socket)
}

/// Reads up to the empty line, and not a byte further.
pub async fn read_head(socket: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::with_capacity(128);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= 16 * 1024 {
            return Err(io::Error::other("the proxy's answer has no end"));
        }
        // Peeking keeps what belongs to the tunnel out of the head without a read for each byte.
        let mut buf = [0; 1024];
        let seen = socket.peek(&mut buf).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let known = head.len();
        head.extend_from_slice(&buf[..seen]);
        let end = head.windows(4).position(|window| window == b"\r\n\r\n");
        head.truncate(end.map_or(head.len(), |end| end + 4));
        let take = head.len() - known;
        socket.read_exact(&mut buf[..take]).await?;
    }
    String::from_utf8(head).map_err(io::Error::other)
}
