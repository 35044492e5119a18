//! UDP sockets with buffers that are large enough and, on Linux, with ears for ICMP.

#[cfg(target_os = "linux")]
mod hearing;
mod mtu;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use quinn::AsyncUdpSocket;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

pub(crate) use self::mtu::largest_payload;
use crate::reports::PortReports;

/// Binds a UDP socket and asks for buffers of `buffer` bytes. An IPv6 wildcard address takes IPv4 as well.
pub(crate) fn bind(addr: SocketAddr, buffer: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        // A system without IPv4-mapped addresses still serves IPv6.
        if let Err(error) = socket.set_only_v6(false) {
            tracing::debug!(%addr, %error, "the socket takes IPv6 only");
        }
    }
    socket.bind(&addr.into())?;
    let socket = UdpSocket::from(socket);
    enlarge_buffers(&socket, buffer);
    Ok(socket)
}

/// Binds a socket to dial from: for both families where the system has both.
pub(crate) fn bind_any(buffer: usize) -> io::Result<UdpSocket> {
    bind((Ipv6Addr::UNSPECIFIED, 0).into(), buffer).or_else(|_| bind((Ipv4Addr::UNSPECIFIED, 0).into(), buffer))
}

/// Makes the socket one for quinn, which tells what it hears.
pub(crate) fn wrap(socket: UdpSocket, reports: &PortReports) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    #[cfg(target_os = "linux")]
    let socket = Arc::new(hearing::Hearing::new(socket, reports.clone())?);
    // Other systems do not say which packet an error is about.
    #[cfg(not(target_os = "linux"))]
    let socket = quinn::Runtime::wrap_udp_socket(&quinn::TokioRuntime, socket)?;
    Ok(reports.wrap(socket))
}

/// Asks for buffers of `buffer` bytes each way, and warns when the kernel grants less.
pub(crate) fn enlarge_buffers(socket: &UdpSocket, buffer: usize) {
    let socket = SockRef::from(socket);
    let granted = [
        (
            "net.core.rmem_max",
            socket
                .set_recv_buffer_size(buffer)
                .and_then(|()| socket.recv_buffer_size()),
        ),
        (
            "net.core.wmem_max",
            socket
                .set_send_buffer_size(buffer)
                .and_then(|()| socket.send_buffer_size()),
        ),
    ];
    for (sysctl, granted) in granted {
        match granted.map(usable) {
            Ok(granted) if granted < buffer => tracing::warn!(
                asked = buffer,
                granted,
                "the kernel limits UDP socket buffers, so packets will be lost at high speed; raise the limit with \
                 `sysctl -w {sysctl}={buffer}`"
            ),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot set the size of UDP socket buffers"),
        }
    }
}

/// Linux doubles the size that it is asked for, to make room for its own records, and reports the double (socket(7)).
fn usable(reported: usize) -> usize {
    if cfg!(target_os = "linux") {
        reported / 2
    } else {
        reported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_socket_is_bound_to_a_port_with_buffers_of_the_size_asked_for() {
        let socket = bind_any(64 * 1024).unwrap();
        assert_ne!(socket.local_addr().unwrap().port(), 0);
        let socket = SockRef::from(&socket);
        assert_eq!(usable(socket.recv_buffer_size().unwrap()), 64 * 1024);
        assert_eq!(usable(socket.send_buffer_size().unwrap()), 64 * 1024);
    }

    #[test]
    fn an_address_that_is_taken_is_an_error() {
        let first = bind((Ipv4Addr::LOCALHOST, 0).into(), 4096).unwrap();
        let error = bind(first.local_addr().unwrap(), 4096).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
