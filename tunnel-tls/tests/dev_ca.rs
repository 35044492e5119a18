//! The development CA, its files and what it signs.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::fs;
use std::net::IpAddr;
use std::sync::Barrier;
use std::time::Duration;

use support::{connected, handshake, private_dir};
use tunnel_tls::{
    CertName, ClientAuth, ClientTls, Date, DevCa, DevCaError, Pem, Purpose, ServerTls, Trust, peer_identity,
};

const DAY: i64 = 24 * 60 * 60;

fn names(list: &[&str]) -> Vec<CertName> {
    list.iter().map(|name| name.parse().unwrap()).collect()
}

#[tokio::test]
async fn its_certificates_authenticate_both_ends() {
    let dir = private_dir();
    let ca = DevCa::create_or_load(dir.path()).unwrap();
    let server = names(&[support::SERVER, "127.0.0.1", "::1"]);
    let server = ca.ensure("server", &server, Purpose::Server).unwrap();
    let client = names(&["spiffe://dev.example/agent/node-7"]);
    let client = ca.issue(&client, Purpose::Client, DevCa::LEAF_VALIDITY).unwrap();

    let trust = || Trust::ca(Pem::file(ca.certificate_file()));
    let server = ServerTls::builder(server.chain, server.key)
        .client_auth(ClientAuth::Required(trust()))
        .build()
        .unwrap();
    let client = ClientTls::builder(trust())
        .certificate(Pem::text(&client.chain), Pem::text(&client.key))
        .build()
        .unwrap();
    let (stream, _) = connected(server.tcp_config(&[]), client.tcp_config(&[])).await;
    let identity = peer_identity(stream.get_ref().1.peer_certificates().unwrap()).unwrap();
    assert_eq!(identity.spiffe.as_deref(), Some("spiffe://dev.example/agent/node-7"));
}

#[tokio::test]
async fn a_certificate_for_servers_is_none_for_clients() {
    let dir = private_dir();
    let ca = DevCa::create_or_load(dir.path()).unwrap();
    let names = names(&[support::SERVER]);
    let good = ca.ensure("server", &names, Purpose::Server).unwrap();
    let wrong = ca.ensure("client", &names, Purpose::Server).unwrap();
    let trust = || Trust::ca(ca.certificate_file());
    let server = ServerTls::builder(good.chain, good.key)
        .client_auth(ClientAuth::Required(trust()))
        .build()
        .unwrap();
    let client = ClientTls::builder(trust())
        .certificate(wrong.chain, wrong.key)
        .build()
        .unwrap();
    let (at_server, _) = handshake(server.tcp_config(&[]), client.tcp_config(&[])).await;
    assert!(at_server.is_err());
}

#[test]
fn a_second_start_finds_what_the_first_made() {
    let dir = private_dir();
    let names = names(&["a.example"]);
    let read = |file: &str| fs::read(dir.path().join(file)).unwrap();
    let first = DevCa::create_or_load(dir.path()).unwrap();
    let files = first.ensure("server", &names, Purpose::Server).unwrap();
    let before = [read("ca.crt"), read("ca.key"), read("server.crt"), read("server.key")];

    let second = DevCa::create_or_load(dir.path()).unwrap();
    assert_eq!(second.ensure("server", &names, Purpose::Server).unwrap(), files);
    let after = [read("ca.crt"), read("ca.key"), read("server.crt"), read("server.key")];
    assert_eq!(before, after);
    let mut left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(
        left,
        [".lock", "ca.crt", "ca.key", "server.crt", "server.key"],
        "no drafts are left"
    );
}

#[test]
fn a_certificate_that_does_not_fit_any_more_is_issued_again() {
    let dir = private_dir();
    let ca = DevCa::create_or_load(dir.path()).unwrap();
    let issue = |list: &[&str], purpose| {
        let files = ca.ensure("leaf", &names(list), purpose).unwrap();
        fs::read(files.chain).unwrap()
    };
    let first = issue(&["a.example", "b.example"], Purpose::Server);
    assert_eq!(issue(&["b.example", "a.example"], Purpose::Server), first);
    let other_names = issue(&["a.example"], Purpose::Server);
    assert_ne!(other_names, first);
    let other_purpose = issue(&["a.example"], Purpose::Client);
    assert_ne!(other_purpose, other_names);

    fs::write(dir.path().join("leaf.key"), "damaged").unwrap();
    assert_ne!(issue(&["a.example"], Purpose::Client), other_purpose);

    // Of 100 days, 30 are left: less than a third.
    let old = aged_leaf(&ca, &dir, 70, 30);
    assert_ne!(issue(&["a.example"], Purpose::Client), old);
    // Of 100 days, 40 are left.
    let young = aged_leaf(&ca, &dir, 60, 40);
    assert_eq!(issue(&["a.example"], Purpose::Client), young);
}

/// Writes a certificate of the CA with chosen dates over `leaf.crt`.
fn aged_leaf(ca: &DevCa, dir: &tempfile::TempDir, days_old: i64, days_left: i64) -> Vec<u8> {
    let key = fs::read_to_string(dir.path().join("ca.key")).unwrap();
    let key = rcgen::KeyPair::from_pem(&key).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(ca.certificate(), key).unwrap();
    let purpose = rcgen::ExtendedKeyUsagePurpose::ClientAuth;
    let mut params = support::leaf("a.example", purpose);
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::days(days_old);
    params.not_after = now + time::Duration::days(days_left);
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let chain = params.signed_by(&leaf_key, &issuer).unwrap().pem();
    fs::write(dir.path().join("leaf.crt"), &chain).unwrap();
    fs::write(dir.path().join("leaf.key"), leaf_key.serialize_pem()).unwrap();
    chain.into_bytes()
}

#[test]
fn validity_is_what_was_asked_for_and_never_beyond_the_ca() {
    let dir = private_dir();
    let ca = DevCa::create_or_load(dir.path()).unwrap();
    let now = Date::now().as_unix();
    assert!((ca.not_after().as_unix() - now - 365 * DAY).abs() < DAY);

    let not_after = |days: u64| {
        let validity = Duration::from_secs(days * 24 * 60 * 60);
        let issued = ca.issue(&names(&["a.example"]), Purpose::Server, validity).unwrap();
        let tls = ServerTls::builder(Pem::text(&issued.chain), Pem::text(&issued.key));
        tls.build().unwrap().certificate().not_after
    };
    assert!((not_after(10).as_unix() - now - 10 * DAY).abs() < DAY);
    assert_eq!(not_after(1000), ca.not_after());
}

mod permissions {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn keys_are_private_and_certificates_public() {
        let parent = private_dir();
        let dir = parent.path().join("new/ca");
        let ca = DevCa::create_or_load(&dir).unwrap();
        ca.ensure("server", &names(&["a.example"]), Purpose::Server).unwrap();
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join("ca.key")), 0o600);
        assert_eq!(mode(&dir.join("server.key")), 0o600);
        assert_eq!(mode(&dir.join("ca.crt")) & 0o600, 0o600);
    }

    #[test]
    fn an_open_directory_or_key_is_refused_with_the_fix() {
        let dir = private_dir();
        DevCa::create_or_load(dir.path()).unwrap();
        chmod(&dir.path().join("ca.key"), 0o640);
        let error = DevCa::create_or_load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("ca.key has mode 640"), "{error}");
        assert!(error.contains("chmod 600"), "{error}");

        chmod(&dir.path().join("ca.key"), 0o600);
        chmod(dir.path(), 0o755);
        let error = DevCa::create_or_load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");

        chmod(dir.path(), 0o700);
        DevCa::create_or_load(dir.path()).unwrap();
    }
}

#[tokio::test]
async fn a_renewed_ca_goes_on_to_vouch_for_what_it_signed() {
    let dir = private_dir();
    let ca = DevCa::create_or_load(dir.path()).unwrap();
    let files = ca
        .ensure("server", &names(&[support::SERVER]), Purpose::Server)
        .unwrap();
    let server = ServerTls::builder(files.chain, files.key).build().unwrap();
    let old_certificate = fs::read_to_string(ca.certificate_file()).unwrap();

    age_ca(&dir);
    let renewed = DevCa::create_or_load(dir.path()).unwrap();
    assert!(renewed.not_after() >= ca.not_after());
    let new_certificate = fs::read_to_string(renewed.certificate_file()).unwrap();
    assert_ne!(new_certificate, old_certificate);
    for ca in [old_certificate, new_certificate] {
        let client = ClientTls::builder(Trust::ca(Pem::text(ca))).build().unwrap();
        connected(server.tcp_config(&[]), client.tcp_config(&[])).await;
    }
}

/// Replaces the CA certificate by one of the same key that is nearly over.
fn age_ca(dir: &tempfile::TempDir) {
    let key = fs::read_to_string(dir.path().join("ca.key")).unwrap();
    let key = rcgen::KeyPair::from_pem(&key).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(300);
    params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(65);
    let aged = params.self_signed(&key).unwrap().pem();
    fs::write(dir.path().join("ca.crt"), aged).unwrap();
}

#[test]
fn many_starts_at_once_agree_on_the_ca_and_the_certificate() {
    const THREADS: usize = 4;
    for _ in 0..10 {
        let dir = private_dir();
        let together = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (dir, together) = (dir.path(), &together);
                scope.spawn(move || {
                    together.wait();
                    let ca = DevCa::create_or_load(dir).unwrap();
                    together.wait();
                    // Each wants another certificate than the rest.
                    let names = names(&[&format!("n{thread}.example")]);
                    ca.ensure("server", &names, Purpose::Server).unwrap();
                });
            }
        });
        let read = |file: &str| Pem::file(dir.path().join(file));
        ServerTls::builder(read("server.crt"), read("server.key"))
            .build()
            .unwrap();
        DevCa::create_or_load(dir.path()).unwrap();
    }
}

#[test]
fn a_certificate_of_another_ca_is_issued_again() {
    let (one, two) = (private_dir(), private_dir());
    let names = names(&["a.example"]);
    let ensure = |dir: &tempfile::TempDir| {
        let ca = DevCa::create_or_load(dir.path()).unwrap();
        fs::read(ca.ensure("leaf", &names, Purpose::Server).unwrap().chain).unwrap()
    };
    let foreign = ensure(&one);
    for file in ["leaf.crt", "leaf.key"] {
        fs::copy(one.path().join(file), two.path().join(file)).unwrap();
    }
    assert_ne!(ensure(&two), foreign);
}

#[test]
fn mixed_or_damaged_files_are_named() {
    let (one, two) = (private_dir(), private_dir());
    DevCa::create_or_load(one.path()).unwrap();
    DevCa::create_or_load(two.path()).unwrap();
    fs::copy(one.path().join("ca.crt"), two.path().join("ca.crt")).unwrap();
    let error = DevCa::create_or_load(two.path()).unwrap_err();
    assert!(matches!(error, DevCaError::Mismatch { .. }), "{error}");

    fs::write(one.path().join("ca.crt"), "damaged").unwrap();
    let error = DevCa::create_or_load(one.path()).unwrap_err();
    assert!(matches!(error, DevCaError::Damaged { .. }), "{error}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("ca.crt"), "{source}");
}

#[test]
fn names_are_told_apart_and_checked() {
    let parse = |name: &str| name.parse::<CertName>();
    assert_eq!(parse("A.Example").unwrap(), CertName::Dns("a.example".into()));
    assert_eq!(parse("*.a.example").unwrap(), CertName::Dns("*.a.example".into()));
    let address: IpAddr = "2001:db8::1".parse().unwrap();
    assert_eq!(parse("2001:db8::1").unwrap(), CertName::Ip(address));
    let id = "spiffe://a.example/x";
    assert_eq!(parse(id).unwrap(), CertName::Uri(id.into()));
    for bad in ["", "a b", "*.10.0.0.1", "spiffe://a b", "a..b", "é.example"] {
        assert!(parse(bad).is_err(), "{bad}");
    }

    let dir = private_dir();
    let ca = DevCa::create_or_load(dir.path()).unwrap();
    for stem in ["", "ca", "CA", "../x", "a/b", "a.b"] {
        let error = ca.ensure(stem, &names(&["a.example"]), Purpose::Server);
        assert!(matches!(error, Err(DevCaError::BadStem { .. })), "{stem}");
    }
    assert!(matches!(
        ca.issue(&[], Purpose::Server, DevCa::LEAF_VALIDITY),
        Err(DevCaError::NoNames)
    ));
}

#[test]
fn secrets_do_not_show() {
    let dir = private_dir();
    let ca = DevCa::create_or_load(dir.path()).unwrap();
    let issued = ca.issue(&names(&["a.example"]), Purpose::Server, DevCa::LEAF_VALIDITY);
    let issued = issued.unwrap();
    let shown = format!("{ca:?} {issued:?} {:?}", Pem::text(&issued.key));
    assert!(!shown.contains("PRIVATE"), "{shown}");
    assert!(!shown.contains(&issued.key[60..90]), "{shown}");
}
