//! The agent's side.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tunnel_core::{DialError, Host, Identity};
use tunnel_tls::{ClientTls, peer_identity};

use super::{READ_AHEAD, WITHOUT_ALPN, WRITE_BUFFER, protected::Protected, words};
use crate::{BoxIo, read_ahead::ReadAhead};

/// Whether and how an agent protects what it sends.
#[derive(Clone, Debug)]
pub enum ClientSecurity {
    /// Not at all: everybody on the way can read and change it, and the server is whoever answers.
    Plain,
    /// By TLS.
    Tls(ClientSide),
}

/// An agent's side of TLS with one server; made by [`ClientSecurity::tls`].
#[derive(Clone)]
pub struct ClientSide {
    connector: TlsConnector,
    server_name: ServerName<'static>,
}

impl ClientSecurity {
    /// TLS with the server at `host`, whose certificate must hold that name unless `tls` names another. `alpn` lists
    /// the application protocols that are offered (RFC 7301), most wanted first; with an empty list none is
    /// negotiated. Reloads of `tls` are followed.
    ///
    /// Fails if certificates cannot hold the name.
    pub fn tls(tls: &ClientTls, host: &Host, alpn: &[&[u8]]) -> Result<Self, DialError> {
        let server_name = tls
            .server_name(&host.to_string())
            .map_err(|error| DialError::Unusable(error.to_string()))?;
        Ok(Self::Tls(ClientSide {
            connector: tls.tcp_config(alpn).into(),
            server_name,
        }))
    }

    /// Protects a pipe to the server, which errors call `remote`; gives what the server's certificate proves, which is
    /// nothing without TLS. The caller bounds the time.
    ///
    /// A server that chooses none of the protocols offered is taken only if `http/1.1` is among them, for that is what
    /// such servers speak. A server's refusal of this side's certificate usually shows only later: see
    /// [`explain_tls`](crate::explain_tls).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the pipe.
    pub async fn secure(&self, io: BoxIo, remote: &str) -> Result<(BoxIo, Identity), DialError> {
        match self {
            Self::Plain => Ok((io, Identity::anonymous())),
            Self::Tls(side) => side.handshake(io, remote).await,
        }
    }

    /// Whether there is TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl ClientSide {
    async fn handshake(&self, io: BoxIo, remote: &str) -> Result<(BoxIo, Identity), DialError> {
        let failed = |explanation, source| DialError::Tls {
            remote: remote.to_owned(),
            explanation,
            source,
        };
        let io = ReadAhead::new(io, READ_AHEAD);
        let connecting = self.connector.connect_with(self.server_name.clone(), io, |session| {
            session.set_buffer_limit(Some(WRITE_BUFFER));
        });
        let stream = match connecting.await {
            Ok(stream) => stream,
            Err(error) => return Err(failed(tunnel_tls::explain(&error), Arc::new(error))),
        };
        let session = stream.get_ref().1;
        let offered = &self.connector.config().alpn_protocols;
        let needs_choice = !offered.is_empty() && offered.iter().all(|protocol| protocol != WITHOUT_ALPN);
        if session.alpn_protocol().is_none() && needs_choice {
            let explanation = format!(
                "the server did not choose an application protocol (ALPN), and this side needs {}: is it, or something \
                 before it, set to HTTP/1.1?",
                words(offered)
            );
            return Err(failed(explanation, Arc::new(rustls::Error::NoApplicationProtocol)));
        }
        match peer_identity(session.peer_certificates().unwrap_or_default()) {
            Ok(identity) => Ok((Box::new(Protected::new(stream)), identity)),
            Err(error) => Err(failed(error.to_string(), Arc::new(error))),
        }
    }
}

impl std::fmt::Debug for ClientSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientSide")
            .field("server_name", &self.server_name)
            .field("alpn", &words(&self.connector.config().alpn_protocols))
            .finish_non_exhaustive()
    }
}
