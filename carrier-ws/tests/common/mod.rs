//! Two ends in one process, over a simulated network.
#![allow(dead_code)] // each test program uses a part
#![allow(clippy::unwrap_used, clippy::expect_used)] // this is part of tests, though none of its functions is one

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use carrier_ws::{WsCarrier, WsConfig, WsListener, WsUrl};
use tokio::time::Instant;
use tunnel_core::{
    Admission, Admitted, Arrival, Carrier, Claim, Connection, DialError, Generation, HandshakeError, Listener,
    Rejection, StreamHead, Target, Welcome,
};
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
    verdict: &Verdict,
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
