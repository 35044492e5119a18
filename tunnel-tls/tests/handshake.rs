//! What the two ends of a handshake agree on and what they refuse.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use rcgen::ExtendedKeyUsagePurpose;
use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError, Error, HandshakeKind, NamedGroup, PeerIncompatible, ProtocolVersion};
use support::*;
use time::{Duration, OffsetDateTime};
use tunnel_tls::{ClientAuth, ClientTls, Pem, ServerTls, peer_identity};

fn requiring(ca: &Ca, clients: &Ca) -> ServerTls {
    let pair = ca.server();
    ServerTls::builder(Pem::text(&pair.chain), Pem::text(&pair.key))
        .client_auth(ClientAuth::Required(clients.trust()))
        .build()
        .unwrap()
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum() {
    let ca = Ca::new("ca");
    let server = server_tls(&ca.server());
    let client = client_tls(&ca);
    for (server, client) in [
        (server.tcp_config(&[b"a"]), client.tcp_config(&[b"a"])),
        (server.quic_config(&[b"a"]), client.quic_config(&[b"a"])),
    ] {
        let (_, client) = connected(server, client).await;
        let connection = client.get_ref().1;
        assert_eq!(
            connection.negotiated_key_exchange_group().unwrap().name(),
            NamedGroup::X25519MLKEM768
        );
        assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn the_most_wanted_common_protocol_is_negotiated() {
    let ca = Ca::new("ca");
    let server = server_tls(&ca.server()).tcp_config(&[b"h2", b"http/1.1"]);
    let client = client_tls(&ca);
    let (_, stream) = connected(server.clone(), client.tcp_config(&[b"http/1.1"])).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let (_, stream) = connected(server.clone(), client.tcp_config(&[])).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), None);

    let (server, _) = handshake(server, client.tcp_config(&[b"spdy"])).await;
    assert_eq!(tls_error(&server.unwrap_err()), Error::NoApplicationProtocol);
}

#[tokio::test]
async fn tls_1_2_is_accepted_on_tcp_and_refused_for_quic() {
    let ca = Ca::new("ca");
    let server = server_tls(&ca.server());
    let (_, client) = connected(server.tcp_config(&[]), old_client(&ca)).await;
    assert_eq!(client.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_2));

    let (server, _) = handshake(server.quic_config(&[]), old_client(&ca)).await;
    assert_eq!(
        tls_error(&server.unwrap_err()),
        Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled)
    );
}

#[tokio::test]
async fn a_server_of_another_ca_is_refused() {
    let server = server_tls(&Ca::new("theirs").server());
    let client = client_tls(&Ca::new("ours"));
    let (server, client) = handshake(server.tcp_config(&[]), client.tcp_config(&[])).await;
    assert_eq!(
        tls_error(&client.unwrap_err()),
        Error::InvalidCertificate(CertificateError::UnknownIssuer)
    );
    assert_eq!(
        tls_error(&server.unwrap_err()),
        Error::AlertReceived(AlertDescription::UnknownCA)
    );
}

#[tokio::test]
async fn a_server_of_another_name_is_refused() {
    let ca = Ca::new("ca");
    let pair = ca.sign(&leaf("other.example", ExtendedKeyUsagePurpose::ServerAuth));
    let (_, client) = handshake(server_tls(&pair).tcp_config(&[]), client_tls(&ca).tcp_config(&[])).await;
    assert!(matches!(
        tls_error(&client.unwrap_err()),
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })
    ));
}

#[tokio::test]
async fn a_client_certificate_is_required_verified_and_seen() {
    let ca = Ca::new("ca");
    let clients = Ca::new("clients");
    let server = requiring(&ca, &clients).tcp_config(&[]);

    let good = client_tls_with(&ca, &clients.client("node-7")).tcp_config(&[]);
    let (stream, _) = connected(server.clone(), good).await;
    let identity = peer_identity(stream.get_ref().1.peer_certificates().unwrap()).unwrap();
    assert_eq!(identity.dns, ["node-7"]);

    let (at_server, at_client) = handshake(server.clone(), client_tls(&ca).tcp_config(&[])).await;
    assert_eq!(tls_error(&at_server.unwrap_err()), Error::NoCertificatesPresented);
    assert_eq!(
        tls_error(&at_client.unwrap_err()),
        Error::AlertReceived(AlertDescription::CertificateRequired)
    );

    let stranger = client_tls_with(&ca, &ca.client("node-7")).tcp_config(&[]);
    let (at_server, at_client) = handshake(server.clone(), stranger).await;
    assert_eq!(
        tls_error(&at_server.unwrap_err()),
        Error::InvalidCertificate(CertificateError::UnknownIssuer)
    );
    assert_eq!(
        tls_error(&at_client.unwrap_err()),
        Error::AlertReceived(AlertDescription::UnknownCA)
    );

    let server_certificate = clients.sign(&leaf("node-7", ExtendedKeyUsagePurpose::ServerAuth));
    let misused = client_tls_with(&ca, &server_certificate).tcp_config(&[]);
    let (at_server, _) = handshake(server, misused).await;
    assert!(matches!(
        tls_error(&at_server.unwrap_err()),
        Error::InvalidCertificate(CertificateError::InvalidPurposeContext { .. })
    ));
}

#[tokio::test]
async fn an_optional_client_certificate_may_be_missing_but_not_bad() {
    let ca = Ca::new("ca");
    let pair = ca.server();
    let server = ServerTls::builder(Pem::text(&pair.chain), Pem::text(&pair.key))
        .client_auth(ClientAuth::Optional(ca.trust()))
        .build()
        .unwrap()
        .tcp_config(&[]);

    let (stream, _) = connected(server.clone(), client_tls(&ca).tcp_config(&[])).await;
    let chain: &[CertificateDer<'_>] = stream.get_ref().1.peer_certificates().unwrap_or_default();
    assert!(peer_identity(chain).unwrap().is_anonymous());

    let good = client_tls_with(&ca, &ca.client("node-7")).tcp_config(&[]);
    let (stream, _) = connected(server.clone(), good).await;
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap().len(), 1);

    let stranger = Ca::new("other").client("node-7");
    let stranger = client_tls_with(&ca, &stranger).tcp_config(&[]);
    assert!(handshake(server, stranger).await.0.is_err());
}

#[tokio::test]
async fn a_revoked_client_is_refused_and_an_old_list_is_no_list() {
    let ca = Ca::new("ca");
    let pair = ca.server();
    let server = |list: String| {
        ServerTls::builder(Pem::text(&pair.chain), Pem::text(&pair.key))
            .client_auth(ClientAuth::Required(ca.trust().revoked(Pem::text(list))))
            .build()
            .unwrap()
            .tcp_config(&[])
    };
    let client = |serial: u64| {
        let mut params = leaf("node-7", ExtendedKeyUsagePurpose::ClientAuth);
        params.serial_number = Some(serial.into());
        client_tls_with(&ca, &ca.sign(&params)).tcp_config(&[])
    };
    let tomorrow = OffsetDateTime::now_utc() + Duration::days(1);
    let current = server(ca.revoke(7, tomorrow));
    connected(current.clone(), client(8)).await;
    assert_eq!(
        tls_error(&handshake(current, client(7)).await.0.unwrap_err()),
        Error::InvalidCertificate(CertificateError::Revoked)
    );

    let yesterday = OffsetDateTime::now_utc() - Duration::days(1);
    let old = server(ca.revoke(7, yesterday));
    assert!(matches!(
        tls_error(&handshake(old, client(8)).await.0.unwrap_err()),
        Error::InvalidCertificate(CertificateError::ExpiredRevocationListContext { .. })
    ));
}

#[tokio::test]
async fn a_revoked_server_is_refused_and_an_old_list_is_no_list() {
    let ca = Ca::new("ca");
    let server = |serial: u64| {
        let mut params = leaf(SERVER, ExtendedKeyUsagePurpose::ServerAuth);
        params.serial_number = Some(serial.into());
        server_tls(&ca.sign(&params)).tcp_config(&[])
    };
    let client = |next_update| {
        let list = Pem::text(ca.revoke(7, next_update));
        let client = ClientTls::builder(ca.trust().revoked(list));
        client.build().unwrap().tcp_config(&[])
    };
    let current = client(OffsetDateTime::now_utc() + Duration::days(1));
    connected(server(8), current.clone()).await;
    assert_eq!(
        tls_error(&handshake(server(7), current).await.1.unwrap_err()),
        Error::InvalidCertificate(CertificateError::Revoked)
    );

    let old = client(OffsetDateTime::now_utc() - Duration::days(1));
    assert!(matches!(
        tls_error(&handshake(server(8), old).await.1.unwrap_err()),
        Error::InvalidCertificate(CertificateError::ExpiredRevocationListContext { .. })
    ));
}

#[tokio::test]
async fn the_server_name_can_be_overridden() {
    let ca = Ca::new("ca");
    let client = ClientTls::builder(ca.trust());
    let plain = client.clone().build().unwrap();
    assert_eq!(plain.server_name("gw.example").unwrap().to_str(), "gw.example");
    assert_eq!(plain.server_name("::1").unwrap().to_str(), "::1");
    assert!(plain.server_name("no name").is_err());

    let fixed = client.clone().server_name(SERVER).build().unwrap();
    assert_eq!(fixed.server_name("10.0.0.1").unwrap().to_str(), SERVER);
    assert!(client.server_name("no name").build().is_err());
}

#[test]
fn quinn_takes_the_quic_configurations() {
    let ca = Ca::new("ca");
    let server = server_tls(&ca.server()).quic_config(&[b"tunnel/1"]);
    let client = client_tls(&ca).quic_config(&[b"tunnel/1"]);
    assert_eq!(server.max_early_data_size, 0);
    assert!(!client.enable_early_data);
    quinn::crypto::rustls::QuicServerConfig::try_from(server).unwrap();
    quinn::crypto::rustls::QuicClientConfig::try_from(client).unwrap();
}
