//! The byte pipe below HTTP/2.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tunnel_core::proto::mux::{Account, Budget};
use tunnel_tcp::{
    BoxIo, explain_tls,
    http2::{Frames, Role},
};

#[cfg(feature = "forward")]
use super::frames::Heard;
use super::{ahead::Ahead, frames::Credit};

/// A byte pipe that tells what happens on it, and that is read also while a write is stuck.
///
/// h2 reads nothing while an acknowledgement (of PING, of SETTINGS) waits for the socket. If both ends did so at once,
/// with bulk in both directions, neither would ever read again what the other waits to write. So what comes while a
/// write is stuck is taken off the socket here.
#[derive(Debug)]
pub(crate) struct Pipe {
    io: BoxIo,
    ahead: Ahead,
    /// How reading ahead ended, if it has.
    ended: Option<io::Result<()>>,
    sight: Arc<Sight>,
    incoming: Frames,
    outgoing: Frames,
    #[cfg(feature = "forward")]
    listens: bool,
}

/// What is seen on a pipe.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    received: AtomicU64,
    stuck: AtomicBool,
    starved: AtomicBool,
    /// How much the peer takes.
    pub(crate) credit: Credit,
    /// What the peer has said.
    #[cfg(feature = "forward")]
    pub(crate) heard: Heard,
    /// What TLS had against going on; h2 keeps no more of an error than its text.
    tls: OnceLock<String>,
}

impl Sight {
    /// How many bytes have come.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// What TLS had against going on, as a clause for people.
    #[cfg(feature = "forward")]
    pub(crate) fn tls(&self) -> Option<String> {
        self.tls.get().cloned()
    }

    fn failed(&self, error: &io::Error) {
        if let Some(explanation) = explain_tls(error) {
            // The first one is why.
            let _ = self.tls.set(explanation);
        }
    }

    /// Whether the last write or flush could not complete, and the budget had nothing left to read ahead meanwhile: it is to
    /// be tried again now and then, as nobody is woken when there is room.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed)
    }

    /// Whether the last write or flush could not complete.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }
}

impl Pipe {
    /// A pipe to an end of the other role, of which `begin` has been read. What is read ahead is charged to an account of
    /// the budget, which is that of the connection.
    pub(crate) fn new(io: BoxIo, begin: Bytes, role: Role, budget: &Budget) -> Self {
        let (sight, mut incoming) = (Arc::default(), Frames::of(role.peer()));
        Self::hear(&mut incoming, &sight, &begin);
        Self {
            io,
            ahead: Ahead::new(begin, Arc::new(budget.account())),
            ended: None,
            sight,
            incoming,
            outgoing: Frames::of(role),
            #[cfg(feature = "forward")]
            listens: false,
        }
    }

    /// One that waits for what the peer has said when the first write fails, of which `begin` has been read.
    #[cfg(feature = "forward")]
    pub(crate) fn listening(io: BoxIo, begin: Bytes, role: Role, budget: &Budget) -> Self {
        let pipe = Self::new(io, begin, role, budget);
        Self { listens: true, ..pipe }
    }

    /// Notes what has come.
    fn came(incoming: &mut Frames, sight: &Sight, piece: &[u8]) {
        sight.received.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Self::hear(incoming, sight, piece);
    }

    fn hear(incoming: &mut Frames, sight: &Sight, piece: &[u8]) {
        incoming.see(piece, |frame| {
            sight.credit.came(frame);
            #[cfg(feature = "forward")]
            sight.heard.came(frame);
        });
    }

    /// Notes what has gone.
    fn went(&mut self, piece: &[u8]) {
        let credit = &self.sight.credit;
        self.outgoing.see(piece, |frame| credit.went(frame));
    }

    /// What the connection holds of the budget.
    pub(crate) fn account(&self) -> Arc<Account> {
        Arc::clone(self.ahead.account())
    }

    pub(crate) fn sight(&self) -> Arc<Sight> {
        Arc::clone(&self.sight)
    }

    /// Notes how a write went, and reads ahead if it is stuck, or if it failed: a peer that has gone may have said why.
    fn wrote<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.sight.stuck.store(outcome.is_pending(), Ordering::Relaxed);
        if !matches!(outcome, Poll::Ready(Ok(_))) {
            self.read_ahead(cx);
        }
        let is_starved = outcome.is_pending() && self.ahead.is_starved();
        self.sight.starved.store(is_starved, Ordering::Relaxed);
        #[cfg(feature = "forward")]
        if matches!(outcome, Poll::Ready(Err(_))) && self.may_say_why() {
            return Poll::Pending;
        }
        outcome
    }

    /// Whether the peer has said nothing yet and can still do so: h2 reads no more once a write has failed. Reading has
    /// its waker then, and does not last, for what cannot be written to has gone or is about to.
    #[cfg(feature = "forward")]
    fn may_say_why(&self) -> bool {
        self.listens && self.ended.is_none() && self.sight.received() == 0
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        while self.ended.is_none() {
            let (incoming, sight) = (&mut self.incoming, &self.sight);
            let filled = self
                .ahead
                .poll_fill(&mut self.io, cx, |piece| Self::came(incoming, sight, piece));
            match filled {
                Poll::Pending => return,
                Poll::Ready(Err(error)) => {
                    self.sight.failed(&error);
                    self.ended = Some(Err(error));
                }
                Poll::Ready(Ok(0)) => self.ended = Some(Ok(())),
                Poll::Ready(Ok(_)) => {}
            }
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.give(into) {
            return Poll::Ready(Ok(()));
        }
        // An error is told once, and the end after it.
        if let Some(ended) = &mut self.ended {
            return Poll::Ready(std::mem::replace(ended, Ok(())));
        }
        let before = into.filled().len();
        let this = &mut *self;
        let read = ready!(Pin::new(&mut this.io).poll_read(cx, into));
        read.inspect_err(|error| this.sight.failed(error))?;
        Self::came(&mut this.incoming, &this.sight, &into.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.went(&bytes[..count]);
        }
        self.wrote(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(mut left)) = written {
            for slice in slices {
                let count = left.min(slice.len());
                self.went(&slice[..count]);
                left -= count;
            }
        }
        self.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.wrote(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_was_read_before_comes_first() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut pipe = Pipe::new(
            Box::new(near),
            Bytes::from_static(b"first "),
            Role::Client,
            &Budget::default(),
        );
        far.write_all(b"second").await.unwrap();
        drop(far);
        let mut all = String::new();
        pipe.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "first second");
        assert_eq!(pipe.sight().received(), 6, "only what came through it counts");
    }

    /// Nothing can be written to it any more, and it has ended when it is read for the second time.
    #[cfg(feature = "forward")]
    #[derive(Debug)]
    struct Gone {
        is_read: bool,
    }

    #[cfg(feature = "forward")]
    impl AsyncRead for Gone {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            if std::mem::replace(&mut self.is_read, true) {
                return Poll::Ready(Ok(()));
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }

    #[cfg(feature = "forward")]
    impl AsyncWrite for Gone {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[cfg(feature = "forward")]
    #[tokio::test]
    async fn a_write_that_fails_at_first_waits_for_what_the_peer_has_said() {
        let mut pipe = Pipe::listening(
            Box::new(Gone { is_read: false }),
            Bytes::new(),
            Role::Client,
            &Budget::default(),
        );
        let first = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut pipe).poll_write(cx, b"x")));
        assert!(first.await.is_pending());
        let failed = pipe.write(b"x").await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn it_is_read_while_a_write_is_stuck() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut pipe = Pipe::new(Box::new(near), Bytes::new(), Role::Client, &Budget::default());
        let sight = pipe.sight();
        // Both ends write more than the pipe holds before either reads.
        let (sent, received) = tokio::join!(
            async {
                pipe.write_all(&[1; 100]).await.unwrap();
                assert!(!sight.is_stuck());
                let mut all = [0; 100];
                pipe.read_exact(&mut all).await.unwrap();
                all
            },
            async {
                far.write_all(&[2; 100]).await.unwrap();
                let mut all = [0; 100];
                far.read_exact(&mut all).await.unwrap();
                all
            },
        );
        assert_eq!((sent, received), ([2; 100], [1; 100]));
    }

    #[tokio::test]
    async fn a_stuck_write_that_cannot_read_ahead_shows() {
        let budget = Budget::new(20_000);
        let others = budget.account();
        others.charge(20_000).unwrap();
        let (near, mut far) = tokio::io::duplex(16);
        let mut pipe = Pipe::new(Box::new(near), Bytes::new(), Role::Client, &budget);
        let sight = pipe.sight();
        far.write_all(&[2; 16]).await.unwrap();
        let mut write = async |bytes: &[u8]| {
            std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut pipe).poll_write(cx, bytes).is_ready())).await
        };
        assert!(write(&[1; 16]).await && !sight.is_starved());
        assert!(!write(&[1]).await && sight.is_starved(), "nobody can read");
        others.release(20_000);
        assert!(!write(&[1]).await && !sight.is_starved());
        assert_eq!(sight.received(), 16);
        others.charge(4_000).unwrap();
        assert!(!write(&[1]).await && sight.is_starved());
        far.read_exact(&mut [0; 16]).await.unwrap();
        assert!(write(&[1]).await && !sight.is_starved());
    }
}
