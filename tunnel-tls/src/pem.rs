//! Reading PEM text, with errors that say which block of which file is wrong.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::{Block, TlsError};

/// Enough for the largest bundles of public CAs (0.3 MiB), too little to exhaust anything.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Where PEM text comes from: a file, which a reload reads again, or memory, which never changes.
///
/// Its `Debug` and `Display` show the path, never the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem(Inner);

#[derive(Clone, PartialEq, Eq)]
enum Inner {
    File(PathBuf),
    Memory(Arc<[u8]>),
}

impl Pem {
    /// PEM text in a file of at most 4 MiB. Nothing is read yet.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Inner::File(path.into()))
    }

    /// PEM text in memory.
    #[must_use]
    pub fn text(text: impl AsRef<[u8]>) -> Self {
        Self(Inner::Memory(text.as_ref().into()))
    }

    /// The file, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Inner::File(path) => Some(path),
            Inner::Memory(_) => None,
        }
    }

    /// Reads a certificate chain or a CA bundle: every `CERTIFICATE` block, in order, at least one.
    ///
    /// A private key in the same file is passed over, because some tools keep chain and key together.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        certificates(&self.read()?, &self.to_string())
    }

    /// Reads the one private key, in PKCS #8, PKCS #1 or SEC 1 form.
    ///
    /// Certificates in the same file are passed over.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        private_key(&self.read()?, &self.to_string())
    }

    /// Reads certificate revocation lists: every `X509 CRL` block, at least one.
    pub fn revocation_lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        revocation_lists(&self.read()?, &self.to_string())
    }

    /// The raw text, read from the file now.
    pub(crate) fn read(&self) -> Result<Arc<[u8]>, TlsError> {
        let path = match &self.0 {
            Inner::Memory(text) => return Ok(Arc::clone(text)),
            Inner::File(path) => path,
        };
        let failed = |source| TlsError::Read {
            origin: self.to_string(),
            source,
        };
        let text = read_bounded(path).map_err(failed)?;
        text.ok_or_else(|| TlsError::TooLarge {
            origin: self.to_string(),
            limit: MAX_BYTES,
        })
    }
}

/// Reads a file, or nothing if it is too large.
fn read_bounded(path: &Path) -> io::Result<Option<Arc<[u8]>>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    Ok((text.len() as u64 <= MAX_BYTES).then(|| text.into()))
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::File(path) => write!(f, "{}", path.display()),
            Inner::Memory(_) => f.write_str("the PEM text given in memory"),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({self})")
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Self::file(path)
    }
}

impl From<&Path> for Pem {
    fn from(path: &Path) -> Self {
        Self::file(path)
    }
}

/// Parses what [`Pem::certificates`] returns.
pub(crate) fn certificates(text: &[u8], origin: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    const EXPECTED: &str = "CERTIFICATE";
    let blocks = blocks(text, origin, "x509")?;
    let mut found = Vec::new();
    for raw in &blocks {
        match raw.decode(origin)? {
            Some((SectionKind::Certificate, der)) => {
                if !is_certificate(&der) {
                    return Err(TlsError::BadCertificate {
                        origin: origin.into(),
                        block: raw.block.clone(),
                    });
                }
                found.push(CertificateDer::from(der));
            }
            // OpenSSL's trust settings would be lost without a word.
            _ if raw.block.label == "TRUSTED CERTIFICATE" => {
                return Err(raw.wrong_kind(origin, EXPECTED));
            }
            _ => {}
        }
    }
    if found.is_empty() {
        return Err(missing(&blocks, origin, EXPECTED));
    }
    Ok(found)
}

fn is_certificate(der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(rest, _)| rest.is_empty())
}

/// Parses what [`Pem::private_key`] returns.
pub(crate) fn private_key(text: &[u8], origin: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    const EXPECTED: &str = "PRIVATE KEY";
    let blocks = blocks(text, origin, "pkey")?;
    let mut found = None;
    for raw in &blocks {
        if raw.is_encrypted() {
            return Err(TlsError::EncryptedKey {
                origin: origin.into(),
                block: raw.block.clone(),
            });
        }
        let Some((kind, der)) = raw.decode(origin)? else {
            continue;
        };
        let Some(key) = PrivateKeyDer::from_pem(kind, der) else {
            continue;
        };
        if found.replace(key).is_some() {
            return Err(TlsError::SeveralKeys {
                origin: origin.into(),
                block: raw.block.clone(),
            });
        }
    }
    found.ok_or_else(|| missing(&blocks, origin, EXPECTED))
}

/// Parses what [`Pem::revocation_lists`] returns.
pub(crate) fn revocation_lists(
    text: &[u8],
    origin: &str,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    const EXPECTED: &str = "X509 CRL";
    let blocks = blocks(text, origin, "crl")?;
    let mut found = Vec::new();
    for raw in &blocks {
        if let Some((SectionKind::Crl, der)) = raw.decode(origin)? {
            found.push(CertificateRevocationListDer::from(der));
        }
    }
    if found.is_empty() {
        return Err(missing(&blocks, origin, EXPECTED));
    }
    Ok(found)
}

/// A block with its BEGIN and END lines.
struct RawBlock<'a> {
    block: Block,
    text: &'a [u8],
}

impl RawBlock<'_> {
    /// Its kind and content, or nothing if the kind is unknown to us.
    fn decode(&self, origin: &str) -> Result<Option<(SectionKind, Vec<u8>)>, TlsError> {
        if self.is_encrypted() {
            return Ok(None);
        }
        match <(SectionKind, Vec<u8>)>::pem_slice_iter(self.text).next() {
            None => Ok(None),
            Some(Ok(section)) => Ok(Some(section)),
            Some(Err(_)) => Err(TlsError::Base64 {
                origin: origin.into(),
                block: self.block.clone(),
            }),
        }
    }

    /// PKCS #8 says so in the label (RFC 7468 §11), the older forms in a header (RFC 1421 §4.6.1.1).
    fn is_encrypted(&self) -> bool {
        self.block.label == "ENCRYPTED PRIVATE KEY"
            || (self.is_private_key() && contains(self.text, b"Proc-Type: 4,ENCRYPTED"))
    }

    fn is_private_key(&self) -> bool {
        self.block.label.ends_with("PRIVATE KEY")
    }

    fn wrong_kind(&self, origin: &str, expected: &'static str) -> TlsError {
        let is_certificate = self.block.label == "CERTIFICATE";
        let hint = match expected {
            "CERTIFICATE" if self.is_private_key() => ": were the files of certificate and key swapped?",
            "CERTIFICATE" if self.block.label == "TRUSTED CERTIFICATE" => ": convert it with `openssl x509`",
            "CERTIFICATE" if self.block.label.ends_with("CERTIFICATE REQUEST") => ": have a CA sign it first",
            "PRIVATE KEY" if is_certificate => ": were the files of certificate and key swapped?",
            "PRIVATE KEY" if self.block.label == "OPENSSH PRIVATE KEY" => ": convert it with `ssh-keygen -p -m PKCS8`",
            _ => "",
        };
        TlsError::WrongKind {
            origin: origin.into(),
            block: self.block.clone(),
            expected,
            hint,
        }
    }
}

/// Splits the text into blocks; what stands between them is commentary.
fn blocks<'a>(text: &'a [u8], origin: &str, tool: &'static str) -> Result<Vec<RawBlock<'a>>, TlsError> {
    const SEQUENCE: u8 = 0x30;
    if text.trim_ascii().is_empty() {
        return Err(TlsError::Empty { origin: origin.into() });
    }
    let mut blocks: Vec<RawBlock<'a>> = Vec::new();
    let mut open: Option<(Block, usize)> = None;
    let mut offset = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let start = offset;
        offset += line.len();
        let line = line.trim_ascii_end();
        if let Some(label) = between(line, b"-----BEGIN ") {
            if let Some((block, _)) = open.take() {
                return Err(unterminated(origin, block));
            }
            let number = blocks.len() + 1;
            open = Some((Block { number, label }, start));
        } else if line.starts_with(b"-----END ")
            && let Some((block, begin)) = open.take()
        {
            if between(line, b"-----END ").as_ref() != Some(&block.label) {
                return Err(unterminated(origin, block));
            }
            blocks.push(RawBlock {
                block,
                text: &text[begin..offset],
            });
        }
    }
    if let Some((block, _)) = open {
        return Err(unterminated(origin, block));
    }
    if blocks.is_empty() && text.first() == Some(&SEQUENCE) {
        return Err(TlsError::Der {
            origin: origin.into(),
            tool,
        });
    }
    Ok(blocks)
}

/// Why no block was of the kind that was looked for.
fn missing(blocks: &[RawBlock<'_>], origin: &str, expected: &'static str) -> TlsError {
    match blocks.first() {
        Some(first) => first.wrong_kind(origin, expected),
        None => TlsError::NoBlocks {
            origin: origin.into(),
            expected,
        },
    }
}

fn unterminated(origin: &str, block: Block) -> TlsError {
    TlsError::Unterminated {
        origin: origin.into(),
        block,
    }
}

/// The label between a prefix and the five closing dashes.
fn between(line: &[u8], prefix: &[u8]) -> Option<String> {
    let label = line.strip_prefix(prefix)?.strip_suffix(b"-----")?;
    Some(String::from_utf8_lossy(label).into_owned())
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}
