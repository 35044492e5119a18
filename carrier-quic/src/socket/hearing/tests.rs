//! With real sockets on this machine.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicBool, Ordering},
};

use tokio::time::timeout;

use super::*;
use crate::{reports::Watch, socket};

const PACKET: [u8; 40] = [7; 40];
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// An address that nobody has.
fn closed(ip: impl Into<std::net::IpAddr>) -> io::Result<SocketAddr> {
    std::net::UdpSocket::bind((ip.into(), 0))?.local_addr()
}

fn wrapped(socket: std::net::UdpSocket) -> (Arc<dyn AsyncUdpSocket>, PortReports) {
    let reports = PortReports::new();
    (socket::wrap(socket, &reports).unwrap(), reports)
}

async fn send(socket: &Arc<dyn AsyncUdpSocket>, destination: SocketAddr, contents: &[u8]) {
    let mut poller = Arc::clone(socket).create_io_poller();
    let transmit = Transmit {
        destination,
        ecn: None,
        contents,
        segment_size: None,
        src_ip: None,
    };
    loop {
        std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx))
            .await
            .unwrap();
        match socket.try_send(&transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return sent.unwrap(),
        }
    }
}

fn poll_recv(socket: &Arc<dyn AsyncUdpSocket>, cx: &mut Context<'_>) -> Poll<Vec<u8>> {
    let mut buffer = [0; 2048];
    let mut meta = [RecvMeta::default()];
    let received = socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta);
    received.map(|received| {
        assert_eq!(received.unwrap(), 1);
        assert_eq!(meta[0].stride, meta[0].len, "one at a time");
        buffer[..meta[0].len].to_vec()
    })
}

async fn recv(socket: &Arc<dyn AsyncUdpSocket>) -> Vec<u8> {
    let received = std::future::poll_fn(|cx| poll_recv(socket, cx));
    timeout(PATIENCE, received).await.expect("a packet")
}

async fn heard(socket: &Arc<dyn AsyncUdpSocket>, watch: &mut Watch) {
    let heard = async {
        tokio::select! {
            biased;
            packet = recv(socket) => panic!("from nowhere: {packet:?}"),
            why = watch.dead_end() => assert_eq!(why.to_string(), "nobody listens on that UDP port"),
        }
    };
    timeout(PATIENCE, heard).await.expect("a report");
}

#[tokio::test]
async fn a_port_that_nobody_has_is_reported_with_the_packet() {
    let v4 = closed(Ipv4Addr::LOCALHOST).unwrap();
    let mut cases = vec![("0.0.0.0:0", v4), ("127.0.0.1:0", v4)];
    match closed(Ipv6Addr::LOCALHOST) {
        Ok(v6) => cases.extend([("[::]:0", v6), ("[::]:0", mapped(v4)), ("[::1]:0", v6)]),
        Err(_) => println!("not tested with IPv6: this system has none"),
    }
    for (from, to) in cases {
        let (socket, reports) = wrapped(socket::bind(from.parse().unwrap(), 65_536).unwrap());
        let mut watch = reports.watch(to);
        send(&socket, to, &PACKET).await;
        heard(&socket, &mut watch).await;
        // Each packet, not the first alone.
        let mut watch = reports.watch(to);
        send(&socket, to, &PACKET).await;
        heard(&socket, &mut watch).await;
    }
}

fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        std::net::IpAddr::V4(ip) => (ip.to_ipv6_mapped(), addr.port()).into(),
        std::net::IpAddr::V6(_) => addr,
    }
}

#[tokio::test]
async fn errors_cost_no_packet_in_either_direction() {
    let (socket, _reports) = wrapped(socket::bind((Ipv4Addr::LOCALHOST, 0).into(), 1 << 20).unwrap());
    let nobody = closed(Ipv4Addr::LOCALHOST).unwrap();
    let peer = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let here = socket.local_addr().unwrap();
    for number in 0..200_u8 {
        // Over loopback the error is there when the call returns, and fails the next one.
        send(&socket, nobody, &PACKET).await;
        send(&socket, peer.local_addr().unwrap(), &[number]).await;
        let mut buffer = [0; 8];
        let received = timeout(PATIENCE, peer.recv(&mut buffer)).await;
        assert_eq!(received.expect("a packet").unwrap(), 1);
        assert_eq!(buffer[0], number);

        peer.send_to(&[number, number], here).await.unwrap();
        send(&socket, nobody, &PACKET).await;
        assert_eq!(recv(&socket).await, [number, number]);
    }
}

#[tokio::test]
async fn a_socket_with_errors_rests_when_they_are_read() {
    let (socket, reports) = wrapped(socket::bind((Ipv4Addr::LOCALHOST, 0).into(), 65_536).unwrap());
    let nobody = closed(Ipv4Addr::LOCALHOST).unwrap();
    for _ in 0..3 * BATCH {
        send(&socket, nobody, &PACKET).await;
    }
    let mut watch = reports.watch(nobody);
    send(&socket, nobody, &PACKET).await;
    heard(&socket, &mut watch).await;

    // What is left of the burst may wake it a few times more.
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    for turn in 0..2000 {
        let woken = woken.take();
        assert!(turn < 1000 || !woken, "woken without a reason");
        if woken || turn == 0 {
            assert!(poll_recv(&socket, &mut Context::from_waker(&waker)).is_pending());
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn packets_that_come_beside_errors_are_all_read() {
    const BURST: u32 = 100;
    let (socket, _reports) = wrapped(socket::bind((Ipv4Addr::LOCALHOST, 0).into(), 1 << 20).unwrap());
    let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    peer.connect(socket.local_addr().unwrap()).unwrap();
    let nobody = closed(Ipv4Addr::LOCALHOST).unwrap();
    let (next, bursts) = std::sync::mpsc::sync_channel(1);
    let sender = std::thread::spawn(move || {
        for first in bursts {
            for number in first..first + BURST {
                peer.send(&u32::to_be_bytes(number)).unwrap();
            }
        }
    });

    // More than come at once, now and then, and less.
    let mut buffers = [[0; 64]; 8];
    let mut expected = 0;
    for burst in 0..100 {
        next.send(burst * BURST).unwrap();
        // Fails a call, or ends one early.
        send(&socket, nobody, &PACKET).await;
        while expected < (burst + 1) * BURST {
            let mut meta = [RecvMeta::default(); 8];
            let mut into = buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
            let received = std::future::poll_fn(|cx| socket.poll_recv(cx, &mut into, &mut meta));
            let count = timeout(PATIENCE, received).await.expect("packets").unwrap();
            for (buffer, meta) in buffers.iter().zip(&meta[..count]) {
                for packet in buffer[..meta.len].chunks(meta.stride) {
                    assert_eq!(packet, u32::to_be_bytes(expected));
                    expected += 1;
                }
            }
        }
    }
    drop(next);
    sender.join().unwrap();
}

#[tokio::test]
async fn the_system_is_not_asked_for_room() {
    let socket = socket::bind((Ipv4Addr::LOCALHOST, 0).into(), 65_536).unwrap();
    let descriptor = socket.as_raw_fd();
    let _socket = wrapped(socket);
    let asked = asked_for(descriptor);
    assert_eq!(asked & libc::EPOLLIN, libc::EPOLLIN, "{asked:#x}");
    assert_eq!(asked & libc::EPOLLOUT, 0, "{asked:#x}");
}

/// What the runtime asks of a descriptor (proc_pid_fdinfo(5)).
fn asked_for(descriptor: i32) -> i32 {
    let infos = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let descriptor = descriptor.to_string();
    let mut asked = infos.flat_map(|info| {
        // Other tests close some meanwhile.
        let info = std::fs::read_to_string(info.unwrap().path()).unwrap_or_default();
        info.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let is_it = words.next() == Some("tfd:") && words.next() == Some(&descriptor);
            is_it.then(|| words.nth(1).unwrap().to_owned())
        })
    });
    let asked = asked.next().expect("an epoll instance");
    // The highest bit says that events are edges.
    u32::from_str_radix(&asked, 16).unwrap().cast_signed()
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Woken {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}
