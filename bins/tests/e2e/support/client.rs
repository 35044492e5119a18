//! HTTP clients, as raw as the tests need them.

use std::{fmt::Display, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use super::soon;

/// The head of an answer to CONNECT, and the connection that it came on.
#[derive(Debug)]
pub(crate) struct Answer<S> {
    pub(crate) status: u16,
    pub(crate) head: String,
    stream: S,
}

/// Asks a proxy for a target.
pub(crate) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: S, target: impl Display) -> Answer<S> {
    ask_with(stream, target, "").await
}

/// Asks with more header lines, each with its line end.
pub(crate) async fn ask_with<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    target: impl Display,
    headers: &str,
) -> Answer<S> {
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = soon("the answer to CONNECT", read_head(&mut stream)).await;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer {
        status: status.unwrap_or_else(|| panic!("not an answer: {head:?}")),
        head,
        stream,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Answer<S> {
    /// The tunnel, as the answer must have been 200.
    pub(crate) fn tunnel(self) -> S {
        assert_eq!(self.status, 200, "{}", self.head);
        self.stream
    }

    /// The head and the body of a refusal.
    pub(crate) async fn refusal(mut self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.head);
        self.head + &read_to_end(&mut self.stream).await
    }
}

/// Byte by byte, so that nothing behind the head is taken.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    String::from_utf8(head).unwrap()
}

/// Everything up to the clean end.
pub(crate) async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    soon("the end", stream.read_to_string(&mut text)).await.unwrap();
    text
}

/// Reads until the stream ends in whatever way.
pub(crate) async fn end(stream: &mut TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {}
}

/// Fetches a page through a proxy.
pub(crate) async fn fetch(proxy: SocketAddr, target: SocketAddr) -> String {
    let socket = TcpStream::connect(proxy).await.unwrap();
    request(ask(socket, target).await.tunnel(), "/page").await.1
}

/// Gets a path of an admin address: status and body.
pub(crate) async fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    request(TcpStream::connect(admin).await.unwrap(), path).await
}

async fn request(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap();
    (status.parse().unwrap(), body.to_owned())
}
