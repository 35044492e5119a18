//! The server's side: dials proxies of others.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};
use tunnel_core::{Carrier, Claim, Connection, DialError, HostPort, Peer, PeerRole};
use tunnel_tcp::{ClientSecurity, Dial, Dialled};

use super::{Dialect, ForwardConfig, HBONE, HBONE_PLAIN, connection};
use crate::{NAME, PLAIN};

/// Dials one proxy that ends CONNECT of HTTP/2 and so stands for an agent: Envoy, ztunnel, a
/// [`ForwardListener`](super::ForwardListener).
///
/// A connection's peer is the agent of the claim with which it is dialled, with the identity that the proxy's certificate
/// proves. Only this end opens streams. `open` resolves with the proxy's response: 2xx is the target, anything else a
/// refusal, whose kind is that of `Proxy-Status` or else of the status, and whose text names the proxy and the status and
/// says what the proxy says. A stream that the proxy has certainly not looked at (REFUSED_STREAM, or beyond the last of
/// its GOAWAY) is reported as such, so that another agent may be tried. Its SETTINGS_MAX_CONCURRENT_STREAMS makes `open`
/// wait in order, and its GOAWAY is a drain.
#[derive(Debug)]
pub struct ForwardCarrier {
    proxy: HostPort,
    security: ClientSecurity,
    dial: Arc<dyn Dial>,
    config: ForwardConfig,
}

impl ForwardCarrier {
    /// A carrier to `proxy` over byte pipes from `dial`. For TLS, `security` is to offer [`ALPN`](super::ALPN); proxies
    /// whose certificates hold no name are verified by their SPIFFE ID
    /// ([`ClientTlsBuilder::spiffe`](tunnel_tls::ClientTlsBuilder::spiffe)).
    #[must_use]
    pub fn new(proxy: HostPort, security: ClientSecurity, dial: Arc<dyn Dial>, config: ForwardConfig) -> Self {
        Self {
            proxy,
            security,
            dial,
            config,
        }
    }

    /// The whole handshake; nothing in it has a deadline.
    async fn connect(&self, agent: &Claim) -> Result<Arc<dyn Connection>, DialError> {
        let Dialled { io, remote_addr, via } = self.dial.dial(&self.proxy).await?;
        let remote = match via {
            Some(proxy) => format!("{} (through {proxy})", self.remote()),
            None => self.remote(),
        };
        let (io, identity) = self.security.secure(io, &remote).await?;
        let mut agent = agent.clone();
        agent.credential = None;
        let peer = Peer {
            carrier: self.name(),
            identity,
            role: PeerRole::Agent(Box::new(agent)),
            remote_addr,
        };
        connection::open(io, peer, &self.proxy, &self.config)
            .await
            .map_err(|error| error.into_dial_error(remote, self.security.is_tls()))
    }
}

#[async_trait]
impl Carrier for ForwardCarrier {
    fn name(&self) -> &'static str {
        self.config.dialect.name()
    }

    /// `h2://` or `h2c://`, `hbone://` or `hbone+plain://`.
    fn remote(&self) -> String {
        let scheme = match (self.config.dialect, self.security.is_tls()) {
            (Dialect::Connect, true) => NAME,
            (Dialect::Connect, false) => PLAIN,
            (Dialect::Hbone, true) => HBONE,
            (Dialect::Hbone, false) => HBONE_PLAIN,
        };
        format!("{scheme}://{}", self.proxy)
    }

    /// Connects, and waits for the proxy's SETTINGS, which tell HTTP/2 from anything else. The claim is not sent, because
    /// the protocol has no room for one: it is what the proxy is taken for, and its id and labels are what routing goes
    /// by.
    async fn dial(&self, claim: &Claim, deadline: Instant) -> Result<Arc<dyn Connection>, DialError> {
        match timeout_at(deadline, self.connect(claim)).await {
            Ok(connected) => connected,
            Err(_) => Err(DialError::TimedOut { remote: self.remote() }),
        }
    }
}
