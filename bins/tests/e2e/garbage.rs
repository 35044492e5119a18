//! Whatever is sent to the ports: an answer or none, but nobody else is harmed and nothing grows.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

use crate::support::{Tunnel, read_to_end, soon, target};

/// How much memory may come to be used for the first time, for code and buffers that stay.
const SLACK_KIB: u64 = 24 << 10;

/// Bytes that look like chance but are the same every time.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut byte = || {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            self.0.to_be_bytes()[0]
        };
        (0..length).map(|_| byte()).collect()
    }
}

#[tokio::test]
async fn noise_on_the_port_for_agents() {
    let tunnel = Tunnel::start().await;
    let site = target::http("a page\n").await;
    let mut held = tunnel.server.connect(target::echo().await).await.tunnel();
    let before = tunnel.server.resident_kib();
    let mut noise = Noise(1);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for round in 0..20_000_usize {
        let mut datagram = noise.bytes(1 + round * 7 % 1400);
        if round % 3 == 0 {
            // Looks like the first packet of a connection: long header, QUIC version 1.
            datagram.splice(..datagram.len().min(5), [0xc3, 0, 0, 0, 1]);
        }
        // A full buffer of the receiver is no error here.
        let _ = socket.send_to(&datagram, tunnel.server.carrier).await;
    }
    assert_eq!(tunnel.server.fetch(site).await, "a page\n");
    held.write_all(b"x").await.unwrap();
    assert_eq!(soon("the echo", held.read_u8()).await.unwrap(), b'x');
    let grown = tunnel.server.resident_kib().saturating_sub(before);
    assert!(grown < SLACK_KIB, "{grown} KiB");
}

#[tokio::test]
async fn noise_on_the_port_for_clients() {
    let tunnel = Tunnel::start().await;
    let site = target::http("a page\n").await;
    tunnel.server.fetch(site).await;
    let before = tunnel.server.resident_kib();
    let mut noise = Noise(2);
    for _ in 0..300 {
        let mut socket = TcpStream::connect(tunnel.server.proxy).await.unwrap();
        // It may be refused while it is still being sent.
        let _ = socket.write_all(&noise.bytes(4096)).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ = soon("the end", socket.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert_eq!(tunnel.server.fetch(site).await, "a page\n");
    let grown = tunnel.server.resident_kib().saturating_sub(before);
    assert!(grown < SLACK_KIB, "{grown} KiB");
}

#[tokio::test]
async fn headers_without_end_are_cut_off() {
    let tunnel = Tunnel::start().await;
    let site = target::http("a page\n").await;
    tunnel.server.fetch(site).await;
    let before = tunnel.server.resident_kib();
    for _ in 0..30 {
        let mut socket = TcpStream::connect(tunnel.server.proxy).await.unwrap();
        let mut head = b"CONNECT a.example:1 HTTP/1.1\r\nX: ".to_vec();
        head.resize(1 << 20, b'x');
        let _ = socket.write_all(&head).await;
        let mut answer = Vec::new();
        let _ = soon("the end", socket.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    assert_eq!(tunnel.server.fetch(site).await, "a page\n");
    let grown = tunnel.server.resident_kib().saturating_sub(before);
    assert!(grown < SLACK_KIB, "{grown} KiB");
}

#[tokio::test]
async fn clients_that_never_finish_their_request_delay_nobody() {
    let tunnel = Tunnel::start().await;
    let site = target::http("a page\n").await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut socket = TcpStream::connect(tunnel.server.proxy).await.unwrap();
        socket
            .write_all(b"CONNECT a.example:1 HTTP/1.1\r\nX-Slow: ")
            .await
            .unwrap();
        slow.push(socket);
    }
    for _ in 0..10 {
        for socket in &mut slow {
            socket.write_all(b"x").await.unwrap();
        }
        assert_eq!(tunnel.server.fetch(site).await, "a page\n");
    }
    // They are told that it took too long.
    let mut first = slow.swap_remove(0);
    assert!(read_to_end(&mut first).await.starts_with("HTTP/1.1 408 "));
}
