//! A socket that remembers what is sent to addresses that are watched, and survives what fails.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::{PortReports, canonical};

/// A socket that remembers what is sent to addresses that are watched, and is else the one inside it. A packet that
/// cannot be sent is lost, like one on the way: quinn would end the connection, or not notice that it cannot go on.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Arc<dyn AsyncUdpSocket>,
    reports: PortReports,
}

impl Watched {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, reports: PortReports) -> Self {
        Self { inner, reports }
    }
}

impl AsyncUdpSocket for Watched {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let suspects = self.reports.suspects();
        // Before they are sent, as the report of a near peer comes while the packet is being sent.
        if suspects.any() {
            let size = transmit.segment_size.unwrap_or(transmit.contents.len());
            let packets = transmit.contents.chunks(size.max(1));
            suspects.remember(canonical(transmit.destination), packets);
        }
        match self.inner.try_send(transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(error) => self.reports.not_sent(transmit.destination, error),
            Ok(()) if suspects.any() => suspects.sent(canonical(transmit.destination)),
            Ok(()) => {}
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
