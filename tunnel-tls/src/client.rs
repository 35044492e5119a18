//! The client side of a handshake.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme, SupportedProtocolVersion,
};
use tunnel_proto::Text;

use crate::auto_reload::AutoReload;
use crate::certificate::{Certificate, CertificateFacts, CertificateSource};
use crate::error::TlsError;
use crate::identity::{check_spiffe_id, peer_identity};
use crate::pem::Pem;
use crate::provider::provider;
use crate::reload::{Material, Reader, Reload, Reloadable};
use crate::trust::Trust;

/// Whom a client trusts and what it shows of itself, as rustls configurations that follow every reload.
///
/// One configuration serves for the life of the program: each handshake takes the CAs and the client
/// certificate that are current, and connections that are established keep what they have. Clones share the
/// material.
///
/// # Session resumption
///
/// Never: a resumed session skips the server's certificate, so neither its expiry nor a changed set of CAs
/// would be noticed, and the server would go on to see the client certificate of the first connection. Agents
/// connect rarely and stay, so a full handshake each time costs next to nothing. Early data (0-RTT) is never
/// sent, because it can be replayed.
#[derive(Clone)]
pub struct ClientTls {
    shared: Arc<Shared>,
    tcp: ClientConfig,
    quic: ClientConfig,
    server_name: Option<ServerName<'static>>,
}

type Shared = Reloadable<ClientMaterial>;

/// Collects the parts of a [`ClientTls`].
#[derive(Clone, Debug)]
pub struct ClientTlsBuilder {
    recipe: Recipe,
    server_name: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    trust: Trust,
    certificate: Option<CertificateSource>,
    /// What a server may be, if it is not its name that counts.
    spiffe: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct ClientMaterial {
    servers: Arc<WebPkiServerVerifier>,
    certificate: Option<Certificate>,
}

impl ClientTls {
    /// Starts from the CAs by which servers are verified.
    #[must_use]
    pub fn builder(trust: Trust) -> ClientTlsBuilder {
        ClientTlsBuilder {
            recipe: Recipe {
                trust,
                certificate: None,
                spiffe: Vec::new(),
            },
            server_name: None,
        }
    }

    /// The configuration for TLS over TCP: TLS 1.3, and 1.2 for servers that lack it.
    ///
    /// `alpn` lists the protocols that are offered, most wanted first; with an empty list none is negotiated.
    #[must_use]
    pub fn tcp_config(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        with_alpn(&self.tcp, alpn)
    }

    /// The configuration for QUIC: TLS 1.3 alone (RFC 9001 §4.2).
    ///
    /// It is ready for `quinn::crypto::rustls::QuicClientConfig::try_from`.
    #[must_use]
    pub fn quic_config(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        with_alpn(&self.quic, alpn)
    }

    /// The name that the server's certificate must hold when `host` is dialled: the override that was
    /// configured, or else `host` itself, a DNS name or an IP address without brackets.
    pub fn server_name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => parse_name(host),
        }
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
        AutoReload::start("client TLS", Arc::clone(&self.shared))
    }

    /// The files that [`ClientTls::reload`] reads.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        self.shared.files()
    }

    /// What the current client certificate says, if there is one.
    #[must_use]
    pub fn certificate(&self) -> Option<CertificateFacts> {
        let current = self.shared.current();
        let certificate = current.material.certificate.as_ref()?;
        Some(certificate.facts.clone())
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("recipe", self.shared.recipe())
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

impl ClientTlsBuilder {
    /// The certificate chain and key to show to servers that ask. Default: none.
    #[must_use]
    pub fn certificate(mut self, chain: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        self.recipe.certificate = Some(CertificateSource {
            chain: chain.into(),
            key: key.into(),
        });
        self
    }

    /// The name that the server's certificate must hold, whatever address is dialled; it is also sent as SNI.
    /// Default: the host that is dialled.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// The SPIFFE IDs of which the server's certificate must hold one, instead of a name: certificates of a mesh
    /// (X.509-SVID) hold no names of DNS. One without a path, such as `spiffe://cluster.local`, stands for its whole
    /// trust domain. Default: none, and the name counts. Everything else about a certificate is verified either way.
    #[must_use]
    pub fn spiffe(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.recipe.spiffe = ids.into_iter().map(Into::into).collect();
        self
    }

    /// Reads and checks everything.
    pub fn build(self) -> Result<ClientTls, TlsError> {
        for id in &self.recipe.spiffe {
            check_spiffe_id(id).map_err(|reason| TlsError::SpiffeId { id: id.clone(), reason })?;
        }
        let server_name = self.server_name.as_deref().map(parse_name).transpose()?;
        let shared = Arc::new(Shared::load(self.recipe)?);
        Ok(ClientTls {
            tcp: config(&shared, &[&TLS13, &TLS12])?,
            quic: config(&shared, &[&TLS13])?,
            shared,
            server_name,
        })
    }
}

fn parse_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName { name: name.into() })
}

fn config(shared: &Arc<Shared>, versions: &[&'static SupportedProtocolVersion]) -> Result<ClientConfig, TlsError> {
    let current = Arc::new(Current(Arc::clone(shared)));
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(TlsError::Library)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&current) as _)
        .with_client_cert_resolver(current);
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn with_alpn(base: &ClientConfig, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = base.clone();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

impl Material for ClientMaterial {
    type Recipe = Recipe;

    fn load(recipe: &Recipe, reader: &mut Reader) -> Result<Self, TlsError> {
        Ok(Self {
            servers: recipe.trust.load(reader)?.server_verifier()?,
            certificate: match &recipe.certificate {
                Some(source) => Some(source.load(reader)?),
                None => None,
            },
        })
    }
}

/// Hands every handshake the material that is current.
struct Current(Arc<Shared>);

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current(client)")
    }
}

impl ResolvesClientCert for Current {
    /// The issuers that the server hints at are not looked at: showing a certificate that does not fit earns
    /// an answer that says so, showing none would not.
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let current = self.0.current();
        let certificate = current.material.certificate.as_ref()?;
        Some(Arc::clone(&certificate.key))
    }

    fn has_certs(&self) -> bool {
        self.0.recipe().certificate.is_some()
    }
}

/// The certificate of a server holds none of the SPIFFE IDs that were expected.
#[derive(Debug, thiserror::Error)]
#[error("the peer's certificate is for {presented}, not for {}", .expected.join(" or "))]
pub(crate) struct WrongSpiffeId {
    presented: Text,
    expected: Vec<String>,
}

fn verify_spiffe(certificate: &CertificateDer<'_>, expected: &[String]) -> Result<(), Error> {
    let other = |error| Error::InvalidCertificate(CertificateError::Other(OtherError(error)));
    let identity = peer_identity(std::slice::from_ref(certificate)).map_err(|error| other(Arc::new(error)))?;
    let matches = |id: &str| {
        expected.iter().any(|expected| {
            let is_domain = expected.matches('/').count() == 2;
            let rest = id.strip_prefix(expected.as_str());
            rest.is_some_and(|rest| rest.is_empty() || (is_domain && rest.starts_with('/')))
        })
    };
    match &identity.spiffe {
        Some(id) if matches(id) => Ok(()),
        id => {
            let presented = id.as_deref().map_or("nothing that has a SPIFFE ID".into(), Text::new);
            let expected = expected.to_vec();
            Err(other(Arc::new(WrongSpiffeId { presented, expected })))
        }
    }
}

impl ServerCertVerifier for Current {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let servers = &self.0.current().material.servers;
        let verified = servers.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let expected = &self.0.recipe().spiffe;
        if expected.is_empty() {
            return verified;
        }
        match verified {
            // The name is the last thing that is looked at.
            Ok(_) | Err(Error::InvalidCertificate(CertificateError::NotValidForName)) => {}
            Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })) => {}
            Err(error) => return Err(error),
        }
        verify_spiffe(end_entity, expected)?;
        Ok(ServerCertVerified::assertion())
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
