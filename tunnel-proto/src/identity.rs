//! What a peer has proven itself to be.

use std::fmt;

/// The SHA-256 digest of a certificate's DER encoding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// The verified identity of a peer: what its certificate and its credential prove, and nothing that it merely
/// says of itself.
///
/// It never travels on our wire; each end derives it from the handshake. An identity without any name is
/// anonymous ([`Identity::is_anonymous`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The SPIFFE ID (`spiffe://trust-domain/path`) in the certificate's URI subject alternative name.
    pub spiffe: Option<String>,
    /// The certificate's DNS subject alternative names, in the order of the certificate.
    pub dns: Vec<String>,
    /// The certificate subject's common name.
    pub common_name: Option<String>,
    /// The certificate's fingerprint.
    pub fingerprint: Option<Fingerprint>,
    /// Whom the verified credential (for example a bearer token) was issued to.
    pub subject: Option<String>,
}

impl Identity {
    /// An identity that proves nothing.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// An identity proven by a credential alone.
    #[must_use]
    pub fn from_subject(subject: impl Into<String>) -> Self {
        Self {
            subject: Some(subject.into()),
            ..Self::default()
        }
    }

    /// Whether the peer proved nothing at all.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.principal().is_none()
    }

    /// Every name that the peer has proven, each with the prefix that says what kind it is: `spiffe://…`
    /// as it stands, `dns:`, `cn:`, `token:` and `sha256:`. The most stable kind comes first.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        let spiffe = self.spiffe.iter().cloned();
        let dns = self.dns.iter().map(|name| format!("dns:{name}"));
        let common_name = self.common_name.iter().map(|name| format!("cn:{name}"));
        let subject = self.subject.iter().map(|name| format!("token:{name}"));
        let fingerprint = self.fingerprint.iter().map(|print| format!("sha256:{print}"));
        spiffe.chain(dns).chain(common_name).chain(subject).chain(fingerprint)
    }

    /// The one name that stays the same when the certificate is renewed: the first of [`Identity::names`].
    #[must_use]
    pub fn principal(&self) -> Option<String> {
        self.names().next()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.principal() {
            Some(name) => f.write_str(&name),
            None => f.write_str("anonymous"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_principal_survives_a_renewed_certificate() {
        let mut identity = Identity {
            dns: vec!["node-7.example".into()],
            common_name: Some("node-7".into()),
            fingerprint: Some(Fingerprint([1; 32])),
            ..Identity::default()
        };
        let before = identity.principal();
        identity.fingerprint = Some(Fingerprint([2; 32]));
        assert_eq!(identity.principal(), before);
        assert_eq!(before.as_deref(), Some("dns:node-7.example"));
    }

    #[test]
    fn an_empty_identity_is_anonymous() {
        assert!(Identity::anonymous().is_anonymous());
        assert_eq!(Identity::anonymous().to_string(), "anonymous");
        assert!(!Identity::from_subject("dev").is_anonymous());
    }
}
