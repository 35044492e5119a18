//! A peer that speaks QUIC and whatever else a test wants.

use std::{net::SocketAddr, sync::Arc};

use carrier_quic::ALPN;
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, SendStream, TokioRuntime,
    crypto::rustls::QuicClientConfig,
};
use tunnel_core::Listener;
use tunnel_testkit::ends::{Verdict, claim};
use tunnel_tls::ClientTls;

use super::{SERVER, World, net::Net};

/// An agent that has been welcomed, and the server's handle of it. Its streams are the test's business.
pub(crate) struct RawAgent {
    pub(crate) endpoint: Endpoint,
    pub(crate) quic: Connection,
    pub(crate) control: (SendStream, RecvStream),
    pub(crate) server: Arc<dyn tunnel_core::Connection>,
}

/// A QUIC connection to the server of `net`, after the TLS handshake.
pub(crate) async fn dial(
    net: &Net,
    from: SocketAddr,
    tls: &ClientTls,
    alpn: &[u8],
) -> Result<(Endpoint, Connection), quinn::ConnectionError> {
    let socket = net.socket(from);
    let endpoint =
        Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)).unwrap();
    let crypto = QuicClientConfig::try_from(tls.quic_config(&[alpn])).unwrap();
    let config = ClientConfig::new(Arc::new(crypto));
    let quic = endpoint.connect_with(config, SERVER, "server.test").unwrap().await?;
    Ok((endpoint, quic))
}

impl RawAgent {
    pub(crate) async fn connect(world: &mut World, from: SocketAddr) -> Self {
        let tls = world.pki.client();
        let net = world.net.clone();
        let verdict = Verdict::default();
        let (raw, server) = tokio::join!(
            async {
                let (endpoint, quic) = dial(&net, from, &tls, ALPN).await.unwrap();
                let (mut tx, mut rx) = quic.open_bi().await.unwrap();
                tx.write_all(&claim().encode()).await.unwrap();
                let mut kind = [0; 1];
                rx.read_exact(&mut kind).await.unwrap();
                assert_eq!(kind, [2], "a WELCOME");
                (endpoint, quic, (tx, rx))
            },
            async {
                let incoming = world.listener.accept().await.unwrap();
                incoming.handshake(&verdict).await.unwrap()
            }
        );
        let (endpoint, quic, control) = raw;
        Self {
            endpoint,
            quic,
            control,
            server,
        }
    }
}
