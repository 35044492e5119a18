//! A UDP socket that hears which of its packets found no process at their port.
//!
//! Linux keeps ICMP errors in a queue beside the socket, if asked to (`IP_RECVERR`, ip(7)). In exchange it fails the
//! next call on the socket with the last of them, whatever packet that one was about, so every call is repeated: an
//! error that anybody can forge must cost no packet, and least of all the endpoint.

mod send_buffer;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use nix::{
    libc,
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt},
};
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState},
};
use tokio::io::{Interest, unix::AsyncFd};

use self::send_buffer::{SendBuffer, Writable};
use crate::reports::{PortReports, QUOTE};

/// How often a call is repeated that may have failed because of another packet. Each time takes one more forged packet
/// in the microseconds between two calls.
const REPEATS: usize = 3;
/// How many errors are read before the packets that have come get their turn.
const BATCH: usize = 16;
/// Room for the control messages of an error: the error with an address, and what was asked for with every packet.
const CONTROL: usize = 512;

/// ICMP "port unreachable": RFC 792, and RFC 4443 §3.1.
const PORT_UNREACHABLE: (u8, u8) = (3, 3);
const PORT_UNREACHABLE_V6: (u8, u8) = (1, 4);

/// A UDP socket that hears which of its packets found no process at their port.
pub(super) struct Hearing {
    io: Arc<AsyncFd<UdpSocket>>,
    send_buffer: Arc<SendBuffer>,
    state: UdpSocketState,
    ears: Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Hearing {
    pub(super) fn new(socket: UdpSocket, reports: PortReports) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        if let Err(error) = ask_for_errors(&socket) {
            tracing::debug!(%error, "the socket does not hear of unreachable ports");
        }
        let io = Arc::new(register(socket, Interest::READABLE | Interest::ERROR)?);
        let send_buffer = SendBuffer::new(Arc::clone(&io) as Arc<_>);
        let ears = Mutex::new(Box::pin(listen(Arc::clone(&io), reports)) as Pin<Box<_>>);
        Ok(Self {
            io,
            send_buffer,
            state,
            ears,
        })
    }

    fn poll_errors(&self, cx: &mut Context<'_>) {
        // Nothing panics while it is held.
        let mut ears = self.ears.lock().unwrap_or_else(PoisonError::into_inner);
        if ears.as_mut().poll(cx).is_ready() {
            *ears = Box::pin(std::future::pending());
        }
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let once = || self.state.try_send(self.io.get_ref().into(), transmit);
        let mut sent = once();
        for _ in 0..REPEATS {
            match &sent {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => sent = once(),
                _ => break,
            }
        }
        match sent {
            // A probe for larger packets (RFC 8899) has its answer.
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => Ok(()),
            sent => sent,
        }
    }
}

impl AsyncUdpSocket for Hearing {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable::new(Arc::clone(&self.send_buffer)))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.send_buffer.is_full() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let sent = self.send(transmit);
        if matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.send_buffer.fill();
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.poll_errors(cx);
        loop {
            // Takes part in tokio's budget, so that errors without end do not hold the task.
            let mut ready = ready!(self.io.poll_read_ready(cx))?;
            match self.state.recv(self.io.get_ref().into(), bufs, meta) {
                Ok(count) => {
                    if count < bufs.len().min(BATCH_SIZE) {
                        // There are no more, or an error came between them: what follows is an event of its own.
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                // About a packet that was sent.
                Err(_) => {}
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

impl fmt::Debug for Hearing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hearing").field("io", &self.io).finish_non_exhaustive()
    }
}

/// Asks for the errors of both families where the socket has both.
fn ask_for_errors(socket: &UdpSocket) -> io::Result<()> {
    if socket.local_addr()?.is_ipv6() {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
    }
    Ok(setsockopt(socket, sockopt::Ipv4RecvErr, &true)?)
}

/// Reads errors and reports those that say that a port is unreachable.
async fn listen(io: Arc<AsyncFd<UdpSocket>>, reports: PortReports) {
    let mut errors = ErrorQueue::new();
    loop {
        for _ in 0..BATCH {
            match io.async_io(Interest::ERROR, |socket| errors.next(socket)).await {
                Ok(Some(addr)) => reports.unreachable(addr, errors.quoted()),
                Ok(None) => {}
                // The runtime ends.
                Err(_) => return,
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Reads the errors that the system keeps for a socket.
struct ErrorQueue {
    control: Vec<u8>,
    quoted: [u8; QUOTE],
    quoted_len: usize,
}

impl ErrorQueue {
    fn new() -> Self {
        Self {
            control: vec![0; CONTROL],
            quoted: [0; QUOTE],
            quoted_len: 0,
        }
    }

    /// Takes the next error: the destination of a packet that found no process there, or `None` for other errors.
    fn next(&mut self, socket: &UdpSocket) -> io::Result<Option<SocketAddr>> {
        let mut into = [IoSliceMut::new(&mut self.quoted)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let error = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut into, Some(&mut self.control), flags)?;
        self.quoted_len = error.bytes.min(QUOTE);
        let Ok(mut messages) = error.cmsgs() else {
            return Ok(None);
        };
        Ok(messages
            .any(|message| is_port_unreachable(&message))
            .then(|| error.address.as_ref().and_then(socket_addr))
            .flatten())
    }

    /// How the packet began that the error of [`Self::next`] is about.
    fn quoted(&self) -> &[u8] {
        &self.quoted[..self.quoted_len]
    }
}

fn is_port_unreachable(message: &ControlMessageOwned) -> bool {
    // A socket for both families gets the errors of IPv4 in the form of IPv6.
    let (ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _)) = message else {
        return false;
    };
    match error.ee_origin {
        libc::SO_EE_ORIGIN_ICMP => (error.ee_type, error.ee_code) == PORT_UNREACHABLE,
        libc::SO_EE_ORIGIN_ICMP6 => (error.ee_type, error.ee_code) == PORT_UNREACHABLE_V6,
        _ => false,
    }
}

fn socket_addr(addr: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || addr.as_sockaddr_in().map(|addr| (*addr).into());
    let v6 = || addr.as_sockaddr_in6().map(|addr| (*addr).into());
    v4().or_else(v6)
}

/// Has the runtime tell of `interest`.
#[expect(deprecated, reason = "its successor is unsafe, for types whose descriptor changes")]
fn register<T: AsRawFd>(socket: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(socket, interest)
}
