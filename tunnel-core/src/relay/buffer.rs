//! The buffer for reading from a socket.

use std::{
    io,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use super::{
    Socket,
    crowd::{Crowd, EVERYBODY, Member},
};

/// The smallest buffer, and the first: most streams carry a request and an answer.
pub(super) const SMALL: usize = 1024;
/// The largest buffer before [`GROW_TO_LARGE`]: a full TLS record or HTTP/2 frame.
pub(super) const MEDIUM: usize = 16 * 1024;
/// The largest buffer, while there are few such: beyond it, larger reads gain nothing measurable.
pub(super) const LARGE: usize = 128 * 1024;
/// A stream that has read this much is a bulk transfer, worth a large buffer.
const GROW_TO_LARGE: u64 = 1024 * 1024;

/// Reads from a socket into buffers that fit the traffic, and gives the bytes away without copying them.
///
/// A buffer is twice the size of what the burst has brought so far, or of what the last one brought, between [`SMALL`]
/// and a limit that rises with the bytes read, and falls while many streams move bulk. So bulk reaches large buffers in a
/// few reads, and a small message does not pin a large buffer while the carrier waits for its acknowledgement. While the
/// socket has nothing to read there is no buffer at all.
#[derive(Debug)]
pub(super) struct ReadBuffer {
    free: BytesMut,
    /// Bytes read in all.
    read: u64,
    /// Bytes read since the socket last had nothing.
    burst: usize,
    /// What the burst before brought.
    last_burst: usize,
    crowd: &'static Crowd,
    /// Its place in the crowd, while it is amid a burst of bulk.
    member: Option<Member>,
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self::in_crowd(&EVERYBODY)
    }
}

impl ReadBuffer {
    /// One that counts among others than [`EVERYBODY`].
    pub(super) fn in_crowd(crowd: &'static Crowd) -> Self {
        Self {
            free: BytesMut::new(),
            read: 0,
            burst: 0,
            last_burst: 0,
            crowd,
            member: None,
        }
    }

    /// Pending while a read would be.
    pub(super) fn poll_ready<S: Socket>(&mut self, cx: &mut Context<'_>, socket: &mut S) -> Poll<io::Result<()>> {
        let ready = socket.poll_read_ready(cx);
        if ready.is_pending() {
            self.end_burst();
        }
        ready
    }

    /// Reads once, at most `most` bytes (which must not be zero); `None` at the socket's end.
    pub(super) fn poll_read<S: Socket>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
        most: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        // A nearly used up block would only make the next read short.
        if self.free.capacity() < SMALL / 2 {
            self.free = BytesMut::with_capacity(self.next_size(most));
        }
        let read = pin!(socket.read_buf(&mut (&mut self.free).limit(most))).poll(cx);
        if read.is_pending() {
            self.end_burst();
        }
        let read = ready!(read)?;
        self.read = self.read.saturating_add(read as u64);
        self.burst = self.burst.saturating_add(read);
        Poll::Ready(Ok((read > 0).then(|| self.free.split().freeze())))
    }

    /// Holds nothing until the next read.
    pub(super) fn rest(&mut self) {
        self.free = BytesMut::new();
        self.member = None;
    }

    /// The socket has nothing more for now.
    fn end_burst(&mut self) {
        self.rest();
        if self.burst > 0 {
            self.last_burst = std::mem::take(&mut self.burst);
        }
    }

    /// The size of the next buffer.
    fn next_size(&mut self, most: usize) -> usize {
        let limit = if self.read < GROW_TO_LARGE {
            MEDIUM
        } else {
            self.member.get_or_insert_with(|| self.crowd.join()).share()
        };
        let burst = self.burst.max(self.last_burst).min(limit);
        (2 * burst).next_power_of_two().min(most).clamp(SMALL, limit)
    }

    /// Bytes held for reading into.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.free.capacity()
    }
}
