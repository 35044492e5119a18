//! Two ends in one process, over a simulated network.
#![allow(dead_code)] // each test program uses a part
#![allow(clippy::unwrap_used, clippy::expect_used)] // this is part of tests, though none of its functions is one

use std::sync::Arc;

use carrier_ws::{WsCarrier, WsConfig, WsListener, WsUrl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tunnel_core::{Carrier, Claim, Connection, HandshakeError, Listener};
use tunnel_tcp::{BoxIo, Dial, upgrade};
use tunnel_testkit::{
    ends::{Ends, Verdict, handshake},
    pki::Tls,
    sim::{Net, Profile},
};
use tunnel_tls::{ClientTls, ServerTls};

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
        Self::on(&Net::new(Profile::default()), None, WsConfig::default())
    }

    /// By TLS.
    pub(crate) fn tls(server: &ServerTls, client: &ClientTls) -> Self {
        Self::on(
            &Net::new(Profile::default()),
            Some((server, client)),
            WsConfig::default(),
        )
    }

    /// With TLS, where it is given.
    pub(crate) fn on(net: &Net, tls: Option<Tls<'_>>, config: WsConfig) -> Self {
        let listener = WsListener::new(Box::new(net.listen()), tls.map(|(server, _)| server), config.clone());
        let carrier = carrier(net, &listener, tls.map(|(_, client)| client), config, "/tunnel");
        let net = net.clone();
        Self { net, listener, carrier }
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
}

impl Ends for World {
    fn ends(&mut self) -> (&dyn Carrier, &mut dyn Listener) {
        (&self.carrier, &mut self.listener)
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

/// A claim as the value of a header field.
pub(crate) fn field(claim: &Claim) -> String {
    upgrade::encode(&claim.encode()).to_str().unwrap().to_owned()
}
