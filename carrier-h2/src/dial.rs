//! The agent's side.

use std::{net::SocketAddr, pin::pin, sync::Arc};

use async_trait::async_trait;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use tunnel_core::{Carrier, Claim, Connection, ConnectionError, DialError, HostPort, Identity, Peer, PeerRole};
use tunnel_tcp::{BoxIo, ClientSecurity, Dial, Dialled, explain_tls};

use crate::{
    NAME, PLAIN,
    config::H2Config,
    native,
    upgrade::{Ask, recover},
};

/// The longest head of a response.
const MAX_HEAD: usize = 64 * 1024;
/// The most header fields of a response.
const MAX_FIELDS: usize = 64;

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
        let failed = |error| self.failure(remote, error);
        let (ask, request) = Ask::new(&self.server, self.security.is_tls(), &self.config, claim)?;
        let mut http = http1::Builder::new();
        http.max_buf_size(MAX_HEAD).max_headers(MAX_FIELDS);
        let (mut sender, connection) = http.handshake(TokioIo::new(io)).await.map_err(failed)?;
        // The connection has to be polled for anything to happen, and ends when it has been upgraded.
        let mut connection = pin!(connection.with_upgrades());
        let mut response = pin!(sender.send_request(request));
        let mut end = None;
        let response = loop {
            tokio::select! {
                biased;
                response = &mut response => break response,
                ended = &mut connection, if end.is_none() => end = Some(ended),
            }
        };
        let has_ended = end.is_some();
        let response = match (response, end) {
            // It may have come before the request was sent as a whole, which then failed.
            (Ok(response), _) => response,
            (Err(_), Some(Err(error))) | (Err(error), _) => return Err(failed(error)),
        };
        let (head, body) = response.into_parts();
        let welcome = ask.welcome(remote, &head)?;
        let upgrade = hyper::upgrade::on(http::Response::from_parts(head, body));
        if !has_ended {
            connection.await.map_err(failed)?;
        }
        let pipe = recover(upgrade.await.map_err(failed)?);
        let peer = Peer {
            carrier: NAME,
            identity,
            role: PeerRole::Server(Box::new(welcome)),
            remote_addr,
        };
        native::start(pipe, peer, &self.config).await.map_err(|error| {
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

    /// An error of HTTP/1.1 before there was a response.
    fn failure(&self, remote: &str, error: hyper::Error) -> DialError {
        let remote = remote.to_owned();
        // With TLS 1.3 a server looks at the agent's certificate when the agent is through already.
        if let Some(explanation) = explain_tls(&error) {
            return DialError::Tls {
                remote,
                explanation,
                source: Arc::new(error),
            };
        }
        if error.is_parse_too_large() {
            let detail = "its answer is longer than any answer to an upgrade".to_owned();
            return DialError::Protocol { remote, detail };
        }
        if error.is_parse() {
            let hint = if self.security.is_tls() {
                String::new()
            } else {
                format!(": does it expect TLS, and so {NAME}://?")
            };
            let detail = format!("its answer is not HTTP/1.1{hint}");
            return DialError::Protocol { remote, detail };
        }
        DialError::Lost {
            remote,
            source: ConnectionError::transport(error),
        }
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
