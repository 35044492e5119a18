//! The agent's side.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};
use tunnel_core::{Carrier, Claim, Connection, ConnectionError, DialError, HostPort, Identity, Peer, PeerRole};
use tunnel_tcp::{BoxIo, ClientSecurity, Dial, Dialled, http2::Role, upgrade::ask};

use crate::{NAME, PLAIN, config::H2Config, http2::Pipe, native, upgrade::Ask};

/// What URLs begin with that mean TLS.
const SECURE: &str = "h2://";

/// Dials one server by an upgrade of HTTP/1.1.
///
/// Redirects are not followed: an agent goes where it was told to go. Answers of something that is not a tunnel-server,
/// such as a proxy whose server is away, become errors that say so.
#[derive(Debug)]
pub struct H2Carrier {
    server: HostPort,
    security: ClientSecurity,
    dial: Arc<dyn Dial>,
    config: H2Config,
}

impl H2Carrier {
    /// A carrier to `server` over byte pipes from `dial`. For TLS, `security` is to offer [`ALPN`](crate::ALPN).
    #[must_use]
    pub fn new(server: HostPort, security: ClientSecurity, dial: Arc<dyn Dial>, config: H2Config) -> Self {
        Self {
            server,
            security,
            dial,
            config,
        }
    }

    /// The whole handshake; nothing in it has a deadline.
    async fn connect(&self, claim: &Claim) -> Result<Arc<dyn Connection>, DialError> {
        let Dialled { io, remote_addr, via } = self.dial.dial(&self.server).await?;
        let remote = match via {
            Some(proxy) => format!("{} (through {proxy})", self.remote()),
            None => self.remote(),
        };
        let (io, identity) = self.security.secure(io, &remote).await?;
        self.upgrade(io, claim, &remote, (remote_addr, identity)).await
    }

    async fn upgrade(
        &self,
        io: BoxIo,
        claim: &Claim,
        remote: &str,
        (remote_addr, identity): (SocketAddr, Identity),
    ) -> Result<Arc<dyn Connection>, DialError> {
        let secure = (!self.security.is_tls()).then_some(SECURE);
        let (asked, request) = Ask::new(&self.server, secure, &self.config, claim)?;
        let judge = |head: &_| asked.welcome(remote, head);
        let (welcome, (io, ahead)) = ask(io, request, remote, secure, judge).await?;
        let peer = Peer {
            carrier: NAME,
            identity,
            role: PeerRole::Server(Box::new(welcome)),
            remote_addr,
        };
        native::start(
            Pipe::new(io, ahead, Role::Server, &self.config.tuning.mux.budget),
            peer,
            &self.config,
        )
        .await
        .map_err(|error| {
            let remote = remote.to_owned();
            if error.is_go_away() {
                let detail = format!("it does not go on with HTTP/2 ({error})");
                return DialError::Protocol { remote, detail };
            }
            DialError::Lost {
                remote,
                source: ConnectionError::transport(error),
            }
        })
    }
}

#[async_trait]
impl Carrier for H2Carrier {
    fn name(&self) -> &'static str {
        NAME
    }

    fn remote(&self) -> String {
        let scheme = if self.security.is_tls() { NAME } else { PLAIN };
        format!("{scheme}://{}", self.server)
    }

    async fn dial(&self, claim: &Claim, deadline: Instant) -> Result<Arc<dyn Connection>, DialError> {
        match timeout_at(deadline, self.connect(claim)).await {
            Ok(connected) => connected,
            Err(_) => Err(DialError::TimedOut { remote: self.remote() }),
        }
    }
}
