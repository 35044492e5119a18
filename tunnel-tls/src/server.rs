//! The server side of a handshake.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme, SupportedProtocolVersion};

use crate::auto_reload::AutoReload;
use crate::certificate::{Certificate, CertificateFacts, CertificateSource};
use crate::error::TlsError;
use crate::pem::Pem;
use crate::provider::provider;
use crate::reload::{Material, Reader, Reload, Reloadable};
use crate::sessions::Sessions;
use crate::trust::Trust;

/// Whether clients must prove who they are with a certificate.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum ClientAuth {
    /// Clients are not asked for a certificate.
    #[default]
    None,
    /// Clients are asked. One without a certificate is anonymous; one with a bad certificate is refused.
    Optional(Trust),
    /// Clients without a good certificate are refused.
    Required(Trust),
}

impl ClientAuth {
    /// Whether clients are asked for a certificate.
    #[must_use]
    pub fn asks(&self) -> bool {
        !matches!(self, Self::None)
    }
}

/// The server's certificate and its policy for clients, as rustls configurations that follow every reload.
///
/// One configuration serves for the life of the program: each handshake takes the certificate and the client
/// CAs that are current when it begins, and connections that are established keep what they have. Clones share
/// the material.
///
/// # Session resumption
///
/// A client that resumes shows no certificate, so neither its expiry nor the CAs could be checked again.
/// Therefore sessions are resumed only if clients are not asked for certificates ([`ClientAuth::None`]), and
/// only while the material under which they began is current. Early data (0-RTT) is never accepted, because it
/// can be replayed.
#[derive(Clone)]
pub struct ServerTls {
    shared: Arc<Shared>,
    tcp: ServerConfig,
    quic: ServerConfig,
}

type Shared = Reloadable<ServerMaterial>;

/// Collects the parts of a [`ServerTls`].
#[derive(Clone, Debug)]
pub struct ServerTlsBuilder {
    recipe: Recipe,
}

#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    certificate: CertificateSource,
    client_auth: ClientAuth,
}

#[derive(Debug)]
pub(crate) struct ServerMaterial {
    certificate: Certificate,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl ServerTls {
    /// Starts from the certificate chain (the server's own certificate first) and its private key.
    #[must_use]
    pub fn builder(chain: impl Into<Pem>, key: impl Into<Pem>) -> ServerTlsBuilder {
        ServerTlsBuilder {
            recipe: Recipe {
                certificate: CertificateSource {
                    chain: chain.into(),
                    key: key.into(),
                },
                client_auth: ClientAuth::None,
            },
        }
    }

    /// The configuration for TLS over TCP: TLS 1.3, and 1.2 for clients that lack it.
    ///
    /// `alpn` lists the protocols that are offered, most wanted first; with an empty list none is negotiated.
    #[must_use]
    pub fn tcp_config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        with_alpn(&self.tcp, alpn)
    }

    /// The configuration for QUIC: TLS 1.3 alone (RFC 9001 §4.2).
    ///
    /// It is ready for `quinn::crypto::rustls::QuicServerConfig::try_from`.
    #[must_use]
    pub fn quic_config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        with_alpn(&self.quic, alpn)
    }

    /// Reads all files again; new handshakes use what they hold now.
    ///
    /// Either everything is replaced or, after an error, nothing. It reads files and so may block briefly.
    pub fn reload(&self) -> Result<Reload, TlsError> {
        self.shared.reload()
    }

    /// Reloads whenever a file changes, for as long as the returned guard lives.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with time.
    #[must_use = "dropping it ends the watch"]
    pub fn watch(&self) -> AutoReload {
        AutoReload::start("server TLS", Arc::clone(&self.shared))
    }

    /// The files that [`ServerTls::reload`] reads.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        self.shared.files()
    }

    /// What the current certificate says.
    #[must_use]
    pub fn certificate(&self) -> CertificateFacts {
        self.shared.current().material.certificate.facts.clone()
    }

    /// A secret for one purpose, derived from the current private key. It is the same in every process and at every
    /// time that the key is, and says nothing about the key or about the secrets of other purposes.
    #[must_use]
    pub fn derive_secret(&self, purpose: &str) -> [u8; 32] {
        self.shared.current().material.certificate.derive(purpose)
    }

    /// Whether and by which CAs clients are verified.
    #[must_use]
    pub fn client_auth(&self) -> &ClientAuth {
        &self.shared.recipe().client_auth
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerTls").field(self.shared.recipe()).finish()
    }
}

impl ServerTlsBuilder {
    /// Whether clients need certificates. Default: [`ClientAuth::None`].
    #[must_use]
    pub fn client_auth(mut self, policy: ClientAuth) -> Self {
        self.recipe.client_auth = policy;
        self
    }

    /// Reads and checks everything.
    pub fn build(self) -> Result<ServerTls, TlsError> {
        let shared = Arc::new(Shared::load(self.recipe)?);
        Ok(ServerTls {
            tcp: config(&shared, &[&TLS13, &TLS12])?,
            quic: config(&shared, &[&TLS13])?,
            shared,
        })
    }
}

fn config(shared: &Arc<Shared>, versions: &[&'static SupportedProtocolVersion]) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(TlsError::Library)?;
    let current = Arc::new(Current(Arc::clone(shared)));
    let asks = shared.recipe().client_auth.asks();
    let builder = if asks {
        builder.with_client_cert_verifier(Arc::clone(&current) as _)
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_cert_resolver(current);
    if asks {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    } else {
        config.session_storage = Arc::new(Sessions::new(Arc::clone(shared)));
    }
    Ok(config)
}

fn with_alpn(base: &ServerConfig, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let mut config = base.clone();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

impl Material for ServerMaterial {
    type Recipe = Recipe;

    fn load(recipe: &Recipe, reader: &mut Reader) -> Result<Self, TlsError> {
        let certificate = recipe.certificate.load(reader)?;
        let clients = match &recipe.client_auth {
            ClientAuth::None => None,
            ClientAuth::Optional(trust) | ClientAuth::Required(trust) => Some(trust.load(reader)?.client_verifier()?),
        };
        Ok(Self { certificate, clients })
    }
}

/// Hands every handshake the material that is current.
struct Current(Arc<Shared>);

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current(server)")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current().material.certificate.key))
    }
}

impl ClientCertVerifier for Current {
    fn client_auth_mandatory(&self) -> bool {
        matches!(self.0.recipe().client_auth, ClientAuth::Required(_))
    }

    /// None, because a borrowed list could not follow a reload. It is only a hint (RFC 8446 §4.2.4), and
    /// without it a client shows the certificate that it has, so that a wrong one is told from a missing one.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match &self.0.current().material.clients {
            Some(verifier) => verifier.verify_client_cert(end_entity, intermediates, now),
            None => Err(Error::General("client certificates are not in use".into())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
