//! The agent's side.

use std::{fmt, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};
use tungstenite::protocol::Role;
use tunnel_core::{Carrier, Claim, Connection, DialError, Host, Identity, Peer, PeerRole, mux};
use tunnel_tcp::{BoxIo, ClientSecurity, Dial, Dialled, upgrade};
use tunnel_tls::ClientTls;

use crate::{ALPN, NAME, WsUrl, config::WsConfig, link::WsLink, request::Ask};

/// Dials one server by WebSocket.
///
/// Redirects are not followed: an agent goes where it was told to go. Answers of something that is not a tunnel-server,
/// such as a proxy whose server is away, become errors that say so.
pub struct WsCarrier {
    url: WsUrl,
    security: ClientSecurity,
    dial: Arc<dyn Dial>,
    config: WsConfig,
}

impl WsCarrier {
    /// Dials `url` over the pipes that `dial` makes, for example a [`TcpDialer`](tunnel_tcp::TcpDialer).
    ///
    /// `wss` needs `tls`, and `ws` ignores it. Fails if `tls` is missing or no certificate can hold the host's name.
    pub fn new(url: WsUrl, tls: Option<&ClientTls>, dial: Arc<dyn Dial>, config: WsConfig) -> Result<Self, DialError> {
        let security = match (url.is_secure(), tls) {
            (false, _) => ClientSecurity::Plain,
            (true, Some(tls)) => ClientSecurity::tls(tls, url.server().host(), &[ALPN])?,
            (true, None) => return Err(DialError::Unusable(format!("{url} needs to know which CA to trust"))),
        };
        Ok(Self {
            url,
            security,
            dial,
            config,
        })
    }

    /// The whole handshake; nothing in it has a deadline.
    async fn connect(&self, claim: &Claim) -> Result<Arc<dyn Connection>, DialError> {
        let Dialled { io, remote_addr, via } = self.dial.dial(self.url.server()).await?;
        let remote = self.describe(remote_addr, via.as_deref());
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
        let (ask, request) = Ask::new(&self.url, &self.config.headers, claim)?;
        let secure = self.url.secure_instead();
        let judge = |head: &_| ask.welcome(&self.url, remote, head);
        let (welcome, (io, ahead)) = upgrade::ask(io, request, remote, secure, judge).await?;
        let link = WsLink::new(io, &ahead, Role::Client);
        let peer = Peer {
            carrier: NAME,
            identity,
            role: PeerRole::Server(Box::new(welcome)),
            remote_addr,
        };
        Ok(mux::start(Box::new(link), peer, self.config.mux.clone()))
    }

    /// The server as it was named and, if that was not an address, the address that was dialled.
    fn describe(&self, addr: SocketAddr, via: Option<&str>) -> String {
        match (via, self.url.server().host()) {
            (Some(via), _) => format!("{} (through {via})", self.url),
            (None, Host::Ip(_)) => self.url.to_string(),
            (None, _) => format!("{} ({addr})", self.url),
        }
    }
}

#[async_trait]
impl Carrier for WsCarrier {
    fn name(&self) -> &'static str {
        NAME
    }

    fn remote(&self) -> String {
        self.url.to_string()
    }

    async fn dial(&self, claim: &Claim, deadline: Instant) -> Result<Arc<dyn Connection>, DialError> {
        match timeout_at(deadline, self.connect(claim)).await {
            Ok(connected) => connected,
            Err(_) => Err(DialError::TimedOut { remote: self.remote() }),
        }
    }
}

impl fmt::Debug for WsCarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsCarrier")
            .field("url", &self.url)
            .field("security", &self.security)
            .field("dial", &self.dial)
            .finish_non_exhaustive()
    }
}
