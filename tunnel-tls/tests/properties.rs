//! Whatever the bytes, reading them ends in a value or an error.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use support::{Ca, Pair, der, leaf};
use tunnel_tls::{Pem, peer_identity};

static PAIR: LazyLock<Pair> = LazyLock::new(|| {
    let mut params = leaf("a.example", ExtendedKeyUsagePurpose::ClientAuth);
    let id = "spiffe://a.example/x".try_into().unwrap();
    params.subject_alt_names.push(SanType::URI(id));
    Ca::new("ca").sign(&params)
});

/// Lines that PEM files are made of, whole and broken.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("-----BEGIN CERTIFICATE-----".to_owned()),
        Just("-----END CERTIFICATE-----".to_owned()),
        Just("-----BEGIN PRIVATE KEY-----".to_owned()),
        Just("-----END PRIVATE KEY-----".to_owned()),
        Just("-----BEGIN X509 CRL-----".to_owned()),
        Just("-----END X509 CRL-----".to_owned()),
        Just("Proc-Type: 4,ENCRYPTED".to_owned()),
        Just(PAIR.chain.clone()),
        Just(PAIR.key.clone()),
        "-{0,6}(BEGIN|END)? ?[A-Z0-9 ]{0,12}-{0,6}",
        "[A-Za-z0-9+/=]{0,64}",
        "\\PC{0,20}",
    ]
}

fn read(text: &[u8]) {
    let pem = Pem::text(text);
    let _ = (pem.certificates(), pem.private_key(), pem.revocation_lists());
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..512)) {
        read(&bytes);
    }

    #[test]
    fn any_lines_are_read_without_a_panic(lines in vec(line(), 0..12)) {
        read(lines.join("\n").as_bytes());
    }

    #[test]
    fn every_certificate_is_found_among_commentary(comments in vec("[a-zA-Z0-9 :=\r\n]{0,40}", 1..6)) {
        let mut text = String::new();
        for comment in &comments {
            text.push_str(comment);
            text.push('\n');
            text.push_str(&PAIR.chain);
        }
        prop_assert_eq!(Pem::text(text).certificates().unwrap().len(), comments.len());
    }

    #[test]
    fn a_certificate_that_was_tampered_with_is_read_without_a_panic(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = der(&PAIR).to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let whole = bytes.clone();
        bytes.truncate(cut.index(whole.len()));
        for bytes in [whole, bytes] {
            if let Ok(identity) = peer_identity(&[bytes.into()]) {
                for name in identity.names() {
                    prop_assert!(!name.chars().any(char::is_control), "{name:?}");
                }
            }
        }
    }
}
