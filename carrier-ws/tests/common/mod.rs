//! Two ends in one process, over a simulated network.
#![allow(dead_code)] // each test program uses a part
#![allow(clippy::unwrap_used, clippy::expect_used)] // this is part of tests, though none of its functions is one

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use carrier_ws::{WsCarrier, WsConfig, WsListener, WsUrl};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tunnel_core::{
    Admission, Admitted, Arrival, Carrier, Claim, Connection, DialError, Generation, HandshakeError, Listener,
    Rejection, StreamHead, Target, Welcome,
};
use tunnel_tcp::{BoxIo, Dial, upgrade};
use tunnel_testkit::sim::{Net, Profile};
use tunnel_tls::{ClientTls, ServerTls};

/// Accepts every claim, or rejects every one; remembers the last.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) rejection: Option<Rejection>,
    pub(crate) seen: std::sync::Mutex<Option<Arrival>>,
}

impl Verdict {
    pub(crate) fn reject(rejection: Rejection) -> Self {
        Self {
            rejection: Some(rejection),
            ..Self::default()
        }
    }

    /// What it was asked about.
    pub(crate) fn arrival(&self) -> Option<Arrival> {
        self.seen.lock().unwrap().clone()
    }
}

#[async_trait]
impl Admission for Verdict {
    async fn admit(&self, arrival: &Arrival) -> Result<Admitted, Rejection> {
        *self.seen.lock().unwrap() = Some(arrival.clone());
        match &self.rejection {
            Some(rejection) => Err(rejection.clone()),
            None => Ok(Admitted {
                identity: arrival.identity.clone(),
                welcome: Welcome::new("server-1".parse().unwrap()),
            }),
        }
    }
}

/// A server and an agent on a network.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) listener: WsListener,
    pub(crate) carrier: WsCarrier,
}

impl World {
    /// In clear text, on a network without properties.
    pub(crate) fn plain() -> Self {
        Self::new(Profile::default(), WsConfig::default(), None)
    }

    pub(crate) fn new(profile: Profile, config: WsConfig, tls: Option<(&ServerTls, &ClientTls)>) -> Self {
        let net = Net::new(profile);
        let listener = WsListener::new(Box::new(net.listen()), tls.map(|(server, _)| server), config.clone());
        let carrier = carrier(&net, &listener, tls.map(|(_, client)| client), config, "/tunnel");
        Self { net, listener, carrier }
    }

    /// Both ends of one attempt to connect: the agent's, the server's.
    pub(crate) async fn attempt(
        &mut self,
        claim: &Claim,
        verdict: &Verdict,
    ) -> (
        Result<Arc<dyn Connection>, DialError>,
        Result<Arc<dyn Connection>, HandshakeError>,
    ) {
        let deadline = Instant::now() + Duration::from_secs(10);
        tokio::join!(
            self.carrier.dial(claim, deadline),
            handshake(&mut self.listener, verdict)
        )
    }

    /// Sends bytes to the server as they are, and has it look at them; gives all that it answers until it ends the
    /// pipe, and what it makes of them.
    pub(crate) async fn attempt_raw(
        &mut self,
        request: &[u8],
        verdict: &Verdict,
    ) -> (String, Result<Arc<dyn Connection>, HandshakeError>) {
        let mut io = self.dial().await;
        let client = async {
            // It may answer before it has read all of it.
            let _ = io.write_all(request).await;
            let _ = io.flush().await;
            let mut answer = Vec::new();
            let _ = io.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        tokio::join!(client, handshake(&mut self.listener, verdict))
    }

    /// A pipe to the server.
    pub(crate) async fn dial(&self) -> BoxIo {
        let port = self.listener.local_addr().unwrap().port();
        let server = format!("server.test:{port}").parse().unwrap();
        self.net.dial(&server).await.unwrap().io
    }

    /// The agent's and the server's handle of a connection.
    pub(crate) async fn connect(&mut self) -> (Arc<dyn Connection>, Arc<dyn Connection>) {
        let (agent, server) = self.attempt(&claim(), &Verdict::default()).await;
        (agent.expect("the agent connects"), server.expect("the server agrees"))
    }
}

/// An agent of a network's listener; the port is the listener's.
pub(crate) fn carrier(
    net: &Net,
    listener: &dyn Listener,
    tls: Option<&ClientTls>,
    config: WsConfig,
    path: &str,
) -> WsCarrier {
    let scheme = if tls.is_some() { "wss" } else { "ws" };
    let port = listener.local_addr().unwrap().port();
    let url: WsUrl = format!("{scheme}://server.test:{port}{path}").parse().unwrap();
    WsCarrier::new(url, tls, Arc::new(net.clone()), config).expect("a carrier")
}

/// Takes the next attempt and performs its handshake.
pub(crate) async fn handshake(
    listener: &mut dyn Listener,
    verdict: &dyn Admission,
) -> Result<Arc<dyn Connection>, HandshakeError> {
    let incoming = listener.accept().await.expect("an attempt");
    incoming.handshake(verdict).await
}

pub(crate) fn claim() -> Claim {
    Claim::new("node-7".parse().unwrap(), Generation(1))
}

pub(crate) fn head() -> StreamHead {
    StreamHead::new("tcp://target.test:80".parse::<Target>().unwrap())
}

/// A request as an agent makes it, with some fields replaced, added, or, with an empty value, left out.
pub(crate) fn request(line: &str, changes: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![
        ("Host", "server.test"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Protocol", "tunnel.v1"),
        ("Tunnel-Claim", CLAIM),
    ];
    for (name, value) in changes {
        match fields.iter_mut().find(|(known, _)| known == name) {
            Some(field) => field.1 = value,
            None => fields.push((name, value)),
        }
    }
    let fields = fields.iter().filter(|(_, value)| !value.is_empty());
    let fields: String = fields.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{line}\r\n{fields}\r\n").into_bytes()
}

/// The example of RFC 6455 §1.3.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What belongs to it.
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The claim of `node-7`, generation 1.
pub(crate) const CLAIM: &str = "ARUBAQECBm5vZGUtNwMIAAAAAAAAAAE";
pub(crate) const GET: &str = "GET /tunnel HTTP/1.1";

/// Sends bytes by a new stream, has them sent back, and compares.
pub(crate) async fn echo(opener: &dyn Connection, acceptor: &dyn Connection, size: usize) {
    let sent: Vec<u8> = (0..251).cycle().take(size).collect();
    let (opened, accepted) = tokio::join!(opener.open(head()), async {
        let inbound = acceptor.accept().await.expect("a stream");
        inbound.accept().await.expect("accepted")
    });
    let (mut near, mut far) = (opened.expect("opened"), accepted);
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

/// An error with its causes.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", whole(source)),
        None => error.to_string(),
    }
}

/// A claim as the value of a header field.
pub(crate) fn field(claim: &Claim) -> String {
    upgrade::encode(&claim.encode()).to_str().unwrap().to_owned()
}
