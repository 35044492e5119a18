//! Certificates of every quality, and handshakes in memory.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use std::io;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tunnel_tls::{ClientAuth, ClientTls, Pem, ServerTls, Trust, provider};

/// A directory that only its owner can enter.
#[cfg(unix)]
pub(crate) fn private_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir().unwrap()
}

/// The name in every server certificate.
pub(crate) const SERVER: &str = "server.example";

/// A CA that signs whatever a test needs.
pub(crate) struct Ca {
    params: CertificateParams,
    key: KeyPair,
    pub(crate) pem: String,
}

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(1);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::ca(Pem::text(&self.pem))
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        Pair {
            chain: params.signed_by(&key, &issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    pub(crate) fn server(&self) -> Pair {
        self.sign(&leaf(SERVER, ExtendedKeyUsagePurpose::ServerAuth))
    }

    pub(crate) fn client(&self, name: &str) -> Pair {
        self.sign(&leaf(name, ExtendedKeyUsagePurpose::ClientAuth))
    }

    /// A revocation list for one serial number.
    pub(crate) fn revoke(&self, serial: u64, next_update: OffsetDateTime) -> String {
        let now = OffsetDateTime::now_utc();
        let list = CertificateRevocationListParams {
            this_update: now - Duration::days(2),
            next_update,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: now - Duration::days(2),
                reason_code: Some(RevocationReason::KeyCompromise),
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer = Issuer::from_params(&self.params, &self.key);
        list.signed_by(&issuer).unwrap().pem().unwrap()
    }
}

/// A certificate that is valid today.
pub(crate) fn leaf(name: &str, purpose: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
    params.extended_key_usages = vec![purpose];
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::hours(1);
    params
}

pub(crate) fn server_tls(pair: &Pair) -> ServerTls {
    ServerTls::builder(Pem::text(&pair.chain), Pem::text(&pair.key))
        .build()
        .unwrap()
}

pub(crate) fn client_tls(ca: &Ca) -> ClientTls {
    ClientTls::builder(ca.trust()).build().unwrap()
}

pub(crate) fn client_tls_with(ca: &Ca, pair: &Pair) -> ClientTls {
    ClientTls::builder(ca.trust())
        .certificate(Pem::text(&pair.chain), Pem::text(&pair.key))
        .build()
        .unwrap()
}

/// A client of the last generation: no TLS 1.3, no hybrid key exchange.
pub(crate) fn old_client(ca: &Ca) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for der in Pem::text(&ca.pem).certificates().unwrap() {
        roots.add(der).unwrap();
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

pub(crate) type ServerStream = server::TlsStream<DuplexStream>;
pub(crate) type ClientStream = client::TlsStream<DuplexStream>;

/// Both ends' view of one handshake and one byte from the server, which in TLS 1.3 is what tells a client
/// whether its certificate was accepted.
pub(crate) async fn handshake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
) -> (io::Result<ServerStream>, io::Result<ClientStream>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serve = async {
        let mut stream = TlsAcceptor::from(server).accept(near).await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        Ok(stream)
    };
    let connect = async {
        let name = ServerName::try_from(SERVER).unwrap();
        let mut stream = TlsConnector::from(client).connect(name, far).await?;
        stream.read_exact(&mut [0]).await?;
        Ok(stream)
    };
    tokio::join!(serve, connect)
}

/// A handshake that both ends must like.
pub(crate) async fn connected(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> (ServerStream, ClientStream) {
    let (server, client) = handshake(server, client).await;
    (server.unwrap(), client.unwrap())
}

/// The rustls error inside an I/O error.
pub(crate) fn tls_error(error: &io::Error) -> rustls::Error {
    let inner = error.get_ref().unwrap();
    inner.downcast_ref::<rustls::Error>().unwrap().clone()
}

/// The files of one end, as an operator has them.
pub(crate) struct Files {
    pub(crate) dir: tempfile::TempDir,
}

impl Files {
    pub(crate) fn new(pair: &Pair, ca: &str) -> Self {
        let files = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        files.put_pair(pair);
        files.put("ca.crt", ca);
        files
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file in place.
    pub(crate) fn put(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn put_pair(&self, pair: &Pair) {
        self.put("tls.crt", &pair.chain);
        self.put("tls.key", &pair.key);
    }

    pub(crate) fn server(&self, auth: impl FnOnce(Trust) -> ClientAuth) -> ServerTls {
        ServerTls::builder(self.path("tls.crt"), self.path("tls.key"))
            .client_auth(auth(Trust::ca(self.path("ca.crt"))))
            .build()
            .unwrap()
    }

    pub(crate) fn client(&self) -> ClientTls {
        ClientTls::builder(Trust::ca(self.path("ca.crt")))
            .certificate(self.path("tls.crt"), self.path("tls.key"))
            .build()
            .unwrap()
    }
}

/// The certificate that the other end showed.
pub(crate) fn shown(certificates: Option<&[CertificateDer<'static>]>) -> CertificateDer<'static> {
    certificates.unwrap()[0].clone()
}

/// The first certificate of a pair.
pub(crate) fn der(pair: &Pair) -> CertificateDer<'static> {
    Pem::text(&pair.chain).certificates().unwrap().remove(0)
}
