//! Material is replaced for new handshakes, and only by material that is good.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::error::Error as _;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::{CertificateError, ClientConfig, Error, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tunnel_tls::{ClientAuth, ClientTls, Pem, Reload, ServerTls, provider};

#[tokio::test]
async fn a_new_server_certificate_serves_new_handshakes_and_live_connections_stay() {
    let ca = Ca::new("ca");
    let (old, new) = (ca.server(), ca.server());
    let files = Files::new(&old, &ca.pem);
    let tls = files.server(|_| ClientAuth::None);
    // Taken once, as the listeners of a program do.
    let (tcp, quic) = (tls.tcp_config(&[]), tls.quic_config(&[]));
    let client = client_tls(&ca).tcp_config(&[]);

    let (mut live_server, mut live_client) = connected(tcp.clone(), client.clone()).await;
    assert_eq!(shown(live_client.get_ref().1.peer_certificates()), der(&old));
    assert_eq!(tls.reload().unwrap(), Reload::Unchanged);

    files.put_pair(&new);
    assert_eq!(tls.reload().unwrap(), Reload::Changed);
    assert_eq!(tls.reload().unwrap(), Reload::Unchanged);
    for config in [tcp, quic] {
        let (_, stream) = connected(config, client.clone()).await;
        assert_eq!(shown(stream.get_ref().1.peer_certificates()), der(&new));
    }

    live_client.write_all(b"still here").await.unwrap();
    live_client.flush().await.unwrap();
    let mut heard = [0; 10];
    live_server.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
}

#[tokio::test]
async fn a_new_client_ca_decides_about_new_handshakes() {
    let (ca, old, new) = (Ca::new("ca"), Ca::new("old"), Ca::new("new"));
    let files = Files::new(&ca.server(), &old.pem);
    let tls = files.server(ClientAuth::Required);
    let config = tls.tcp_config(&[]);
    let of_old = client_tls_with(&ca, &old.client("a")).tcp_config(&[]);
    let of_new = client_tls_with(&ca, &new.client("a")).tcp_config(&[]);
    let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);

    connected(config.clone(), of_old.clone()).await;
    let refused = handshake(config.clone(), of_new.clone()).await.0.unwrap_err();
    assert_eq!(tls_error(&refused), unknown);

    files.put("ca.crt", &new.pem);
    assert_eq!(tls.reload().unwrap(), Reload::Changed);
    connected(config.clone(), of_new.clone()).await;
    let refused = handshake(config.clone(), of_old.clone()).await.0.unwrap_err();
    assert_eq!(tls_error(&refused), unknown);

    // While CAs are rotated both are good.
    files.put("ca.crt", &format!("{}{}", old.pem, new.pem));
    tls.reload().unwrap();
    connected(config.clone(), of_new).await;
    connected(config, of_old).await;
}

#[tokio::test]
async fn a_client_follows_new_roots_and_shows_its_new_certificate() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let clients = Ca::new("clients");
    let (before, after) = (clients.client("a"), clients.client("a"));
    let files = Files::new(&before, &old.pem);
    let tls = files.client();
    let config = tls.tcp_config(&[]);
    let server = |ca: &Ca| {
        let pair = ca.server();
        ServerTls::builder(Pem::text(&pair.chain), Pem::text(&pair.key))
            .client_auth(ClientAuth::Required(clients.trust()))
            .build()
            .unwrap()
            .tcp_config(&[])
    };
    let (of_old, of_new) = (server(&old), server(&new));

    let (stream, _) = connected(of_old.clone(), config.clone()).await;
    assert_eq!(shown(stream.get_ref().1.peer_certificates()), der(&before));
    assert!(handshake(of_new.clone(), config.clone()).await.1.is_err());

    files.put("ca.crt", &new.pem);
    files.put_pair(&after);
    assert_eq!(tls.reload().unwrap(), Reload::Changed);
    let (stream, _) = connected(of_new, config.clone()).await;
    assert_eq!(shown(stream.get_ref().1.peer_certificates()), der(&after));
    assert!(handshake(of_old, config).await.1.is_err());
}

#[tokio::test]
async fn bad_new_files_are_named_and_change_nothing() {
    let ca = Ca::new("ca");
    let good = ca.server();
    let files = Files::new(&good, &ca.pem);
    let tls = files.server(ClientAuth::Optional);
    let config = tls.tcp_config(&[]);
    let client = client_tls(&ca).tcp_config(&[]);
    let other = ca.server();

    for (name, text) in [
        ("tls.crt", "no certificate"),
        ("tls.crt", &other.chain[..]),
        ("tls.key", ""),
        ("tls.key", &other.key[..]),
        ("ca.crt", &good.key[..]),
    ] {
        files.put(name, text);
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.contains(name), "{name}: {error}");
        let (_, stream) = connected(config.clone(), client.clone()).await;
        assert_eq!(shown(stream.get_ref().1.peer_certificates()), der(&good));
        files.put_pair(&good);
        files.put("ca.crt", &ca.pem);
    }
    std::fs::remove_file(files.path("ca.crt")).unwrap();
    let error = tls.reload().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot read {}", files.path("ca.crt").display())
    );
    assert!(error.source().is_some());
}

/// A client that resumes when the server lets it, as browsers and curl do.
fn resuming_client(ca: &Ca, pair: Option<&Pair>, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(Pem::text(&ca.pem).certificates().unwrap().remove(0)).unwrap();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let key = Pem::text(&pair.key).private_key().unwrap();
            builder.with_client_auth_cert(vec![der(pair)], key).unwrap()
        }
    };
    config.resumption = Resumption::in_memory_sessions(16);
    Arc::new(config)
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

#[tokio::test]
async fn sessions_are_resumed_until_a_reload_if_clients_need_no_certificate() {
    for version in VERSIONS {
        let ca = Ca::new("ca");
        let files = Files::new(&ca.server(), &ca.pem);
        let tls = files.server(|_| ClientAuth::None);
        let config = tls.tcp_config(&[]);
        let client = resuming_client(&ca, None, version);
        let kind = async || {
            let (_, stream) = connected(config.clone(), client.clone()).await;
            stream.get_ref().1.handshake_kind().unwrap()
        };
        assert_eq!(kind().await, HandshakeKind::Full);
        assert_eq!(kind().await, HandshakeKind::Resumed, "{version:?}");

        files.put_pair(&ca.server());
        tls.reload().unwrap();
        assert_eq!(kind().await, HandshakeKind::Full, "{version:?}");
        assert_eq!(kind().await, HandshakeKind::Resumed, "{version:?}");
    }
}

#[tokio::test]
async fn clients_with_certificates_never_resume_so_a_new_ca_counts_at_once() {
    for version in VERSIONS {
        for auth in [ClientAuth::Required, ClientAuth::Optional] {
            let (ca, old, new) = (Ca::new("ca"), Ca::new("old"), Ca::new("new"));
            let files = Files::new(&ca.server(), &old.pem);
            let tls = files.server(auth);
            let config = tls.tcp_config(&[]);
            let client = resuming_client(&ca, Some(&old.client("a")), version);
            for _ in 0..3 {
                let (_, stream) = connected(config.clone(), client.clone()).await;
                assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
            }
            files.put("ca.crt", &new.pem);
            tls.reload().unwrap();
            assert!(handshake(config, client).await.0.is_err(), "{version:?}");
        }
    }
}

#[tokio::test]
async fn our_clients_never_resume() {
    let ca = Ca::new("ca");
    let server = server_tls(&ca.server()).tcp_config(&[]);
    let client = ClientTls::builder(ca.trust()).build().unwrap().tcp_config(&[]);
    for _ in 0..3 {
        let (_, stream) = connected(server.clone(), client.clone()).await;
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn what_is_read_is_known() {
    let ca = Ca::new("ca");
    let files = Files::new(&ca.server(), &ca.pem);
    let server = files.server(ClientAuth::Required);
    let expected = ["tls.crt", "tls.key", "ca.crt"].map(|name| files.path(name));
    assert_eq!(server.files(), expected);
    assert_eq!(server.certificate().identity.dns, [SERVER]);
    assert!(client_tls(&ca).files().is_empty(), "what is in memory is no file");
}
