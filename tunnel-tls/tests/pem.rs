//! Files as people write them, and what they are told about them.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::error::Error as _;
use std::fs;

use rcgen::ExtendedKeyUsagePurpose;
use support::{Ca, Pair, leaf};
use time::{Duration, OffsetDateTime};
use tunnel_tls::{ClientTls, Pem, ServerTls, TlsError, Trust};

const MEMORY: &str = "the PEM text given in memory";

fn server(chain: &str, key: &str) -> Result<ServerTls, TlsError> {
    ServerTls::builder(Pem::text(chain), Pem::text(key)).build()
}

fn certificates(text: &str) -> String {
    Pem::text(text).certificates().unwrap_err().to_string()
}

fn key(text: &str) -> String {
    Pem::text(text).private_key().unwrap_err().to_string()
}

fn pair() -> Pair {
    Ca::new("ca").server()
}

#[test]
fn commentary_line_ends_and_a_missing_last_newline_do_not_matter() {
    let Pair { chain, key } = pair();
    let read = Pem::text(&chain).certificates().unwrap();
    for text in [
        chain.replace('\n', "\r\n"),
        format!("Certificate:\n    Data: x\n{chain}\nBag Attributes\n"),
        chain.trim_end().to_owned(),
        format!("{key}{chain}"),
    ] {
        assert_eq!(Pem::text(text).certificates().unwrap(), read);
    }
    let alone = Pem::text(&key).private_key().unwrap();
    let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    for text in [format!("{chain}{key}"), format!("{parameters}{key}")] {
        assert_eq!(Pem::text(text).private_key().unwrap(), alone);
    }
}

#[test]
fn a_chain_keeps_its_order() {
    let (one, two) = (pair(), pair());
    let chain = format!("{}{}", one.chain, two.chain);
    let read = Pem::text(chain).certificates().unwrap();
    assert_eq!(read, [support::der(&one), support::der(&two)]);
}

#[test]
fn a_file_is_named_by_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pem");
    let error = Pem::file(&path).certificates().unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read {}", path.display()));
    assert!(error.source().unwrap().to_string().contains("No such file"));

    fs::write(&path, "").unwrap();
    let error = Pem::file(&path).certificates().unwrap_err().to_string();
    assert_eq!(error, format!("{} is empty", path.display()));
}

#[test]
fn a_huge_file_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("huge.pem");
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let error = Pem::file(&path).certificates().unwrap_err();
    assert!(matches!(error, TlsError::TooLarge { .. }), "{error}");
}

#[test]
fn text_without_a_usable_block() {
    assert_eq!(certificates(" \n"), format!("{MEMORY} is empty"));
    assert_eq!(
        certificates("hello"),
        format!("{MEMORY} holds no PEM block: expected one that begins with -----BEGIN CERTIFICATE-----")
    );
    let der = Pem::text(support::der(&pair())).certificates().unwrap_err().to_string();
    assert_eq!(
        der,
        format!("{MEMORY} is DER, not PEM: convert it with `openssl x509 -inform der -in {MEMORY}`")
    );
}

#[test]
fn swapped_files() {
    let Pair { chain, key: text } = pair();
    assert_eq!(
        certificates(&text),
        format!(
            "block 1 (PRIVATE KEY) of {MEMORY} is not a CERTIFICATE: were the files of certificate and key swapped?"
        )
    );
    assert_eq!(
        key(&chain),
        format!(
            "block 1 (CERTIFICATE) of {MEMORY} is not a PRIVATE KEY: were the files of certificate and key swapped?"
        )
    );
}

fn block(label: &str, body: &str) -> String {
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

#[test]
fn blocks_of_other_kinds_come_with_the_fix() {
    for (label, fix) in [
        ("CERTIFICATE REQUEST", "have a CA sign it"),
        ("NEW CERTIFICATE REQUEST", "have a CA sign it"),
        ("TRUSTED CERTIFICATE", "`openssl x509`"),
    ] {
        let error = certificates(&block(label, "AAAA"));
        assert!(error.contains(label) && error.contains(fix), "{error}");
    }
    let error = key(&block("OPENSSH PRIVATE KEY", "AAAA"));
    assert!(error.contains("ssh-keygen"), "{error}");
}

#[test]
fn damaged_blocks_are_counted() {
    let good = pair().chain;
    let base64 = block("CERTIFICATE", "AAA!");
    assert_eq!(
        certificates(&format!("{good}{base64}")),
        format!("block 2 (CERTIFICATE) of {MEMORY} is not valid base64: the file is damaged")
    );
    let not_x509 = block("CERTIFICATE", "MAMBAf8=");
    assert_eq!(
        certificates(&format!("{good}{good}{not_x509}")),
        format!("block 3 (CERTIFICATE) of {MEMORY} is not a valid X.509 certificate")
    );
    let cut = &good[..good.len() - 10];
    let unterminated = "has no -----END CERTIFICATE----- line: the file is cut short";
    for text in [
        format!("{good}{}", &good[..100]),
        format!("{good}{cut}"),
        format!("{good}{}\n{good}", &good[..100]),
    ] {
        assert_eq!(
            certificates(&text),
            format!("block 2 (CERTIFICATE) of {MEMORY} {unterminated}")
        );
    }
}

#[test]
fn encrypted_and_superfluous_keys() {
    let encrypted = format!("block 1 (ENCRYPTED PRIVATE KEY) of {MEMORY} is an encrypted private key");
    let error = key(&block("ENCRYPTED PRIVATE KEY", "AAAA"));
    assert!(error.starts_with(&encrypted), "{error}");
    assert!(error.contains("`openssl pkey -in "), "{error}");

    let old = block(
        "RSA PRIVATE KEY",
        "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA",
    );
    assert!(key(&old).contains("(RSA PRIVATE KEY) of the PEM text given in memory is an encrypted"));

    let two = format!("{}{}", pair().key, pair().key);
    assert!(key(&two).starts_with("block 2 (PRIVATE KEY)"), "{}", key(&two));
}

#[test]
fn keys_and_certificates_that_do_not_belong_together() {
    let (one, two) = (pair(), pair());
    let error = server(&one.chain, &two.key).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("the private key in {MEMORY} does not belong to the first certificate in {MEMORY}")
    );
    // The order that some CAs deliver: the server's certificate last.
    let reversed = format!("{}{}", two.chain, one.chain);
    let error = server(&reversed, &one.key).unwrap_err().to_string();
    assert!(
        error.ends_with(", but to certificate 2 there: put that one first, then its issuer"),
        "{error}"
    );
}

#[test]
fn a_key_of_an_unsupported_kind() {
    let error = server(&pair().chain, &block("PRIVATE KEY", "MAMBAf8=")).unwrap_err();
    assert!(matches!(error, TlsError::UnusableKey { .. }), "{error}");
    assert!(error.source().is_some());
}

#[test]
fn certificates_outside_their_time() {
    let ca = Ca::new("ca");
    let at = |from: Duration, to: Duration| {
        let mut params = leaf("a.example", ExtendedKeyUsagePurpose::ServerAuth);
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now + from, now + to);
        let pair = ca.sign(&params);
        (server(&pair.chain, &pair.key), params)
    };
    let day = Duration::DAY;
    let (expired, params) = at(-day * 2, -day);
    let date = tunnel_tls::Date::from_unix(params.not_after.unix_timestamp());
    assert_eq!(
        expired.unwrap_err().to_string(),
        format!("the certificate in {MEMORY} expired on {date}: renew it")
    );
    let (young, params) = at(day, day * 2);
    let date = tunnel_tls::Date::from_unix(params.not_before.unix_timestamp());
    assert_eq!(
        young.unwrap_err().to_string(),
        format!("the certificate in {MEMORY} is not valid before {date}: check this machine's clock")
    );
}

#[test]
fn trust_needs_cas_and_usable_lists() {
    let none = ClientTls::builder(Trust::cas([])).build().unwrap_err();
    assert!(matches!(none, TlsError::NoCa), "{none}");

    let ca = Ca::new("ca");
    let with_list = |text: &str| ClientTls::builder(ca.trust().revoked(Pem::text(text))).build();
    let error = with_list(&ca.pem).unwrap_err().to_string();
    assert_eq!(error, format!("block 1 (CERTIFICATE) of {MEMORY} is not a X509 CRL"));
    let error = with_list(&block("X509 CRL", "MAMBAf8=")).unwrap_err();
    assert!(matches!(error, TlsError::BadRevocationList { .. }), "{error}");
    let tomorrow = OffsetDateTime::now_utc() + Duration::DAY;
    with_list(&ca.revoke(1, tomorrow)).unwrap();
}
