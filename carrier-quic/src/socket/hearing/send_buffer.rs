//! Waiting for room in the send buffer of a socket.
//!
//! Linux says that a UDP socket is writable whenever a packet has left it, full or not, and a thread that sleeps is woken
//! for it. So it is asked only while the socket is full.

use std::{
    fmt,
    future::Future,
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use quinn::UdpPoller;
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
    sync::Notify,
    task::AbortHandle,
    time::sleep,
};

use super::register;

/// How soon a packet is tried again where the system cannot be asked, for want of descriptors or memory.
const RETRY: Duration = Duration::from_millis(1);

/// The send buffer of a socket: whether it has room for another packet.
pub(super) struct SendBuffer {
    socket: Arc<dyn AsFd + Send + Sync>,
    /// The runtime that asks the system.
    home: Handle,
    full: AtomicBool,
    /// Whether the runtime has ended, so that nobody asks any more.
    gone: AtomicBool,
    emptied: Notify,
    asking: Mutex<Option<AbortHandle>>,
}

impl SendBuffer {
    /// Of a socket of the current runtime.
    pub(super) fn new(socket: Arc<dyn AsFd + Send + Sync>) -> Arc<Self> {
        Arc::new(Self {
            socket,
            home: Handle::current(),
            full: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            emptied: Notify::new(),
            asking: Mutex::default(),
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
        let full = Full {
            buffer: Arc::downgrade(self),
            was_answered: false,
        };
        let _home = self.home.enter();
        let asked = self.ask();
        let task = tokio::spawn(async move {
            if let Err(error) = answer(asked).await {
                tracing::debug!(%error, "cannot wait for room in the send buffer of a UDP socket");
                sleep(RETRY).await;
            }
            full.end();
        });
        *self.asking() = Some(task.abort_handle());
    }

    /// Asks by a descriptor of its own, for each can be registered only once.
    fn ask(&self) -> io::Result<AsyncFd<OwnedFd>> {
        register(self.socket.as_fd().try_clone_to_owned()?, Interest::WRITABLE)
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

    fn check(&self) -> io::Result<()> {
        if self.gone.load(Ordering::Acquire) {
            return Err(io::Error::other("the runtime of the UDP socket has ended"));
        }
        Ok(())
    }

    fn asking(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        // Nothing panics while it is held.
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(asked: io::Result<AsyncFd<OwnedFd>>) -> io::Result<()> {
    asked?.writable().await?.retain_ready();
    Ok(())
}

impl Drop for SendBuffer {
    fn drop(&mut self) {
        if let Some(asking) = self.asking().take() {
            asking.abort();
        }
    }
}

impl fmt::Debug for SendBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBuffer")
            .field("full", &self.full)
            .finish_non_exhaustive()
    }
}

/// The time for which a socket is full.
struct Full {
    buffer: Weak<SendBuffer>,
    /// If not, the runtime has ended.
    was_answered: bool,
}

impl Full {
    fn end(mut self) {
        self.was_answered = true;
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let Some(buffer) = self.buffer.upgrade() else { return };
        if !self.was_answered {
            buffer.gone.store(true, Ordering::Release);
        }
        buffer.full.store(false, Ordering::Release);
        buffer.emptied.notify_waiters();
    }
}

/// Waits for room, beside others that do.
pub(super) struct Writable {
    buffer: Arc<SendBuffer>,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Writable {
    pub(super) fn new(buffer: Arc<SendBuffer>) -> Self {
        Self { buffer, waiting: None }
    }
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { buffer, waiting } = &mut *self;
        if buffer.is_full() {
            let emptied = waiting.get_or_insert_with(|| {
                let buffer = Arc::clone(buffer);
                Box::pin(async move { buffer.emptied().await })
            });
            ready!(emptied.as_mut().poll(cx));
        }
        *waiting = None;
        Poll::Ready(buffer.check())
    }
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable")
            .field("buffer", &self.buffer)
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
        fn poll(&mut self) -> Poll<io::Result<()>> {
            Pin::new(self).poll_writable(&mut Context::from_waker(Waker::noop()))
        }

        async fn ready(&mut self) {
            poll_fn(|cx| Pin::new(&mut *self).poll_writable(cx)).await.unwrap();
        }
    }

    /// A socket that is full, which one of UDP on loopback never is.
    fn full() -> (Arc<UnixStream>, UnixStream) {
        let (socket, peer) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        fill(&socket);
        (Arc::new(socket), peer)
    }

    fn fill(mut socket: &UnixStream) {
        while socket.write(&[0; 4096]).is_ok() {}
    }

    #[tokio::test]
    async fn all_who_wait_go_on_when_there_is_room() {
        let (socket, mut peer) = full();
        let buffer = SendBuffer::new(Arc::clone(&socket) as Arc<_>);
        let [first, second, third] = &mut [0; 3].map(|_| Writable::new(Arc::clone(&buffer)));
        for _ in 0..3 {
            assert!(first.poll().is_ready(), "nothing was refused yet");
            fill(&socket);
            buffer.fill();
            for _ in 0..10 {
                assert!(first.poll().is_pending() && second.poll().is_pending());
                tokio::task::yield_now().await;
            }
            let mut sent = vec![0; 1 << 20];
            assert!(peer.read(&mut sent).unwrap() > 0);
            tokio::join!(first.ready(), second.ready(), third.ready());
        }
    }

    #[tokio::test]
    async fn room_that_is_there_meanwhile_is_found_from_any_thread() {
        let (socket, _peer) = UnixStream::pair().unwrap();
        let buffer = SendBuffer::new(Arc::new(socket));
        let elsewhere = Arc::clone(&buffer);
        std::thread::spawn(move || {
            elsewhere.fill();
            elsewhere.fill();
        })
        .join()
        .unwrap();
        let mut writable = Writable::new(Arc::clone(&buffer));
        assert!(writable.poll().is_pending(), "nobody has looked");
        writable.ready().await;
        assert!(!buffer.is_full());
    }

    #[tokio::test]
    async fn a_socket_that_is_full_ends_with_its_last_user() {
        let (socket, mut peer) = full();
        let buffer = SendBuffer::new(socket);
        buffer.fill();
        let mut writable = Writable::new(buffer);
        assert!(writable.poll().is_pending());
        drop(writable);
        tokio::task::yield_now().await;
        peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        peer.read_to_end(&mut Vec::new()).expect("an end");
    }

    #[test]
    fn the_end_of_the_runtime_is_an_error() {
        let home = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (socket, _peer) = full();
        let buffer = home.block_on(async { SendBuffer::new(socket) });
        let mut writable = Writable::new(Arc::clone(&buffer));
        buffer.fill();
        assert!(writable.poll().is_pending());
        drop(home);
        assert!(matches!(writable.poll(), Poll::Ready(Err(_))));
        buffer.fill();
        assert!(matches!(writable.poll(), Poll::Ready(Err(_))));
    }
}
