//! Secrets that outlive the process.
#![allow(clippy::unwrap_used)]

use tunnel_tls::{DevCa, Pem, Purpose, ServerTls};

#[test]
fn a_secret_belongs_to_the_key_and_the_purpose() {
    let dir = tempfile::tempdir().unwrap();
    let ca = DevCa::create_or_load(dir.path().join("ca")).unwrap();
    let load = |stem: &str| {
        let files = ca
            .ensure(stem, &["localhost".parse().unwrap()], Purpose::Server)
            .unwrap();
        ServerTls::builder(Pem::file(files.chain), Pem::file(files.key))
            .build()
            .unwrap()
    };
    let (first, again, other) = (load("one"), load("one"), load("two"));
    assert_eq!(first.derive_secret("a"), again.derive_secret("a"));
    assert_ne!(first.derive_secret("a"), first.derive_secret("b"));
    assert_ne!(first.derive_secret("a"), other.derive_secret("a"));
}
