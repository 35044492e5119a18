//! The same material under QUIC: one endpoint for ever, which follows every reload.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionError, Endpoint};
use rustls::pki_types::CertificateDer;
use support::*;
use tunnel_tls::{ClientAuth, ClientTls, ServerTls, explain_received_alert, explain_sent_alert, peer_identity};

const ALPN: &[&[u8]] = &[b"tunnel/1"];
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn listen(tls: &ServerTls) -> Endpoint {
    let crypto = QuicServerConfig::try_from(tls.quic_config(ALPN)).unwrap();
    Endpoint::server(quinn::ServerConfig::with_crypto(Arc::new(crypto)), LOOPBACK).unwrap()
}

/// Both ends' view of one handshake, with the client waiting until the server has decided.
async fn dial(
    server: &Endpoint,
    tls: &ClientTls,
) -> (
    Result<quinn::Connection, ConnectionError>,
    Result<quinn::Connection, ConnectionError>,
) {
    let client = Endpoint::client(LOOPBACK).unwrap();
    let crypto = QuicClientConfig::try_from(tls.quic_config(ALPN)).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let address = server.local_addr().unwrap();
    let connecting = client.connect_with(config, address, SERVER).unwrap();
    let serve = async {
        let connection = server.accept().await.unwrap().await?;
        connection.open_uni().await?.write_all(b"!").await.unwrap();
        Ok(connection)
    };
    let connect = async {
        let connection = connecting.await?;
        connection.accept_uni().await?;
        Ok(connection)
    };
    tokio::join!(serve, connect)
}

fn identity(connection: &quinn::Connection) -> tunnel_proto::Identity {
    let chain = connection.peer_identity().unwrap();
    peer_identity(chain.downcast_ref::<Vec<CertificateDer<'static>>>().unwrap()).unwrap()
}

/// What an end says of the error that ended its connection, from what quinn tells.
fn said(error: &ConnectionError) -> String {
    const CRYPTO_ERROR: u64 = 0x100;
    let alert = |code: u64| u8::try_from(code - CRYPTO_ERROR).unwrap();
    match error {
        ConnectionError::TransportError(error) => explain_sent_alert(alert(error.code.into()), &error.reason),
        ConnectionError::ConnectionClosed(close) => explain_received_alert(alert(close.error_code.into())),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn mutual_authentication_and_protocol() {
    let (ca, clients) = (Ca::new("ca"), Ca::new("clients"));
    let files = Files::new(&ca.server(), &clients.pem);
    let server = listen(&files.server(ClientAuth::Required));
    let tls = client_tls_with(&ca, &clients.client("node-7"));
    let (at_server, at_client) = dial(&server, &tls).await;
    assert_eq!(identity(&at_server.unwrap()).dns, ["node-7"]);
    let at_client = at_client.unwrap();
    assert_eq!(identity(&at_client).dns, [SERVER]);
    let data = at_client.handshake_data().unwrap();
    let data = data.downcast::<HandshakeData>().unwrap();
    assert_eq!(data.protocol.as_deref(), Some(&b"tunnel/1"[..]));
}

#[tokio::test]
async fn an_endpoint_follows_new_certificates_and_cas_and_its_connections_stay() {
    let (ca, old, new) = (Ca::new("ca"), Ca::new("old"), Ca::new("new"));
    let files = Files::new(&ca.server(), &old.pem);
    let tls = files.server(ClientAuth::Required);
    let server = listen(&tls);
    let of_old = client_tls_with(&ca, &old.client("a"));
    let (live_server, live_client) = dial(&server, &of_old).await;
    let (live_server, live_client) = (live_server.unwrap(), live_client.unwrap());

    let next = ca.server();
    files.put_pair(&next);
    files.put("ca.crt", &new.pem);
    tls.reload().unwrap();
    let (at_server, at_client) = dial(&server, &of_old).await;
    assert_eq!(
        said(&at_server.unwrap_err()),
        "the peer's certificate is not signed by a CA that this side trusts"
    );
    assert_eq!(
        said(&at_client.unwrap_err()),
        "the peer refused our certificate: it is not signed by a CA that the peer trusts"
    );
    let (_, at_client) = dial(&server, &client_tls_with(&ca, &new.client("a"))).await;
    let chain = at_client.unwrap().peer_identity().unwrap();
    let chain = chain.downcast::<Vec<CertificateDer<'static>>>().unwrap();
    assert_eq!(chain[0], support::der(&next));

    let mut stream = live_client.open_uni().await.unwrap();
    stream.write_all(b"still here").await.unwrap();
    stream.finish().unwrap();
    let mut stream = live_server.accept_uni().await.unwrap();
    assert_eq!(stream.read_to_end(64).await.unwrap(), b"still here");
}

#[tokio::test]
async fn what_goes_wrong_is_said_on_both_ends() {
    let (ca, clients) = (Ca::new("ca"), Ca::new("clients"));
    let files = Files::new(&ca.server(), &clients.pem);
    let server = listen(&files.server(ClientAuth::Required));
    let (at_server, at_client) = dial(&server, &client_tls(&ca)).await;
    assert_eq!(
        said(&at_server.unwrap_err()),
        "the peer sent no certificate, and this side requires one"
    );
    assert_eq!(
        said(&at_client.unwrap_err()),
        "the peer requires a certificate, and this side sent none"
    );

    let mut params = leaf("node-7", rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let (at_server, _) = dial(&server, &client_tls_with(&ca, &clients.sign(&params))).await;
    assert_eq!(
        said(&at_server.unwrap_err()),
        "the peer shows a CA certificate as its own: it needs one that the CA has issued"
    );

    let server = listen(&server_tls(
        &ca.sign(&leaf("other.example", rcgen::ExtendedKeyUsagePurpose::ServerAuth)),
    ));
    let (_, at_client) = dial(&server, &client_tls(&ca)).await;
    let said = said(&at_client.unwrap_err());
    assert!(said.contains(SERVER) && said.contains("other.example"), "{said}");
}
