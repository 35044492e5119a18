//! By which CAs a peer is verified.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::date::Date;
use crate::error::TlsError;
use crate::pem::{self, Pem};
use crate::provider::provider;
use crate::reload::Reader;

/// The CAs that vouch for a peer, and the certificates that they have taken back.
///
/// With revocation lists, every certificate of a peer's chain must be covered by a list that is not past its
/// next update; one that is not covered is refused, as OpenSSL does.
#[derive(Clone, Debug)]
pub struct Trust {
    cas: Vec<Pem>,
    revoked: Vec<Pem>,
}

impl Trust {
    /// Trust in the CAs of one bundle.
    #[must_use]
    pub fn ca(bundle: impl Into<Pem>) -> Self {
        Self {
            cas: vec![bundle.into()],
            revoked: Vec::new(),
        }
    }

    /// Trust in the CAs of several bundles.
    #[must_use]
    pub fn cas(bundles: impl IntoIterator<Item = Pem>) -> Self {
        Self {
            cas: bundles.into_iter().collect(),
            revoked: Vec::new(),
        }
    }

    /// Adds certificate revocation lists.
    #[must_use]
    pub fn revoked(mut self, lists: impl Into<Pem>) -> Self {
        self.revoked.push(lists.into());
        self
    }

    pub(crate) fn load(&self, reader: &mut Reader) -> Result<Anchors, TlsError> {
        let mut roots = RootCertStore::empty();
        for source in &self.cas {
            let text = reader.read(source)?;
            add_bundle(&mut roots, source, &text, reader.now())?;
        }
        if roots.is_empty() {
            return Err(TlsError::NoCa);
        }
        let mut lists = Vec::new();
        for source in &self.revoked {
            let text = reader.read(source)?;
            lists.extend(pem::revocation_lists(&text, &source.to_string())?);
        }
        Ok(Anchors {
            roots: Arc::new(roots),
            lists,
            lists_origin: join(&self.revoked),
        })
    }
}

/// Parsed trust.
pub(crate) struct Anchors {
    roots: Arc<RootCertStore>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    lists_origin: String,
}

impl Anchors {
    pub(crate) fn client_verifier(self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        WebPkiClientVerifier::builder_with_provider(self.roots, provider())
            .with_crls(self.lists)
            .enforce_revocation_expiration()
            .build()
            .map_err(|source| TlsError::BadRevocationList {
                origin: self.lists_origin,
                source,
            })
    }

    pub(crate) fn server_verifier(self) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
        WebPkiServerVerifier::builder_with_provider(self.roots, provider())
            .with_crls(self.lists)
            .enforce_revocation_expiration()
            .build()
            .map_err(|source| TlsError::BadRevocationList {
                origin: self.lists_origin,
                source,
            })
    }
}

fn add_bundle(roots: &mut RootCertStore, source: &Pem, text: &[u8], now: Date) -> Result<(), TlsError> {
    let origin = source.to_string();
    for (index, ca) in pem::certificates(text, &origin)?.into_iter().enumerate() {
        warn_if_expired(&ca, index, &origin, now);
        roots.add(ca).map_err(|source| TlsError::BadCa {
            origin: origin.clone(),
            number: index + 1,
            source,
        })?;
    }
    Ok(())
}

/// The verifier takes a CA for its name and key alone (RFC 5280 §6.1.1 (d)), so an expired one goes on to be
/// trusted; while CAs are rotated a bundle may well hold one.
fn warn_if_expired(ca: &CertificateDer<'_>, index: usize, origin: &str, now: Date) {
    let Ok((_, ca)) = X509Certificate::from_der(ca) else {
        return;
    };
    let not_after = Date::from_unix(ca.validity().not_after.timestamp());
    if now > not_after {
        let number = index + 1;
        tracing::warn!("CA certificate {number} of {origin} expired on {not_after}: remove it");
    }
}

fn join(sources: &[Pem]) -> String {
    let names: Vec<String> = sources.iter().map(Pem::to_string).collect();
    names.join(", ")
}
