//! The server's side.

use std::{io, sync::Arc};

use tokio_rustls::TlsAcceptor;
use tunnel_core::{ConnectionError, HandshakeError, Identity};
use tunnel_tls::{ServerTls, peer_identity};

use super::{
    READ_AHEAD, WRITE_BUFFER,
    protected::Protected,
    refuse::{self, Mistake},
    words,
};
use crate::{BoxIo, farewell, read_ahead::ReadAhead};

/// Whether and how a server protects what it sends.
#[derive(Clone, Debug)]
pub enum ServerSecurity {
    /// Not at all, or by something before the server, such as a load balancer that ends TLS.
    Plain,
    /// By TLS.
    Tls(ServerSide),
}

/// A server's side of TLS; made by [`ServerSecurity::tls`].
#[derive(Clone)]
pub struct ServerSide {
    acceptor: TlsAcceptor,
}

impl ServerSecurity {
    /// TLS with the application protocols that are spoken here (RFC 7301), most wanted first; agents that offer none
    /// are served as well. Reloads of `tls` are followed.
    #[must_use]
    pub fn tls(tls: &ServerTls, alpn: &[&[u8]]) -> Self {
        Self::Tls(ServerSide {
            acceptor: tls.tcp_config(alpn).into(),
        })
    }

    /// Protects a pipe from an agent; gives what the agent's certificate proves, which is nothing without TLS or a
    /// certificate. The caller bounds the time; an agent that is refused is given a second of it to read why.
    ///
    /// It waits for the agent's first byte in any case: an agent that speaks TLS where there is none, or HTTP in clear
    /// text where there is TLS, is told so in a HTTP response.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the pipe.
    pub async fn secure(&self, io: BoxIo) -> Result<(BoxIo, Identity), HandshakeError> {
        let size = match self {
            // Only the look at the first byte; what is read later goes past the buffer.
            Self::Plain => 1,
            Self::Tls(_) => READ_AHEAD,
        };
        let mut io = ReadAhead::new(io, size);
        let first = io.first().await.map_err(lost)?;
        let Some(first) = first else {
            return Err(lost(io::ErrorKind::UnexpectedEof.into()));
        };
        match self {
            Self::Plain if refuse::is_tls(first) => Err(mistaken(io, Mistake::TlsOnPlain).await),
            Self::Plain => Ok((Box::new(io), Identity::anonymous())),
            Self::Tls(_) if refuse::is_http(first) => Err(mistaken(io, Mistake::PlainOnTls).await),
            Self::Tls(side) => side.handshake(io).await,
        }
    }

    /// Whether there is TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl ServerSide {
    async fn handshake(&self, io: ReadAhead) -> Result<(BoxIo, Identity), HandshakeError> {
        let accepting = self
            .acceptor
            .accept_with(io, |session| session.set_buffer_limit(Some(WRITE_BUFFER)));
        let stream = match accepting.into_fallible().await {
            Ok(stream) => stream,
            Err((error, io)) => {
                let explanation = tunnel_tls::explain(&error);
                // rustls has written the alert.
                farewell(io, &[]).await;
                return Err(failed(explanation, error));
            }
        };
        match peer_identity(stream.get_ref().1.peer_certificates().unwrap_or_default()) {
            Ok(identity) => Ok((Box::new(Protected::new(stream)), identity)),
            Err(error) => Err(failed(error.to_string(), error)),
        }
    }
}

impl std::fmt::Debug for ServerSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerSide")
            .field("alpn", &words(&self.acceptor.config().alpn_protocols))
            .finish_non_exhaustive()
    }
}

/// Tells an agent that it speaks the wrong protocol.
async fn mistaken(io: ReadAhead, mistake: Mistake) -> HandshakeError {
    farewell(io, mistake.response().as_bytes()).await;
    let explanation = mistake.to_string();
    failed(explanation, io::Error::new(io::ErrorKind::InvalidData, mistake))
}

fn lost(error: io::Error) -> HandshakeError {
    HandshakeError::Lost(ConnectionError::transport(error))
}

fn failed(explanation: String, source: impl std::error::Error + Send + Sync + 'static) -> HandshakeError {
    HandshakeError::Tls {
        explanation,
        source: Arc::new(source),
    }
}
