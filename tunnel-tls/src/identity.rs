//! What a peer's certificate proves.

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use tunnel_proto::{Fingerprint, Identity, Text};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longer common names are not taken; RFC 5280 allows 64 characters, some issuers more.
const MAX_COMMON_NAME: usize = 256;
/// RFC 1035 §3.1, as text without the final dot.
const MAX_DNS_NAME: usize = 253;
/// SPIFFE ID §2.3.
const MAX_SPIFFE_ID: usize = 2048;
/// SPIFFE ID §2.1.
const MAX_TRUST_DOMAIN: usize = 255;

/// Why a certificate that is signed by a trusted CA still proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The certificate or one of its extensions does not parse.
    #[error("the peer's certificate does not parse")]
    Malformed,

    /// A SPIFFE ID beside another URI (X.509-SVID §2).
    #[error("the peer's certificate holds a SPIFFE ID and {} other URI names, but a SPIFFE ID must stand alone", .others)]
    SpiffeNotAlone {
        /// How many URI names there are beside it.
        others: usize,
    },

    /// A name that begins like a SPIFFE ID and is not a valid one (SPIFFE ID §2).
    #[error("the peer's certificate holds {id:?}, which is not a valid SPIFFE ID: {reason}")]
    BadSpiffeId {
        /// The name, made safe to print.
        id: Text,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A SPIFFE ID in a certificate that may sign others (X.509-SVID §5.2).
    #[error("the peer's certificate holds a SPIFFE ID and may sign certificates, which only a CA may")]
    SpiffeOnSigner,
}

/// The identity that a verified certificate chain proves; anonymous if the chain is empty.
///
/// Call it only with a chain that the handshake has verified: signatures, validity and trust are not looked
/// at again. Names that could be mistaken for others or that cannot be printed safely are left out rather than
/// altered: DNS names that are not plain ASCII host names, a common name with control or direction
/// characters, and every common name if there is more than one. A SPIFFE ID is checked as X.509-SVID §5.2 asks.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Result<Identity, IdentityError> {
    let Some(leaf) = chain.first() else {
        return Ok(Identity::anonymous());
    };
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| IdentityError::Malformed)?;
    let names = alternative_names(&parsed)?;
    let mut identity = Identity::anonymous();
    identity.spiffe = spiffe_id(&parsed, &names)?;
    identity.dns = names.iter().filter_map(dns_name).collect();
    identity.common_name = common_name(&parsed);
    identity.fingerprint = Some(fingerprint(leaf));
    Ok(identity)
}

/// The SHA-256 digest of a certificate.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    let mut print = [0; 32];
    print.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    Fingerprint(print)
}

fn alternative_names<'a>(certificate: &'a X509Certificate<'a>) -> Result<Vec<GeneralName<'a>>, IdentityError> {
    let mut names = Vec::new();
    for extension in certificate.extensions() {
        if extension.oid != OID_X509_EXT_SUBJECT_ALT_NAME {
            continue;
        }
        // A repeated extension (RFC 5280 §4.2) or one that does not parse could hide a name.
        let ParsedExtension::SubjectAlternativeName(found) = extension.parsed_extension() else {
            return Err(IdentityError::Malformed);
        };
        if !names.is_empty() {
            return Err(IdentityError::Malformed);
        }
        names.extend(found.general_names.iter().cloned());
    }
    Ok(names)
}

fn spiffe_id(certificate: &X509Certificate<'_>, names: &[GeneralName<'_>]) -> Result<Option<String>, IdentityError> {
    let uris = || {
        names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
    };
    let Some(id) = uris().find(|uri| claims_to_be_spiffe(uri)) else {
        return Ok(None);
    };
    let others = uris().count() - 1;
    if others > 0 {
        return Err(IdentityError::SpiffeNotAlone { others });
    }
    check_spiffe_id(id).map_err(|reason| IdentityError::BadSpiffeId {
        id: Text::new(id),
        reason,
    })?;
    if may_sign(certificate)? {
        return Err(IdentityError::SpiffeOnSigner);
    }
    Ok(Some(id.to_owned()))
}

/// Schemes are compared without regard to case (RFC 3986 §3.1), so that no spelling escapes the check.
fn claims_to_be_spiffe(uri: &str) -> bool {
    uri.split_once(':')
        .is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("spiffe"))
}

/// SPIFFE ID §2: a lower-case trust domain and a path of plain segments, nothing else.
pub(crate) fn check_spiffe_id(id: &str) -> Result<(), &'static str> {
    if id.len() > MAX_SPIFFE_ID {
        return Err("it is longer than 2048 bytes");
    }
    let Some(rest) = id.strip_prefix("spiffe://") else {
        return Err("it does not begin with spiffe://");
    };
    let (domain, path) = match rest.split_once('/') {
        Some((domain, path)) => (domain, Some(path)),
        None => (rest, None),
    };
    let in_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if domain.is_empty() || domain.len() > MAX_TRUST_DOMAIN || !domain.bytes().all(in_domain) {
        return Err("its trust domain is not made of a-z, 0-9, dot, dash and underscore");
    }
    let in_path = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let segments = path.into_iter().flat_map(|path| path.split('/'));
    for segment in segments {
        if segment.is_empty() || segment == "." || segment == ".." {
            return Err("its path has an empty or a dot segment");
        }
        if !segment.bytes().all(in_path) {
            return Err("its path is not made of letters, digits, dot, dash and underscore");
        }
    }
    Ok(())
}

fn may_sign(certificate: &X509Certificate<'_>) -> Result<bool, IdentityError> {
    let constraints = certificate.basic_constraints().map_err(|_| IdentityError::Malformed)?;
    let usage = certificate.key_usage().map_err(|_| IdentityError::Malformed)?;
    Ok(constraints.is_some_and(|c| c.value.ca) || usage.is_some_and(|u| u.value.key_cert_sign() || u.value.crl_sign()))
}

/// In lower case, as names are compared.
fn dns_name(name: &GeneralName<'_>) -> Option<String> {
    let GeneralName::DNSName(name) = name else {
        return None;
    };
    let host = name.strip_prefix("*.").unwrap_or(name);
    let in_label = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let plain = host
        .split('.')
        .all(|label| (1..=63).contains(&label.len()) && label.bytes().all(in_label));
    (plain && name.len() <= MAX_DNS_NAME).then(|| name.to_ascii_lowercase())
}

fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?;
    let printable = Text::new(name).as_str() == name && name.trim() == name;
    let fits = (1..=MAX_COMMON_NAME).contains(&name.len());
    (printable && fits && names.next().is_none()).then(|| name.to_owned())
}
