//! TLS over TCP.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tunnel_core::{Identity, relay::Socket};
use tunnel_tls::{IdentityError, ServerTls, explain_end, peer_identity};

/// The one protocol that is spoken under TLS (RFC 7301 §6). A client that offers none is served, too.
const ALPN: &[&[u8]] = &[b"http/1.1"];

/// Performs handshakes; the configuration follows reloads of the certificates.
#[derive(Clone)]
pub(crate) struct Tls(TlsAcceptor);

/// How a handshake ended.
#[derive(Debug)]
pub(crate) enum Handshake {
    /// A client with a verified identity, which is anonymous without a certificate.
    Done(TlsSocket, Identity),
    /// A client whose certificate is trusted and still proves nothing.
    Unidentified(TlsSocket, IdentityError),
    /// A client that speaks HTTP without TLS.
    Plain(TcpStream),
    /// Nobody: the client left without a byte, as health checks do.
    Left,
}

impl Tls {
    pub(crate) fn new(tls: &ServerTls) -> Self {
        Self(TlsAcceptor::from(tls.tcp_config(ALPN)))
    }

    /// Performs the handshake within `limit`.
    pub(crate) async fn handshake(&self, socket: TcpStream, limit: Duration) -> io::Result<Handshake> {
        timeout(limit, self.handshake_untimed(socket))
            .await
            .unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("it took longer than {limit:?}"),
                ))
            })
    }

    async fn handshake_untimed(&self, socket: TcpStream) -> io::Result<Handshake> {
        let mut first = [0];
        // A TLS record begins with its content type, which is no letter (RFC 8446 §5.1); an HTTP method does.
        match socket.peek(&mut first).await? {
            0 => return Ok(Handshake::Left),
            _ if first[0].is_ascii_uppercase() => return Ok(Handshake::Plain(socket)),
            _ => {}
        }
        let stream = self.0.accept(socket).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        Ok(match peer_identity(chain) {
            Ok(identity) => Handshake::Done(TlsSocket(Box::new(stream)), identity),
            Err(error) => Handshake::Unidentified(TlsSocket(Box::new(stream)), error),
        })
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// A client's socket under TLS. Shutting it down sends `close_notify`; a client that ends without one is seen as
/// failed, for what it sent may have been cut short (RFC 8446 §6.1).
#[derive(Debug)]
pub(crate) struct TlsSocket(Box<TlsStream<TcpStream>>);

impl Socket for TlsSocket {
    /// Resets the TCP connection below, without `close_notify`.
    fn abort(&mut self) {
        self.0.get_mut().0.abort();
    }

    /// What is already decrypted can be read at once; more has to come from the socket below.
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (socket, session) = self.0.get_mut();
        if session.wants_read() {
            Socket::poll_read_ready(socket, cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn settle(&mut self) -> io::Result<()> {
        self.0.get_mut().0.settle()
    }
}

impl AsyncRead for TlsSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buf).map_err(explain_end)
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}
