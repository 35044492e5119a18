//! A certificate authority for development, in one private directory.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::digest;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, ServerName};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificate::CertificateSource;
use crate::date::Date;
use crate::pem::Pem;
use crate::private_file::{self, Readers};
use crate::reload::Reader;

const DAY: u64 = 24 * 60 * 60;

/// How long the CA certificate is valid.
const CA_VALIDITY: Duration = Duration::from_secs(365 * DAY);

/// Certificates begin in the past, for peers whose clocks are behind.
const BACKDATE: i64 = 60 * 60;

/// A certificate authority for development and first steps.
///
/// Its directory has mode 0700 and holds `ca.crt`, which peers are given to trust, and `ca.key` with mode 0600.
/// Keys are ECDSA P-256, which every TLS library verifies. The CA certificate is valid for a year; when less
/// than a third of that is left, loading renews it with the same name and key, so that peers with the old
/// `ca.crt` and certificates that it signed go on working. Several processes may share a directory: they take
/// turns by a lock on `.lock` in it.
pub struct DevCa {
    dir: PathBuf,
    key: KeyPair,
    certificate: CertificateDer<'static>,
    not_after: Date,
}

/// What a certificate is for; peers refuse it for anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be shown by servers.
    Server,
    /// To be shown by clients (agents are clients here, for they dial).
    Client,
}

/// A name that a certificate proves.
///
/// Parsed from text, `10.0.0.1` and `::1` are addresses, what contains `://` is a URI, and the rest DNS names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertName {
    /// A DNS name, possibly with `*.` in front.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
    /// A URI, for example a SPIFFE ID.
    Uri(String),
}

/// A new certificate and its key, as PEM. `Debug` shows neither.
#[derive(Clone)]
#[non_exhaustive]
pub struct Issued {
    /// The certificate chain, without the CA.
    pub chain: String,
    /// The private key (PKCS #8).
    pub key: String,
}

/// Where a certificate and its key were written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IssuedFiles {
    /// The certificate chain, without the CA.
    pub chain: PathBuf,
    /// The private key (PKCS #8), mode 0600.
    pub key: PathBuf,
}

/// Why the development CA could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevCaError {
    /// A file or directory cannot be read or written.
    #[error("cannot {doing} {path}", path = .path.display())]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },

    /// Others could read the CA's key.
    #[error("{path} has mode {mode:03o}, so others can get at the CA's key: run `chmod {wanted:03o} {path}`", path = .path.display())]
    TooOpen {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        wanted: u32,
    },

    /// The CA's certificate or key, or a certificate that it issued, is damaged.
    #[error("the development CA in {dir} is damaged: remove the directory to start a new one", dir = .dir.display())]
    Damaged {
        /// The CA's directory.
        dir: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The certificate in `ca.crt` belongs to another key than `ca.key`.
    #[error("ca.crt and ca.key in {dir} do not belong together: remove the directory to start a new CA", dir = .dir.display())]
    Mismatch {
        /// The CA's directory.
        dir: PathBuf,
    },

    /// A text that is no name for a certificate.
    #[error("{name:?} is not a DNS name, an IP address or a URI")]
    BadName {
        /// The text.
        name: String,
    },

    /// A certificate without names would prove nothing.
    #[error("a certificate needs at least one name")]
    NoNames,

    /// A file name that could leave the directory or overwrite the CA.
    #[error("{stem:?} is not a usable file name: use letters, digits, dash and underscore, and not \"ca\"")]
    BadStem {
        /// The text.
        stem: String,
    },

    /// The library that makes certificates refused.
    #[error("cannot make a certificate")]
    Library(#[source] rcgen::Error),
}

impl DevCa {
    /// How long certificates are valid that [`DevCa::ensure`] issues: 90 days.
    pub const LEAF_VALIDITY: Duration = Duration::from_secs(90 * DAY);

    /// Loads the CA of a directory, or creates both.
    ///
    /// It reads and writes files and so may block briefly.
    pub fn create_or_load(dir: impl Into<PathBuf>) -> Result<Self, DevCaError> {
        let dir = dir.into();
        private_file::create_dir(&dir).map_err(io_error("create", &dir))?;
        refuse_too_open(&dir, 0o700)?;
        let _turn = lock(&dir)?;
        let key = load_or_create_key(&dir)?;
        let (certificate, not_after) = load_or_renew_certificate(&dir, &key)?;
        Ok(Self {
            dir,
            key,
            certificate,
            not_after,
        })
    }

    /// The file with the CA certificate, for peers to trust.
    #[must_use]
    pub fn certificate_file(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// The CA certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// When the CA certificate expires.
    #[must_use]
    pub fn not_after(&self) -> Date {
        self.not_after
    }

    /// Issues a certificate with a new key, and writes nothing.
    ///
    /// It is valid from one hour ago and for `validity` from now, but not longer than the CA.
    pub fn issue(&self, names: &[CertName], purpose: Purpose, validity: Duration) -> Result<Issued, DevCaError> {
        let mut params = leaf_params(names, purpose)?;
        let now = Date::now().as_unix();
        let seconds = i64::try_from(validity.as_secs()).unwrap_or(i64::MAX);
        let not_after = now.saturating_add(seconds).min(self.not_after.as_unix());
        params.not_before = moment(now - BACKDATE);
        params.not_after = moment(not_after);
        let key = generate_key()?;
        let ca = ca_params(&self.key);
        let chain = params
            .signed_by(&key, &Issuer::from_params(&ca, &self.key))
            .map_err(DevCaError::Library)?;
        Ok(Issued {
            chain: chain.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Makes sure that `STEM.crt` and `STEM.key` in the CA's directory hold a certificate of this CA with
    /// exactly these names, this purpose and at least a third of its time left; issues one for 90 days if not.
    pub fn ensure(&self, stem: &str, names: &[CertName], purpose: Purpose) -> Result<IssuedFiles, DevCaError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if stem.is_empty() || stem.eq_ignore_ascii_case("ca") || !stem.bytes().all(plain) {
            return Err(DevCaError::BadStem { stem: stem.into() });
        }
        let files = IssuedFiles {
            chain: self.dir.join(format!("{stem}.crt")),
            key: self.dir.join(format!("{stem}.key")),
        };
        let _turn = lock(&self.dir)?;
        if self.is_good(&files, names, purpose) {
            return Ok(files);
        }
        let issued = self.issue(names, purpose, Self::LEAF_VALIDITY)?;
        write(&files.key, &issued.key, Readers::Owner)?;
        write(&files.chain, &issued.chain, Readers::Everybody)?;
        Ok(files)
    }

    fn is_good(&self, files: &IssuedFiles, names: &[CertName], purpose: Purpose) -> bool {
        let source = CertificateSource {
            chain: Pem::file(&files.chain),
            key: Pem::file(&files.key),
        };
        // Whatever is wrong with it is put right by issuing another.
        let Ok(certificate) = source.load(&mut Reader::new()) else {
            return false;
        };
        let leaf = certificate.key.cert.first();
        let Some((_, leaf)) = leaf.and_then(|leaf| X509Certificate::from_der(leaf).ok()) else {
            return false;
        };
        // The CA's name holds the fingerprint of its key, so a certificate of an earlier CA is told apart.
        let Ok((_, ca)) = X509Certificate::from_der(&self.certificate) else {
            return false;
        };
        let facts = &certificate.facts;
        leaf.issuer() == ca.subject()
            && !is_due(facts.not_before, facts.not_after)
            && names_of(&leaf) == sorted(names)
            && serves(&leaf, purpose)
    }
}

impl fmt::Debug for DevCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevCa")
            .field("dir", &self.dir)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

impl FromStr for CertName {
    type Err = DevCaError;

    fn from_str(name: &str) -> Result<Self, DevCaError> {
        let bad = || DevCaError::BadName { name: name.into() };
        if name.contains("://") {
            let plain = name.bytes().all(|b| b.is_ascii_graphic());
            return plain.then(|| Self::Uri(name.into())).ok_or_else(bad);
        }
        let host = name.strip_prefix("*.").unwrap_or(name);
        match ServerName::try_from(host).map_err(|_| bad())? {
            ServerName::IpAddress(ip) if host == name => Ok(Self::Ip(ip.into())),
            ServerName::DnsName(_) => Ok(Self::Dns(name.to_ascii_lowercase())),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for CertName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Uri(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

fn load_or_create_key(dir: &Path) -> Result<KeyPair, DevCaError> {
    let path = dir.join("ca.key");
    if !path.try_exists().map_err(io_error("read", &path))? {
        write(&path, &generate_key()?.serialize_pem(), Readers::Owner)?;
    }
    refuse_too_open(&path, 0o600)?;
    let key = Pem::file(&path).private_key().map_err(damaged(dir))?;
    KeyPair::from_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).map_err(damaged(dir))
}

fn load_or_renew_certificate(dir: &Path, key: &KeyPair) -> Result<(CertificateDer<'static>, Date), DevCaError> {
    let path = dir.join("ca.crt");
    if path.try_exists().map_err(io_error("read", &path))? {
        let (certificate, not_before, not_after) = load_certificate(dir, &path, key)?;
        if !is_due(not_before, not_after) {
            return Ok((certificate, not_after));
        }
    }
    let mut params = ca_params(key);
    let now = Date::now().as_unix();
    let not_after = now.saturating_add(i64::try_from(CA_VALIDITY.as_secs()).unwrap_or(i64::MAX));
    params.not_before = moment(now - BACKDATE);
    params.not_after = moment(not_after);
    let certificate = params.self_signed(key).map_err(DevCaError::Library)?;
    write(&path, &certificate.pem(), Readers::Everybody)?;
    Ok((certificate.der().clone(), Date::from_unix(not_after)))
}

fn load_certificate(
    dir: &Path,
    path: &Path,
    key: &KeyPair,
) -> Result<(CertificateDer<'static>, Date, Date), DevCaError> {
    let mut chain = Pem::file(path).certificates().map_err(damaged(dir))?;
    let certificate = chain.swap_remove(0);
    let (_, parsed) = X509Certificate::from_der(&certificate).map_err(damaged(dir))?;
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(DevCaError::Mismatch { dir: dir.into() });
    }
    let not_before = Date::from_unix(parsed.validity().not_before.timestamp());
    let not_after = Date::from_unix(parsed.validity().not_after.timestamp());
    Ok((certificate, not_before, not_after))
}

/// Whether less than a third of the time is left.
fn is_due(not_before: Date, not_after: Date) -> bool {
    let left = not_after.as_unix().saturating_sub(Date::now().as_unix());
    let whole = not_after.as_unix().saturating_sub(not_before.as_unix());
    left < whole / 3
}

/// Everything but the dates. The same key always yields the same name.
fn ca_params(key: &KeyPair) -> CertificateParams {
    let print = digest::digest(&digest::SHA256, &key.subject_public_key_info());
    let print: String = print.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("tunnel development CA {print}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Everything but the dates.
fn leaf_params(names: &[CertName], purpose: Purpose) -> Result<CertificateParams, DevCaError> {
    /// RFC 5280 Appendix A, ub-common-name.
    const MAX_COMMON_NAME: usize = 64;
    let first = names.first().ok_or(DevCaError::NoNames)?.to_string();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if first.len() <= MAX_COMMON_NAME {
        params.distinguished_name.push(DnType::CommonName, first);
    }
    params.subject_alt_names = names.iter().map(alternative_name).collect::<Result<_, _>>()?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match purpose {
        Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    Ok(params)
}

fn alternative_name(name: &CertName) -> Result<SanType, DevCaError> {
    let ascii = |text: &str| text.try_into().map_err(DevCaError::Library);
    Ok(match name {
        CertName::Dns(name) => SanType::DnsName(ascii(name)?),
        CertName::Uri(uri) => SanType::URI(ascii(uri)?),
        CertName::Ip(ip) => SanType::IpAddress(*ip),
    })
}

fn names_of(leaf: &X509Certificate<'_>) -> Vec<CertName> {
    let Ok(Some(names)) = leaf.subject_alternative_name() else {
        return Vec::new();
    };
    let names = names.value.general_names.iter().filter_map(|name| {
        Some(match name {
            GeneralName::DNSName(name) => CertName::Dns((*name).into()),
            GeneralName::URI(uri) => CertName::Uri((*uri).into()),
            GeneralName::IPAddress(bytes) => CertName::Ip(match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok()?.into(),
                _ => <[u8; 16]>::try_from(*bytes).ok()?.into(),
            }),
            _ => return None,
        })
    });
    sorted(&names.collect::<Vec<_>>())
}

fn sorted(names: &[CertName]) -> Vec<CertName> {
    let mut names = names.to_vec();
    names.sort();
    names
}

fn serves(leaf: &X509Certificate<'_>, purpose: Purpose) -> bool {
    let Ok(Some(usage)) = leaf.extended_key_usage() else {
        return false;
    };
    match purpose {
        Purpose::Server => usage.value.server_auth,
        Purpose::Client => usage.value.client_auth,
    }
}

fn generate_key() -> Result<KeyPair, DevCaError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(DevCaError::Library)
}

fn moment(unix: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn lock(dir: &Path) -> Result<File, DevCaError> {
    private_file::lock(dir).map_err(io_error("lock", dir))
}

fn write(path: &Path, text: &str, readers: Readers) -> Result<(), DevCaError> {
    private_file::replace(path, text, readers).map_err(io_error("write", path))
}

fn refuse_too_open(path: &Path, wanted: u32) -> Result<(), DevCaError> {
    match private_file::too_open(path).map_err(io_error("read", path))? {
        None => Ok(()),
        Some(mode) => Err(DevCaError::TooOpen {
            path: path.into(),
            mode,
            wanted,
        }),
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DevCaError + use<> {
    let path = path.to_owned();
    move |source| DevCaError::Io { doing, path, source }
}

fn damaged<E>(dir: &Path) -> impl FnOnce(E) -> DevCaError + use<E>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let dir = dir.to_owned();
    move |source| DevCaError::Damaged {
        dir,
        source: source.into(),
    }
}
