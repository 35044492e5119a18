//! What was read before anybody asked for it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead as _, ReadBuf};
use tunnel_core::proto::mux::Account;
use tunnel_tcp::BoxIo;

/// How much is kept at most: more than what the sockets of two ends hold.
const MOST: usize = 8 * 1024 * 1024;
/// How much is read at once.
const PIECE: usize = 16 * 1024;

/// Bytes that were taken off the socket and not yet asked for. They are charged to the budget until then.
#[derive(Debug)]
pub(crate) struct Ahead {
    bytes: BytesMut,
    /// How many of them are charged: all but what came with the handshake.
    charged: usize,
    account: Arc<Account>,
    /// Whether the budget had nothing left the last time.
    is_starved: bool,
}

impl Ahead {
    /// What came with the handshake.
    pub(crate) fn new(begin: Bytes, account: Arc<Account>) -> Self {
        Self {
            bytes: begin.into(),
            charged: 0,
            account,
            is_starved: false,
        }
    }

    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Gives what there is room for, if there is anything.
    pub(crate) fn give(&mut self, into: &mut ReadBuf<'_>) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        let count = self.bytes.len().min(into.remaining());
        into.put_slice(&self.bytes[..count]);
        self.bytes.advance(count);
        if self.bytes.is_empty() {
            // It would keep the memory of the most that it ever held.
            self.bytes = BytesMut::new();
        }
        let over = self.charged.saturating_sub(self.bytes.len());
        self.release(over);
        true
    }

    /// Reads a piece; gives its length, which is 0 at the end. Pending without a wake when there is no more room, here or
    /// in the budget: the next stuck write tries again.
    pub(crate) fn poll_fill(
        &mut self,
        io: &mut BoxIo,
        cx: &mut Context<'_>,
        mut came: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        // Before the read: what was taken off the socket cannot be put back.
        if self.bytes.len() >= MOST {
            return Poll::Pending;
        }
        self.is_starved = self.account.charge(PIECE as u64).is_err();
        if self.is_starved {
            return Poll::Pending;
        }
        self.charged += PIECE;
        let mut piece = [0; PIECE];
        let mut into = ReadBuf::new(&mut piece);
        let read = Pin::new(io).poll_read(cx, &mut into);
        let piece = into.filled();
        self.release(PIECE - piece.len());
        came(piece);
        self.bytes.extend_from_slice(piece);
        read.map_ok(|()| piece.len())
    }

    /// Whether the budget had nothing left the last time, which nobody is told when it has.
    pub(crate) fn is_starved(&self) -> bool {
        self.is_starved
    }

    fn release(&mut self, bytes: usize) {
        self.charged -= bytes;
        self.account.release(bytes as u64);
    }
}

/// The account may live on, with the handle of the connection.
impl Drop for Ahead {
    fn drop(&mut self) {
        self.release(self.charged);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tunnel_core::proto::mux::Budget;

    use super::*;

    /// Reads until there is nothing, or no room.
    fn fill(ahead: &mut Ahead, io: &mut BoxIo) -> usize {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let mut all = 0;
        while let Poll::Ready(read) = ahead.poll_fill(io, cx, |_| ()) {
            all += read.unwrap();
        }
        all
    }

    fn take(ahead: &mut Ahead, most: usize) -> usize {
        let mut bytes = vec![0; most];
        let mut into = ReadBuf::new(&mut bytes);
        ahead.give(&mut into);
        into.filled().len()
    }

    #[tokio::test]
    async fn the_budget_pays_for_what_waits_and_no_longer() {
        let budget = Budget::new(1 << 30);
        let (near, mut far) = tokio::io::duplex(100_000);
        let mut io: BoxIo = Box::new(near);
        let mut ahead = Ahead::new(Bytes::from_static(b"begin"), Arc::new(budget.account()));
        far.write_all(&[7; 100_000]).await.unwrap();
        assert_eq!(fill(&mut ahead, &mut io), 100_000);
        assert_eq!(budget.used(), 100_000);
        assert_eq!(take(&mut ahead, 5), 5);
        assert_eq!(budget.used(), 100_000);
        assert_eq!(take(&mut ahead, 60_000), 60_000);
        assert_eq!(budget.used(), 40_000);
        assert_eq!(take(&mut ahead, usize::from(u16::MAX)), 40_000);
        assert_eq!((budget.used(), ahead.bytes.capacity()), (0, 0));

        far.write_all(&[7; 100]).await.unwrap();
        let account = Arc::clone(ahead.account());
        assert_eq!(fill(&mut ahead, &mut io), 100);
        drop(ahead);
        assert_eq!((budget.used(), account.held()), (0, 0));
    }

    #[tokio::test]
    async fn nothing_is_read_that_there_is_no_room_for() {
        let budget = Budget::new(50_000);
        let (near, mut far) = tokio::io::duplex(100_000);
        let mut io: BoxIo = Box::new(near);
        let mut ahead = Ahead::new(Bytes::new(), Arc::new(budget.account()));
        far.write_all(&[7; 100_000]).await.unwrap();
        assert_eq!(fill(&mut ahead, &mut io), 3 * PIECE);
        assert_eq!(take(&mut ahead, PIECE), PIECE);
        assert_eq!(fill(&mut ahead, &mut io), PIECE);

        let budget = Budget::new(1 << 30);
        let (near, mut far) = tokio::io::duplex(2 * MOST);
        let mut io: BoxIo = Box::new(near);
        let mut ahead = Ahead::new(Bytes::new(), Arc::new(budget.account()));
        far.write_all(&vec![7; 2 * MOST]).await.unwrap();
        let mut all = 0;
        // A pipe of tokio's has its own idea of how much a task may do at once.
        for _ in 0..100 {
            all += fill(&mut ahead, &mut io);
            tokio::task::yield_now().await;
        }
        assert_eq!(all, MOST);
    }
}
