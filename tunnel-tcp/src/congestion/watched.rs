//! A socket that is looked at while it sends.

use std::{
    io::{self, IoSlice},
    ops::ControlFlow,
    pin::Pin,
    sync::Once,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use super::{
    linux::{self, BBR, State},
    losses::Losses,
};

/// How often to look at most, on a path with a shorter round trip than this; on others, once in one. That costs next to
/// nothing beside what is sent meanwhile, and `cubic` loses its pace within some round trips.
const INTERVAL: Duration = Duration::from_millis(20);

/// A socket that goes on with `bbr` when it has lost packets.
#[derive(Debug)]
pub(super) struct Watched {
    socket: TcpStream,
    /// Until there is nothing more to change.
    watch: Option<Watch>,
}

impl Watched {
    pub(super) fn new(socket: TcpStream) -> Self {
        let watch = Watch::new(&socket);
        Self { socket, watch }
    }

    fn wrote(&mut self) {
        if let Some(watch) = &mut self.watch
            && watch.look(&self.socket).is_break()
        {
            self.watch = None;
        }
    }
}

#[derive(Debug)]
struct Watch {
    losses: Losses,
    next: Instant,
}

impl Watch {
    fn new(socket: &TcpStream) -> Option<Self> {
        // What was lost while it connected tells nothing of the time after.
        let state = tell(socket)?;
        Some(Self {
            losses: Losses::since(state.counts),
            next: Instant::now() + INTERVAL,
        })
    }

    /// Looks, if it is time to. It breaks where there is nothing more to watch.
    fn look(&mut self, socket: &TcpStream) -> ControlFlow<()> {
        let now = Instant::now();
        if now < self.next {
            return ControlFlow::Continue(());
        }
        let Some(state) = tell(socket) else {
            return ControlFlow::Break(());
        };
        self.next = now + state.round_trip.max(INTERVAL);
        if !self.losses.are_many(state.counts) {
            return ControlFlow::Continue(());
        }
        go_on_with_bbr(socket);
        ControlFlow::Break(())
    }
}

fn tell(socket: &TcpStream) -> Option<State> {
    linux::state(socket)
        .inspect_err(|error| tracing::debug!(%error, "a socket does not tell what it has lost"))
        .ok()
}

/// Goes on with `bbr`, if the kernel allows it. That it does not is said once aloud: it is as true of all others.
fn go_on_with_bbr(socket: &TcpStream) {
    static ALOUD: Once = Once::new();
    let peer = socket.peer_addr().map(|addr| addr.to_string()).unwrap_or_default();
    match linux::set(&SockRef::from(socket), BBR) {
        Ok(()) => tracing::debug!(
            peer,
            "packets are lost on the way to this peer: the connection goes on with bbr"
        ),
        Err(error) => {
            tracing::debug!(peer, %error, "packets are lost on the way to this peer, and the kernel does not allow bbr");
            ALOUD.call_once(|| {
                tracing::info!(
                    peer,
                    %error,
                    "packets are lost on the way to this peer and maybe others, which makes connections slow; bbr would \
                     help: load tcp_bbr and add bbr to net.ipv4.tcp_allowed_congestion_control, on the host of a \
                     container, or give this program CAP_NET_ADMIN"
                );
            });
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, buf))?;
        self.wrote();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, bufs))?;
        self.wrote();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, TcpSocket},
        time::advance,
    };

    use super::{
        super::{linux::CUBIC, losses::Counts},
        *,
    };

    /// A socket that begins with `cubic`, and with so many packets lost, of which the kernel knows nothing.
    async fn watched(listener: &TcpListener, lost: u32) -> Watched {
        let socket = TcpSocket::new_v4().unwrap();
        linux::set(&SockRef::from(&socket), CUBIC).unwrap();
        let mut watched = Watched::new(socket.connect(listener.local_addr().unwrap()).await.unwrap());
        watched.watch.as_mut().unwrap().losses = Losses::since(Counts { sent: 0, lost });
        watched
    }

    fn name(watched: &Watched) -> String {
        linux::name(&SockRef::from(&watched.socket)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_lost_packets_goes_on_with_bbr_where_it_is_allowed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let is_allowed = linux::set(&SockRef::from(&TcpSocket::new_v4().unwrap()), BBR).is_ok();
        let expected = if is_allowed { BBR } else { CUBIC };

        let mut lossy = watched(&listener, u32::MAX - 20).await;
        for _ in 0..100 {
            lossy.write_all(b"hello").await.unwrap();
            assert_eq!(name(&lossy), CUBIC, "not looked at so soon");
        }
        advance(INTERVAL).await;
        lossy.write_all(b"hello").await.unwrap();
        assert_eq!(name(&lossy), CUBIC, "they may not have been lost");
        advance(Duration::from_secs(1)).await;
        assert_eq!(lossy.write_vectored(&[IoSlice::new(b"hello")]).await.unwrap(), 5);
        assert_eq!(name(&lossy), expected);
        assert!(lossy.watch.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_loses_nothing_stays() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut clean = watched(&listener, 1000).await;
        for _ in 0..100 {
            advance(Duration::from_secs(1)).await;
            clean.write_all(b"hello").await.unwrap();
            assert_eq!(name(&clean), CUBIC);
        }
        assert!(clean.watch.is_some());
    }
}
