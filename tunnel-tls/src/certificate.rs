//! Our own certificate: the chain with its key, and the facts that logs and metrics show.

use std::sync::Arc;

use aws_lc_rs::hmac;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use tunnel_proto::Identity;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::date::Date;
use crate::error::TlsError;
use crate::identity::peer_identity;
use crate::pem::{self, Pem};
use crate::provider::provider;
use crate::reload::Reader;

/// A certificate chain and the private key of its first certificate.
#[derive(Clone, Debug)]
pub(crate) struct CertificateSource {
    pub(crate) chain: Pem,
    pub(crate) key: Pem,
}

/// A loaded certificate.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) facts: CertificateFacts,
    /// What [`Certificate::derive`] starts from.
    secret: hmac::Key,
}

impl Certificate {
    /// A secret for one purpose that only holders of the private key can know, and that stays the same for as long
    /// as the key does.
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut secret = [0; 32];
        secret.copy_from_slice(hmac::sign(&self.secret, purpose.as_bytes()).as_ref());
        secret
    }
}

/// What a certificate of ours says; for logs, metrics and warnings before it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateFacts {
    /// Its names. Empty if they cannot be parsed, for then peers decide what they make of them.
    pub identity: Identity,
    /// When it becomes valid.
    pub not_before: Date,
    /// When it expires.
    pub not_after: Date,
}

impl CertificateSource {
    /// Reads chain and key and checks that they belong together and are valid now.
    pub(crate) fn load(&self, reader: &mut Reader) -> Result<Certificate, TlsError> {
        let origin = self.chain.to_string();
        let chain = pem::certificates(&reader.read(&self.chain)?, &origin)?;
        let key = reader.read(&self.key)?;
        let facts = facts(&chain, &origin)?;
        if reader.now() > facts.not_after {
            return Err(TlsError::Expired {
                origin,
                not_after: facts.not_after,
            });
        }
        if reader.now() < facts.not_before {
            return Err(TlsError::NotYetValid {
                origin,
                not_before: facts.not_before,
            });
        }
        let secret = hmac::Key::new(
            hmac::HMAC_SHA256,
            pem::private_key(&key, &self.key.to_string())?.secret_der(),
        );
        Ok(Certificate {
            key: Arc::new(self.pair(chain, &key)?),
            facts,
            secret,
        })
    }

    fn pair(&self, chain: Vec<CertificateDer<'static>>, key: &[u8]) -> Result<CertifiedKey, TlsError> {
        let origin = self.key.to_string();
        let key = pem::private_key(key, &origin)?;
        let key = match provider().key_provider.load_private_key(key) {
            Ok(key) => key,
            Err(source) => return Err(TlsError::UnusableKey { origin, source }),
        };
        let pair = CertifiedKey::new(chain, key);
        match pair.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
            Err(_) => Err(TlsError::KeyMismatch {
                hint: misplaced(&pair),
                certificate: self.chain.to_string(),
                key: origin,
            }),
        }
    }
}

/// Whether a later certificate is the one that the key belongs to, as the end of a sentence.
fn misplaced(pair: &CertifiedKey) -> String {
    let belongs = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], Arc::clone(&pair.key))
            .keys_match()
            .is_ok()
    };
    match pair.cert.iter().position(belongs) {
        Some(at) => format!(
            ", but to certificate {} there: put that one first, then its issuer",
            at + 1
        ),
        None => String::new(),
    }
}

fn facts(chain: &[CertificateDer<'static>], origin: &str) -> Result<CertificateFacts, TlsError> {
    let leaf = chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok());
    let Some((_, leaf)) = leaf else {
        return Err(TlsError::Empty { origin: origin.into() });
    };
    Ok(CertificateFacts {
        identity: peer_identity(chain).unwrap_or_default(),
        not_before: Date::from_unix(leaf.validity().not_before.timestamp()),
        not_after: Date::from_unix(leaf.validity().not_after.timestamp()),
    })
}
