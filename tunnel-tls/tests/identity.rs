//! What certificates of every kind prove.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType,
};
use support::{Ca, der, leaf};
use tunnel_proto::Identity;
use tunnel_tls::{IdentityError, fingerprint, peer_identity};

fn plain() -> CertificateParams {
    let mut params = leaf("unused", ExtendedKeyUsagePurpose::ClientAuth);
    params.subject_alt_names.clear();
    params.distinguished_name = DistinguishedName::new();
    params
}

fn identify(params: &CertificateParams) -> Result<Identity, IdentityError> {
    peer_identity(&[der(&Ca::new("ca").sign(params))])
}

fn with_uris(uris: &[&str]) -> CertificateParams {
    let mut params = plain();
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
    params
}

fn with_common_name(name: &str) -> CertificateParams {
    let mut params = plain();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

#[test]
fn every_kind_of_name_is_found() {
    let mut params = with_uris(&["spiffe://a.example/ns/default/sa/node-7"]);
    for name in ["Node-7.Example", "*.b.example"] {
        params
            .subject_alt_names
            .push(SanType::DnsName(name.try_into().unwrap()));
    }
    params.distinguished_name.push(DnType::CommonName, "Jürgen 7");
    let certificate = der(&Ca::new("ca").sign(&params));
    let identity = peer_identity(std::slice::from_ref(&certificate)).unwrap();
    assert_eq!(
        identity.spiffe.as_deref(),
        Some("spiffe://a.example/ns/default/sa/node-7")
    );
    assert_eq!(identity.dns, ["node-7.example", "*.b.example"]);
    assert_eq!(identity.common_name.as_deref(), Some("Jürgen 7"));
    assert_eq!(identity.fingerprint, Some(fingerprint(&certificate)));
    assert_eq!(identity.principal().as_deref(), identity.spiffe.as_deref());
}

#[test]
fn only_the_first_certificate_of_the_chain_counts() {
    let ca = Ca::new("ca");
    let (leaf, other) = (der(&ca.client("leaf")), der(&ca.client("other")));
    assert_eq!(peer_identity(&[leaf, other]).unwrap().dns, ["leaf"]);
    assert!(peer_identity(&[]).unwrap().is_anonymous());
}

#[test]
fn a_certificate_without_names_is_still_its_fingerprint() {
    let identity = identify(&plain()).unwrap();
    assert!(!identity.is_anonymous());
    assert!(identity.principal().unwrap().starts_with("sha256:"));
}

#[test]
fn a_spiffe_id_stands_alone() {
    let alone = with_uris(&["https://a.example/", "urn:x"]);
    assert_eq!(identify(&alone).unwrap().spiffe, None);
    for uris in [
        &["spiffe://a.example/x", "spiffe://a.example/y"][..],
        &["https://a.example/", "spiffe://a.example/x"],
    ] {
        let error = identify(&with_uris(uris)).unwrap_err();
        assert_eq!(error, IdentityError::SpiffeNotAlone { others: 1 });
    }
}

#[test]
fn a_spiffe_id_is_canonical_or_refused() {
    let longest = format!("spiffe://a/{}", "x".repeat(2048 - 11));
    for good in ["spiffe://a.example", "spiffe://a-b_c.9/A.b-C_d/..e", &longest] {
        assert_eq!(identify(&with_uris(&[good])).unwrap().spiffe.as_deref(), Some(good));
    }
    let long_domain = format!("spiffe://{}/x", "a".repeat(256));
    for bad in [
        "spiffe:x",
        "spiffe:/a/x",
        "spiffe://",
        "spiffe:///x",
        "SPIFFE://a.example/x",
        "Spiffe:a",
        "spiffe://A.example/x",
        "spiffe://a.example:80/x",
        "spiffe://user@a.example/x",
        "spiffe://a.example/",
        "spiffe://a.example//x",
        "spiffe://a.example/x/",
        "spiffe://a.example/./x",
        "spiffe://a.example/x/..",
        "spiffe://a.example/x?y",
        "spiffe://a.example/x#y",
        "spiffe://a.example/%41",
        "spiffe://a.example/x y",
        &format!("{longest}x"),
        &long_domain,
    ] {
        let error = identify(&with_uris(&[bad])).unwrap_err();
        assert!(matches!(error, IdentityError::BadSpiffeId { .. }), "{bad}: {error}");
    }
}

#[test]
fn a_spiffe_id_on_a_signing_certificate_is_refused() {
    let mut params = with_uris(&["spiffe://a.example/x"]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(identify(&params).unwrap_err(), IdentityError::SpiffeOnSigner);
    for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
        let mut params = with_uris(&["spiffe://a.example/x"]);
        params.key_usages = vec![usage];
        assert_eq!(identify(&params).unwrap_err(), IdentityError::SpiffeOnSigner);
    }
}

#[test]
fn names_that_could_deceive_are_left_out() {
    let mut params = plain();
    for name in [
        "a.example",
        "a..example",
        "a b",
        "é",
        ".",
        "*.*.a",
        "x\ny",
        "a.example.",
    ] {
        if let Ok(name) = name.try_into() {
            params.subject_alt_names.push(SanType::DnsName(name));
        }
    }
    assert_eq!(identify(&params).unwrap().dns, ["a.example"]);

    for name in ["admin\n", "ad\u{202e}min", " admin", "", &"x".repeat(257)] {
        assert_eq!(identify(&with_common_name(name)).unwrap().common_name, None, "{name:?}");
    }
    let mut two = with_common_name("one");
    const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
    let again = DnType::CustomDnType(COMMON_NAME.to_vec());
    two.distinguished_name.push(again, "two");
    assert_eq!(identify(&two).unwrap().common_name, None);
    let longest = "x".repeat(256);
    assert_eq!(
        identify(&with_common_name(&longest)).unwrap().common_name,
        Some(longest)
    );
}

#[test]
fn garbage_in_the_place_of_names_is_an_error() {
    const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
    let mut params = plain();
    let garbage = CustomExtension::from_oid_content(SUBJECT_ALT_NAME, vec![0x30, 0x7f, 0x01]);
    params.custom_extensions.push(garbage);
    assert_eq!(identify(&params).unwrap_err(), IdentityError::Malformed);
    assert_eq!(
        peer_identity(&[vec![0x30, 0x03, 1, 2, 3].into()]).unwrap_err(),
        IdentityError::Malformed
    );
}
