//! Servers that are known by their SPIFFE ID.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
use rustls::{CertificateError, Error};
use support::*;
use time::{Duration, OffsetDateTime};
use tunnel_tls::{ClientTls, Pem, TlsError, Trust, explain};

const GATEWAY: &str = "spiffe://cluster.local/ns/tunnels/sa/gateway";

/// A certificate of a mesh, which has no name of DNS.
fn svid(id: &str) -> CertificateParams {
    let mut params = leaf(SERVER, ExtendedKeyUsagePurpose::ServerAuth);
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params
}

fn client(trust: Trust, expected: &[&str]) -> ClientTls {
    ClientTls::builder(trust)
        .spiffe(expected.iter().copied())
        .build()
        .unwrap()
}

/// What the client makes of a server with this certificate.
async fn verdict(ca: &Ca, certificate: &CertificateParams, client: &ClientTls) -> Result<(), std::io::Error> {
    let server = server_tls(&ca.sign(certificate)).tcp_config(&[]);
    handshake(server, client.tcp_config(&[])).await.1.map(drop)
}

#[tokio::test]
async fn a_server_is_known_by_its_id_and_by_its_trust_domain() {
    let ca = Ca::new("ca");
    for expected in [
        &[GATEWAY][..],
        &["spiffe://other.local", GATEWAY],
        &["spiffe://cluster.local"],
    ] {
        verdict(&ca, &svid(GATEWAY), &client(ca.trust(), expected))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_server_of_another_id_is_refused_by_name() {
    let ca = Ca::new("ca");
    for (presented, expected) in [
        ("spiffe://cluster.local/ns/tunnels/sa/other", GATEWAY),
        ("spiffe://cluster.local/ns/tunnels/sa/gateway/more", GATEWAY),
        ("spiffe://cluster.local/ns/tunnels/sa/gateway2", GATEWAY),
        (
            "spiffe://cluster.local.evil/ns/tunnels/sa/gateway",
            "spiffe://cluster.local",
        ),
    ] {
        let error = verdict(&ca, &svid(presented), &client(ca.trust(), &[expected]))
            .await
            .unwrap_err();
        assert_eq!(
            explain(&error),
            format!("the peer's certificate is for {presented}, not for {expected}")
        );
    }
    // A name is no ID, also where it is the name that was dialled.
    let named = leaf(SERVER, ExtendedKeyUsagePurpose::ServerAuth);
    let error = verdict(&ca, &named, &client(ca.trust(), &[GATEWAY])).await.unwrap_err();
    assert_eq!(
        explain(&error),
        format!("the peer's certificate is for nothing that has a SPIFFE ID, not for {GATEWAY}")
    );
}

/// What is wrong otherwise is wrong whatever the ID is.
#[tokio::test]
async fn the_rest_of_a_certificate_is_verified() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let expecting = client(ca.trust(), &[GATEWAY]);
    let error = verdict(&other, &svid(GATEWAY), &expecting).await.unwrap_err();
    assert_eq!(
        tls_error(&error),
        Error::InvalidCertificate(CertificateError::UnknownIssuer)
    );

    let mut misused = svid(GATEWAY);
    misused.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let error = verdict(&ca, &misused, &expecting).await.unwrap_err();
    assert!(explain(&error).contains("is not meant for"), "{}", explain(&error));

    let mut revoked = svid(GATEWAY);
    revoked.serial_number = Some(7.into());
    let list = ca.revoke(7, OffsetDateTime::now_utc() + Duration::days(1));
    let expecting = client(ca.trust().revoked(Pem::text(list)), &[GATEWAY]);
    let error = verdict(&ca, &revoked, &expecting).await.unwrap_err();
    assert_eq!(tls_error(&error), Error::InvalidCertificate(CertificateError::Revoked));

    let mut two = svid(GATEWAY);
    two.subject_alt_names
        .push(SanType::URI("https://example.com".try_into().unwrap()));
    let error = verdict(&ca, &two, &client(ca.trust(), &[GATEWAY])).await.unwrap_err();
    assert!(
        explain(&error).contains("a SPIFFE ID must stand alone"),
        "{}",
        explain(&error)
    );
}

#[test]
fn what_is_no_id_is_refused_when_it_is_configured() {
    let ca = Ca::new("ca");
    for id in [
        "",
        "cluster.local",
        "spiffe://",
        "spiffe://A/b",
        "spiffe://a/",
        "https://a/b",
        "spiffe://a/*",
    ] {
        let built = ClientTls::builder(ca.trust()).spiffe([id]).build();
        assert!(matches!(built, Err(TlsError::SpiffeId { .. })), "{id}: {built:?}");
    }
}
