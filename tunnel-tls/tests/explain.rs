//! What people read when a real handshake fails, on both ends.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::io;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, SanType};
use rustls::{AlertDescription, CertificateError, ServerConfig};
use support::*;
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tunnel_tls::{ClientAuth, Date, Pem, ServerTls, explain, explain_received_alert, explain_sent_alert, provider};

/// What server and client say of a handshake that fails.
async fn both(server: Arc<ServerConfig>, client: Arc<rustls::ClientConfig>) -> (String, String) {
    let (server, client) = handshake(server, client).await;
    (explain(&server.unwrap_err()), explain(&client.unwrap_err()))
}

/// A server that does not look at its own certificate, as others may not.
fn careless_server(pair: &Pair) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            Pem::text(&pair.chain).certificates().unwrap(),
            Pem::text(&pair.key).private_key().unwrap(),
        )
        .unwrap();
    Arc::new(config)
}

fn server_leaf() -> CertificateParams {
    leaf(SERVER, ExtendedKeyUsagePurpose::ServerAuth)
}

#[tokio::test]
async fn the_wrong_ca() {
    let server = server_tls(&Ca::new("theirs").server());
    let client = client_tls(&Ca::new("ours"));
    assert_eq!(
        both(server.tcp_config(&[]), client.tcp_config(&[])).await,
        (
            "the peer refused our certificate: it is not signed by a CA that the peer trusts".into(),
            "the peer's certificate is not signed by a CA that this side trusts".into()
        )
    );
}

#[tokio::test]
async fn an_expired_certificate_and_one_that_is_too_young() {
    let ca = Ca::new("ca");
    let client = client_tls(&ca).tcp_config(&[]);
    let mut params = server_leaf();
    params.not_after = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
    params.not_before = params.not_after - Duration::days(1);
    assert_eq!(
        both(careless_server(&ca.sign(&params)), client.clone()).await,
        (
            "the peer refused our certificate: it has expired or is not valid yet".into(),
            "the peer's certificate expired on 2023-11-14 22:13:20 UTC".into()
        )
    );

    let mut params = server_leaf();
    params.not_before = OffsetDateTime::now_utc() + Duration::days(2);
    params.not_after = params.not_before + Duration::days(2);
    let date = Date::from_unix(params.not_before.unix_timestamp());
    let (_, said) = both(careless_server(&ca.sign(&params)), client).await;
    assert_eq!(said, format!("the peer's certificate is not valid before {date}"));
}

#[tokio::test]
async fn a_wrong_name() {
    let ca = Ca::new("ca");
    let client = client_tls(&ca).tcp_config(&[]);
    let mut params = leaf("a.example", ExtendedKeyUsagePurpose::ServerAuth);
    let address = SanType::IpAddress("10.0.0.1".parse().unwrap());
    params.subject_alt_names.push(address);
    assert_eq!(
        both(server_tls(&ca.sign(&params)).tcp_config(&[]), client.clone()).await,
        (
            "the peer refused our certificate: it is malformed or lacks the name that the peer expects".into(),
            "the peer's certificate is for a.example, 10.0.0.1, not for server.example".into()
        )
    );

    params.subject_alt_names.clear();
    let (_, said) = both(server_tls(&ca.sign(&params)).tcp_config(&[]), client).await;
    assert_eq!(
        said,
        "the peer's certificate holds no name, and server.example was expected"
    );
}

#[tokio::test]
async fn client_certificates() {
    let (ca, clients) = (Ca::new("ca"), Ca::new("clients"));
    let pair = ca.server();
    let server = ServerTls::builder(Pem::text(&pair.chain), Pem::text(&pair.key))
        .client_auth(ClientAuth::Required(clients.trust()))
        .build()
        .unwrap()
        .tcp_config(&[]);
    let said = both(server.clone(), client_tls(&ca).tcp_config(&[])).await;
    assert_eq!(
        said,
        (
            "the peer sent no certificate, and this side requires one".into(),
            "the peer requires a certificate, and this side sent none".into()
        )
    );

    let misused = clients.sign(&server_leaf());
    let said = both(server, client_tls_with(&ca, &misused).tcp_config(&[])).await;
    assert_eq!(
        said,
        (
            "the peer's certificate is not meant for client authentication".into(),
            "the peer refused our certificate: it is not meant for this use".into()
        )
    );
}

#[tokio::test]
async fn a_ca_certificate_in_the_place_of_a_servers() {
    let ca = Ca::new("ca");
    let mut params = server_leaf();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (_, said) = both(careless_server(&ca.sign(&params)), client_tls(&ca).tcp_config(&[])).await;
    assert_eq!(
        said,
        "the peer shows a CA certificate as its own: it needs one that the CA has issued"
    );
}

#[tokio::test]
async fn nothing_in_common() {
    let ca = Ca::new("ca");
    let server = server_tls(&ca.server());
    let client = client_tls(&ca);
    assert_eq!(
        both(server.tcp_config(&[b"a"]), client.tcp_config(&[b"b"])).await,
        (
            "the two sides have no application protocol (ALPN) in common".into(),
            "the peer speaks none of the application protocols (ALPN) that this side offers".into()
        )
    );

    assert_eq!(
        both(server.quic_config(&[]), old_client(&ca)).await,
        (
            "the two sides have no TLS version in common".into(),
            "the peer speaks no TLS version that this side offers".into()
        )
    );
}

#[tokio::test]
async fn plain_text_where_tls_was_expected_and_a_peer_that_leaves() {
    let ca = Ca::new("ca");
    let plain = "the peer does not speak TLS here: is one side set to plain text?";
    let acceptor = TlsAcceptor::from(server_tls(&ca.server()).tcp_config(&[]));
    let (near, mut far) = tokio::io::duplex(1024);
    far.write_all(b"CONNECT a.example:443 HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(explain(&acceptor.accept(near).await.unwrap_err()), plain);

    let connector = TlsConnector::from(client_tls(&ca).tcp_config(&[]));
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let name = || SERVER.try_into().unwrap();
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    assert_eq!(explain(&connector.connect(name(), near).await.unwrap_err()), plain);

    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let leave = async {
        far.read_u8().await.unwrap();
        drop(far);
    };
    let (outcome, ()) = tokio::join!(connector.connect(name(), near), leave);
    assert_eq!(
        explain(&outcome.unwrap_err()),
        "the peer closed the connection in the middle of the handshake"
    );
}

#[test]
fn errors_without_tls_in_them_speak_for_themselves() {
    assert_eq!(explain(&io::Error::other("no route")), "no route");
    assert_eq!(explain(&io::Error::other("a\nb")), "a b");
    let reset = io::Error::from(io::ErrorKind::ConnectionReset);
    assert!(explain(&reset).contains("reset the connection"));
}

/// QUIC gives the alert and a text; together they must say as much as the error itself, which is also what
/// notices if the library changes its texts.
#[test]
fn an_alert_and_a_text_say_as_much_as_the_error() {
    let time = |seconds| rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    for error in [
        CertificateError::ExpiredContext {
            time: time(1_800_000_000),
            not_after: time(1_700_000_000),
        },
        CertificateError::NotValidYetContext {
            time: time(1_600_000_000),
            not_before: time(1_700_000_000),
        },
        CertificateError::UnknownIssuer,
        CertificateError::Revoked,
    ] {
        let alert = u8::from(AlertDescription::from(error.clone()));
        let error = rustls::Error::InvalidCertificate(error);
        assert_eq!(explain_sent_alert(alert, &error.to_string()), explain(&error));
    }
    for (alert, error) in [
        (
            AlertDescription::CertificateRequired,
            rustls::Error::NoCertificatesPresented,
        ),
        (
            AlertDescription::NoApplicationProtocol,
            rustls::Error::NoApplicationProtocol,
        ),
    ] {
        assert_eq!(explain_sent_alert(alert.into(), &error.to_string()), explain(&error));
    }
    let unknown = explain_sent_alert(AlertDescription::InternalError.into(), "a\nb");
    assert_eq!(unknown, "this side refused the handshake: a b");
    let required = explain_received_alert(AlertDescription::CertificateRequired.into());
    assert_eq!(required, "the peer requires a certificate, and this side sent none");
    assert!(
        explain_received_alert(250).contains("0xfa"),
        "{}",
        explain_received_alert(250)
    );
}
