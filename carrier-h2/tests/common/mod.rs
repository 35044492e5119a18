//! Two ends in one process, over a simulated network.
#![allow(dead_code)] // each test program uses a part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // this is part of tests, though none of its functions is one

pub(crate) mod raw;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use carrier_h2::{ALPN, H2Carrier, H2Config, H2Listener};
use tokio::time::Instant;
use tunnel_core::{
    Admission, Admitted, Arrival, Carrier, Claim, Connection, DialError, Duplex, Generation, HandshakeError, Host,
    HostPort, Listener, Rejection, Secret, StreamHead, Target, Welcome, proto::mux::ConfigBuilder,
};
use tunnel_tcp::{ClientSecurity, ServerSecurity};
use tunnel_testkit::sim::{Net, Profile};
use tunnel_tls::{ClientTls, ServerTls};

/// Accepts every claim, or rejects every one.
#[derive(Debug)]
pub(crate) struct Verdict(pub(crate) Option<Rejection>);

#[async_trait]
impl Admission for Verdict {
    async fn admit(&self, arrival: &Arrival) -> Result<Admitted, Rejection> {
        match &self.0 {
            Some(rejection) => Err(rejection.clone()),
            None => Ok(Admitted {
                identity: arrival.identity.clone(),
                welcome: Welcome::new("server-1".parse().expect("an id")),
            }),
        }
    }
}

/// Settings with this mux.
pub(crate) fn with(mux: ConfigBuilder) -> H2Config {
    H2Config::builder().mux(mux.build().unwrap().into()).build().unwrap()
}

/// A server and an agent on a network.
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) address: HostPort,
    pub(crate) listener: H2Listener,
    pub(crate) carrier: H2Carrier,
}

impl World {
    /// In clear text.
    pub(crate) fn plain(config: H2Config) -> Self {
        Self::new(&near(), None, config)
    }

    /// With TLS, where it is given.
    pub(crate) fn new(profile: &Profile, tls: Option<(&ServerTls, &ClientTls)>, config: H2Config) -> Self {
        let net = Net::new(profile.clone());
        let accept = net.listen();
        let address: HostPort = tunnel_tcp::Accept::local_addr(&accept)
            .expect("an address")
            .to_string()
            .parse()
            .expect("an address");
        let name = Host::Name("server.test".parse().expect("a name"));
        let (server, client) = match tls {
            None => (ServerSecurity::Plain, ClientSecurity::Plain),
            Some((server, client)) => (
                ServerSecurity::tls(server, &[ALPN]),
                ClientSecurity::tls(client, &name, &[ALPN]).expect("a name that certificates can hold"),
            ),
        };
        let dial = Arc::new(net.clone());
        Self {
            carrier: H2Carrier::new(address.clone(), client, dial, config.clone()),
            listener: H2Listener::new(Box::new(accept), server, config),
            address,
            net,
        }
    }

    /// Both ends of one attempt to connect: the agent's, the server's.
    pub(crate) async fn attempt(
        &mut self,
        verdict: Verdict,
    ) -> (
        Result<Arc<dyn Connection>, DialError>,
        Result<Arc<dyn Connection>, HandshakeError>,
    ) {
        let claim = claim();
        let deadline = Instant::now() + Duration::from_secs(10);
        tokio::join!(self.carrier.dial(&claim, deadline), async {
            let incoming = self.listener.accept().await.expect("an attempt");
            incoming.handshake(&verdict).await
        })
    }

    /// The agent's and the server's handle of a connection.
    pub(crate) async fn connect(&mut self) -> (Arc<dyn Connection>, Arc<dyn Connection>) {
        let (agent, server) = self.attempt(Verdict(None)).await;
        (agent.expect("the agent connects"), server.expect("the server agrees"))
    }
}

/// A network of no remarkable kind.
pub(crate) fn near() -> Profile {
    Profile::new(Duration::from_millis(1), 100_000_000)
}

pub(crate) fn claim() -> Claim {
    let mut claim = Claim::new("node-7".parse().expect("an id"), Generation(1));
    claim.credential = Some(Secret::new("s3cr3t").expect("a secret"));
    claim
}

pub(crate) fn head() -> StreamHead {
    StreamHead::new("tcp://target.test:80".parse::<Target>().expect("a target"))
}

/// A stream, as its opener and its acceptor see it.
pub(crate) async fn stream(opener: &Arc<dyn Connection>, acceptor: &Arc<dyn Connection>) -> (Duplex, Duplex) {
    let (opened, accepted) = tokio::join!(opener.open(head()), async {
        let inbound = acceptor.accept().await.expect("a stream");
        inbound.accept().await.expect("accepted")
    });
    (opened.expect("opened"), accepted)
}

/// Sends `size` bytes over a new stream and back, and checks them.
pub(crate) async fn echo(opener: &Arc<dyn Connection>, acceptor: &Arc<dyn Connection>, size: usize) {
    let sent: Vec<u8> = (0..251).cycle().take(size).collect();
    let (mut near, mut far) = stream(opener, acceptor).await;
    let there = async {
        near.tx.send_all(Bytes::from(sent.clone())).await.expect("sent");
        near.tx.finish().await.expect("finished");
    };
    let back = async {
        while let Some(bytes) = far.rx.recv(64 * 1024).await.expect("received") {
            far.tx.send_all(bytes).await.expect("sent back");
        }
        far.tx.finish().await.expect("finished");
    };
    let mut seen = Vec::new();
    let read = async {
        while let Some(bytes) = near.rx.recv(64 * 1024).await.expect("received") {
            seen.extend_from_slice(&bytes);
        }
    };
    tokio::join!(there, back, read);
    assert!(seen == sent, "{size} bytes come back as they were");
}
