//! Waiting for room in the send buffer of a socket.
//!
//! Linux says that a UDP socket is writable whenever a packet has left it, full or not, and a thread that sleeps is woken
//! for it. So it is asked only while the socket is full.

use std::{
    fmt,
    future::Future,
    io,
    os::fd::AsFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use quinn::UdpPoller;
use tokio::{io::Interest, runtime::Handle, sync::Notify, time::sleep};

use super::register;

/// How soon a packet is tried again where the system cannot be asked, for want of descriptors or memory.
const RETRY: Duration = Duration::from_millis(1);

/// Whether there is room in the send buffer of a socket.
pub(super) struct Room {
    socket: Arc<dyn AsFd + Send + Sync>,
    /// The runtime that asks the system.
    home: Handle,
    full: AtomicBool,
    emptied: Notify,
}

impl Room {
    /// Of a socket of the current runtime.
    pub(super) fn new(socket: Arc<dyn AsFd + Send + Sync>) -> Arc<Self> {
        Arc::new(Self {
            socket,
            home: Handle::current(),
            full: AtomicBool::new(false),
            emptied: Notify::new(),
        })
    }

    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// The socket has refused a packet.
    pub(super) fn fill(self: &Arc<Self>) {
        if self.full.swap(true, Ordering::AcqRel) {
            return;
        }
        let full = Full(Arc::clone(self));
        self.home.spawn(async move {
            if let Err(error) = full.0.writable().await {
                tracing::debug!(%error, "cannot wait for room in the send buffer of a UDP socket");
                sleep(RETRY).await;
            }
        });
    }

    /// Asks the system, by a descriptor of its own, for each can be registered only once.
    async fn writable(&self) -> io::Result<()> {
        let socket = register(self.socket.as_fd().try_clone_to_owned()?, Interest::WRITABLE)?;
        socket.writable().await?.retain_ready();
        Ok(())
    }

    async fn emptied(&self) {
        loop {
            // Before the look, so that no change is missed.
            let emptied = self.emptied.notified();
            if !self.is_full() {
                return;
            }
            emptied.await;
        }
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("full", &self.full).finish_non_exhaustive()
    }
}

/// The time for which a socket is full. The end of the runtime ends it, too.
struct Full(Arc<Room>);

impl Drop for Full {
    fn drop(&mut self) {
        self.0.full.store(false, Ordering::Release);
        self.0.emptied.notify_waiters();
    }
}

/// Waits for room, beside others that do.
pub(super) struct Writable {
    room: Arc<Room>,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Writable {
    pub(super) fn new(room: Arc<Room>) -> Self {
        Self { room, waiting: None }
    }
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { room, waiting } = &mut *self;
        if room.is_full() {
            let emptied = waiting.get_or_insert_with(|| {
                let room = Arc::clone(room);
                Box::pin(async move { room.emptied().await })
            });
            ready!(emptied.as_mut().poll(cx));
        }
        *waiting = None;
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable")
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
        task::Waker,
    };

    use super::*;

    impl Writable {
        fn is_ready(&mut self) -> bool {
            Pin::new(self)
                .poll_writable(&mut Context::from_waker(Waker::noop()))
                .is_ready()
        }

        async fn ready(&mut self) {
            poll_fn(|cx| Pin::new(&mut *self).poll_writable(cx)).await.unwrap();
        }
    }

    fn fill(mut socket: &UnixStream) {
        while socket.write(&[0; 4096]).is_ok() {}
    }

    #[tokio::test]
    async fn all_who_wait_go_on_when_there_is_room() {
        // A UDP socket on loopback is never full.
        let (socket, mut peer) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = Arc::new(socket);
        let room = Room::new(Arc::clone(&socket) as Arc<_>);
        let [first, second, third] = &mut [0; 3].map(|_| Writable::new(Arc::clone(&room)));
        for _ in 0..3 {
            assert!(first.is_ready(), "not full yet");
            fill(&socket);
            room.fill();
            for _ in 0..10 {
                assert!(!first.is_ready() && !second.is_ready(), "full");
                tokio::task::yield_now().await;
            }
            let mut sent = vec![0; 1 << 20];
            assert!(peer.read(&mut sent).unwrap() > 0);
            tokio::join!(first.ready(), second.ready(), third.ready());
        }
    }

    #[tokio::test]
    async fn room_that_is_there_meanwhile_is_found() {
        let (socket, _peer) = UnixStream::pair().unwrap();
        let room = Room::new(Arc::new(socket));
        room.fill();
        room.fill();
        let mut writable = Writable::new(Arc::clone(&room));
        assert!(!writable.is_ready(), "nobody has looked");
        writable.ready().await;
        assert!(!room.is_full());
    }
}
